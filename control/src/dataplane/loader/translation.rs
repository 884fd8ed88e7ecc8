//! The relay of IKE by address translation: its part of `outside`, and the program of an interface toward an
//! authority.

use std::net::IpAddr;

use aya::maps::{Array, MapData, PerCpuArray};
use evergate_common::maps::{
    ADDRESSES, DIRECT, INSIDE_COUNTERS, INSIDE_LOCAL, INSIDE_V4, INSIDE_V6, OWNERS, PEERS, SAS,
    TOWARD, TRANSLATES, TRANSLATION, USERS, address, halves,
};
use evergate_common::translation::{TOWARD_SLOTS, Translation};

use super::error::map_error;
use super::local::LocalMap;
use super::outside::Outside;
use super::program::{Program, set_only, sum};
use super::{Attached, Counters, LoadError, Run, XdpMode};

/// The maps that say where messages of IKE go.
pub(super) struct TranslationMaps {
    pub(super) addresses: Array<MapData, Translation>,
    pub(super) toward: Array<MapData, [u64; 2]>,
}

impl Outside {
    /// The addresses that are translated. Nothing is, without [`Outside::set_toward`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_translation(&mut self, translation: Translation) -> Result<(), LoadError> {
        set_only(TRANSLATION, &mut self.translation.addresses, translation)
    }

    /// Where messages of one of the [`TOWARD_SLOTS`] go; `None`: nowhere.
    ///
    /// # Errors
    /// If there is no such slot, or the kernel refuses.
    pub fn set_toward(&mut self, slot: u32, to: Option<IpAddr>) -> Result<(), LoadError> {
        let value = to.map_or([0; 2], |to| halves(&address(to)));
        let set = self.translation.toward.set(slot, value, 0);
        set.map_err(|error| map_error(TOWARD, TOWARD_SLOTS, &error))
    }
}

/// The program `answers`, loaded; detached and unloaded when dropped.
pub struct Answers {
    program: Program,
    local: LocalMap,
    counters: PerCpuArray<MapData, u64>,
}

impl Answers {
    /// Loads the program into the kernel, with the addresses that it translates.
    ///
    /// # Errors
    /// [`LoadError`] names the missing privilege or kernel feature.
    pub fn load(translation: Translation) -> Result<Self, LoadError> {
        let sizes = [
            SAS, OWNERS, ADDRESSES, PEERS, INSIDE_V4, INSIDE_V6, USERS, DIRECT,
        ]
        .map(|map| (map, 1));
        let mut program = Program::load("answers", &[(TRANSLATES, 1)], None, &sizes)?;
        let mut addresses = program.map(TRANSLATION)?;
        set_only(TRANSLATION, &mut addresses, translation)?;
        Ok(Answers {
            local: LocalMap::new(INSIDE_LOCAL, program.map(INSIDE_LOCAL)?),
            counters: program.map(INSIDE_COUNTERS)?,
            program,
        })
    }

    /// Attaches to an interface. From here on only frames to the interface's own link address are looked at.
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

    /// The program's counters, summed over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        sum(INSIDE_COUNTERS, &self.counters)
    }

    /// Runs the program on a packet without an interface.
    ///
    /// # Errors
    /// If the kernel refuses; it takes packets of 14 bytes or more.
    pub fn run(&mut self, packet: &[u8], repeat: u32) -> Result<Run, LoadError> {
        self.program.run(packet, repeat)
    }
}
