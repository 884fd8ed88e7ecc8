//! The slots of a front, and what a node knows of the fronts before it, in the maps of `outside`.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use evergate_common::front::{FRONT_SPI, SLOTS};
use evergate_common::maps::{NODES, SaEntry};

use super::LoadError;
use super::error::map_error;
use super::outside::Outside;

/// Writes which encryption node each slot of clients leads to.
pub struct SlotsWriter(Array<MapData, u32>);

impl SlotsWriter {
    pub(super) fn new(map: Array<MapData, u32>) -> Self {
        Self(map)
    }

    /// A slot leads to the node of this number from now on.
    ///
    /// # Errors
    /// If there is no such slot, or the kernel refuses.
    pub fn lead(&mut self, slot: u32, number: u8) -> Result<(), LoadError> {
        let set = self.0.set(slot, u32::from(number), 0);
        set.map_err(|error| map_error(NODES, SLOTS, &error))
    }
}

impl Outside {
    /// The writer of the slots, once: whoever watches the nodes has it.
    pub fn take_slots(&mut self) -> Option<SlotsWriter> {
        self.slots.take()
    }

    /// A front, or a node that may be one, has this address: packets that it sends in IP are taken out of
    /// it. Its own heartbeats are answered.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_front_address(&mut self, front: IpAddr) -> Result<(), LoadError> {
        let entry = self.entry(front).of_gateway(true);
        self.set_address(front, entry)
    }

    /// Heartbeats of whoever has this key are answered, wherever they come from, as those of a session.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn answer_fronts(&mut self, key: &[u8; 16]) -> Result<(), LoadError> {
        let entry = SaEntry::new(Some(*key), None);
        self.add_sa(u32::from_be_bytes(FRONT_SPI), &entry)
    }
}
