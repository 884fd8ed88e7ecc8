//! The program of the inside interface and its maps.

use std::{net::IpAddr, os::fd::AsFd};

use aya::maps::{Array, LpmTrie, MapData, PerCpuArray, XskMap, lpm_trie::Key};
use evergate_common::maps::{
    ADDRESSES, DIRECT, INSIDE_COUNTERS, INSIDE_LOCAL, INSIDE_V4, INSIDE_V6, INSIDE_XSKS,
    MAX_PREFIXES, OWNERS, PEERS, SAS, TRANSLATES, TRANSLATION, TunnelEntry, USERS,
};
use evergate_common::translation::Translation;
use ipnet::IpNet;

use super::{
    Attached, Counters, LoadError, Run, XdpMode,
    error::map_error,
    local::LocalMap,
    outside::gone,
    program::{Program, set_only, set_xsk, sum},
};

/// The program `inside`, loaded; detached and unloaded when dropped.
pub struct Inside {
    program: Program,
    v4: LpmTrie<MapData, [u8; 4], TunnelEntry>,
    v6: LpmTrie<MapData, [u8; 16], TunnelEntry>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    local: LocalMap,
    translation: Array<MapData, Translation>,
}

impl Inside {
    /// Loads the program into the kernel. It does nothing before [`Inside::attach`].
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load() -> Result<Self, LoadError> {
        Self::load_as(false)
    }

    /// The same where an authority's answers come by this interface, and get the edges' address as their source.
    ///
    /// # Errors
    /// As [`Inside::load`].
    pub fn load_translating() -> Result<Self, LoadError> {
        Self::load_as(true)
    }

    fn load_as(translates: bool) -> Result<Self, LoadError> {
        let mut program = Program::load(
            "inside",
            &[(TRANSLATES, translates.into())],
            None,
            &[SAS, OWNERS, ADDRESSES, PEERS, USERS, DIRECT].map(|map| (map, 1)),
        )?;
        Ok(Inside {
            v4: program.map(INSIDE_V4)?,
            v6: program.map(INSIDE_V6)?,
            sockets: program.map(INSIDE_XSKS)?,
            counters: program.map(INSIDE_COUNTERS)?,
            local: LocalMap::new(INSIDE_LOCAL, program.map(INSIDE_LOCAL)?),
            translation: program.map(TRANSLATION)?,
            program,
        })
    }

    /// Attaches to an interface. The last step of setting up. From here on only frames to the
    /// interface's own link address are taken (and ARP and neighbour discovery, which go to all).
    ///
    /// # Errors
    /// [`LoadError`], with the interface's name.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, LoadError> {
        self.local.follow_interface(interface)?;
        self.program.attach(interface, mode)
    }

    /// Detaches, if attached. The first step of shutting down.
    pub fn detach(&mut self) {
        self.program.detach();
    }

    /// The node's own inside addresses: they never belong into a tunnel, whatever the prefixes
    /// say.
    ///
    /// # Errors
    /// [`LoadError::TooMany`] beyond [`MAX_LOCAL`] addresses.
    pub fn set_own_addresses(&mut self, own: &[IpAddr]) -> Result<(), LoadError> {
        self.local.set_own("own inside addresses", own)
    }

    /// The addresses that are translated.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_translation(&mut self, translation: Translation) -> Result<(), LoadError> {
        set_only(TRANSLATION, &mut self.translation, translation)
    }

    /// Hands frames of a receive queue to an AF_XDP socket that is bound to it.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such queue or it is no AF_XDP socket.
    pub fn set_xsk(&mut self, queue: u32, socket: impl AsFd) -> Result<(), LoadError> {
        set_xsk(INSIDE_XSKS, &mut self.sockets, queue, socket)
    }

    /// Inner destinations under this prefix belong into a tunnel.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_prefix(&mut self, prefix: IpNet, tunnel: TunnelEntry) -> Result<(), LoadError> {
        match prefix {
            IpNet::V4(net) => self
                .v4
                .insert(
                    &Key::new(net.prefix_len().into(), net.network().octets()),
                    tunnel,
                    0,
                )
                .map_err(|error| map_error(INSIDE_V4, MAX_PREFIXES, &error)),
            IpNet::V6(net) => self
                .v6
                .insert(
                    &Key::new(net.prefix_len().into(), net.network().octets()),
                    tunnel,
                    0,
                )
                .map_err(|error| map_error(INSIDE_V6, MAX_PREFIXES, &error)),
        }
    }

    /// Removes exactly this prefix; none there is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), LoadError> {
        match prefix {
            IpNet::V4(net) => {
                let key = Key::new(net.prefix_len().into(), net.network().octets());
                gone(INSIDE_V4, MAX_PREFIXES, self.v4.remove(&key))
            }
            IpNet::V6(net) => {
                let key = Key::new(net.prefix_len().into(), net.network().octets());
                gone(INSIDE_V6, MAX_PREFIXES, self.v6.remove(&key))
            }
        }
    }

    /// The program's counters, summed over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        sum(INSIDE_COUNTERS, &self.counters)
    }

    /// Runs the program on a packet without an interface, for tests and benchmarks.
    ///
    /// # Errors
    /// If the kernel refuses; it takes packets of 14 bytes or more.
    pub fn run(&mut self, packet: &[u8], repeat: u32) -> Result<Run, LoadError> {
        self.program.run(packet, repeat)
    }
}
