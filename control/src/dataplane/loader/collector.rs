//! The program that collects test packets, for benchmarks.

use std::os::fd::AsFd;

use aya::maps::{MapData, XskMap};
use evergate_common::maps::{
    ADDRESSES, DIRECT, INSIDE_V4, INSIDE_V6, INSIDE_XSKS, OWNERS, PEERS, SAS, USERS,
};

use super::{
    Attached, LoadError, Run, XdpMode,
    program::{Program, set_xsk},
};

/// The program `collect`, loaded; detached and unloaded when dropped.
pub struct Collector {
    program: Program,
    sockets: XskMap<MapData>,
}

impl Collector {
    /// Loads the program into the kernel.
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load() -> Result<Self, LoadError> {
        let sizes = [
            SAS, OWNERS, ADDRESSES, PEERS, INSIDE_V4, INSIDE_V6, USERS, DIRECT,
        ]
        .map(|map| (map, 1));
        let mut program = Program::load("collect", &[], None, &sizes)?;
        Ok(Collector {
            sockets: program.map(INSIDE_XSKS)?,
            program,
        })
    }

    /// Hands test packets of a receive queue to an AF_XDP socket that is bound to it.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such queue or it is no AF_XDP socket.
    pub fn set_xsk(&mut self, queue: u32, socket: impl AsFd) -> Result<(), LoadError> {
        set_xsk(INSIDE_XSKS, &mut self.sockets, queue, socket)
    }

    /// Attaches to an interface: the last step of setting up.
    ///
    /// # Errors
    /// [`LoadError`], with the interface's name.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, LoadError> {
        self.program.attach(interface, mode)
    }

    /// Runs the program on a packet without an interface.
    ///
    /// # Errors
    /// If the kernel refuses; it takes packets of 14 bytes or more.
    pub fn run(&mut self, packet: &[u8], repeat: u32) -> Result<Run, LoadError> {
        self.program.run(packet, repeat)
    }
}
