//! The programs without maps: for the far ends of test links, and as a yardstick.

use super::{Attached, LoadError, Run, XdpMode, program::Program};
use evergate_common::maps::{ADDRESSES, DIRECT, INSIDE_V4, INSIDE_V6, OWNERS, PEERS, SAS, USERS};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareProgram {
    /// Leaves everything to the kernel. A veth takes frames from XDP only if its other end has a
    /// program too.
    Pass,
    /// Swaps the link addresses and sends every frame back.
    Swap,
    /// `Swap`, and what a repeated benchmark run does to make an answer a request again.
    Undo,
}

/// A loaded program; detached and unloaded when dropped.
#[derive(Debug)]
pub struct Bare {
    program: Program,
}

impl Bare {
    /// Loads the program into the kernel.
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load(which: BareProgram) -> Result<Self, LoadError> {
        let name = match which {
            BareProgram::Pass => "pass",
            BareProgram::Swap => "swap",
            BareProgram::Undo => "undo",
        };
        let sizes = [
            SAS, OWNERS, ADDRESSES, PEERS, INSIDE_V4, INSIDE_V6, USERS, DIRECT,
        ]
        .map(|map| (map, 1));
        Ok(Bare {
            program: Program::load(name, &[], None, &sizes)?,
        })
    }

    /// Attaches to an interface.
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
