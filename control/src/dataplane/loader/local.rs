//! What is addressed to an interface, in the map of its program.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use evergate_common::maps::{Local, MAX_LOCAL};

use super::{LoadError, interface::link_address, program::set_only};

/// The map of one program, and what was written into it.
pub(super) struct LocalMap {
    name: &'static str,
    map: Array<MapData, Local>,
    own: Vec<IpAddr>,
    mac: Option<[u8; 6]>,
}

impl LocalMap {
    pub(super) fn new(name: &'static str, map: Array<MapData, Local>) -> Self {
        LocalMap {
            name,
            map,
            own: Vec::new(),
            mac: None,
        }
    }

    /// From now on only frames to the interface's own link address count.
    pub(super) fn follow_interface(&mut self, interface: &str) -> Result<(), LoadError> {
        self.mac = link_address(interface)?;
        self.write()
    }

    /// `what` names the addresses in [`LoadError::TooMany`].
    pub(super) fn set_own(&mut self, what: &str, own: &[IpAddr]) -> Result<(), LoadError> {
        if own.len() > MAX_LOCAL {
            return Err(LoadError::TooMany {
                what: what.to_owned(),
                found: own.len(),
                limit: MAX_LOCAL,
            });
        }
        self.own = own.to_vec();
        self.write()
    }

    fn write(&mut self) -> Result<(), LoadError> {
        set_only(self.name, &mut self.map, Local::new(self.mac, &self.own))
    }
}
