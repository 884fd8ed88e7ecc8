//! Gateways that share the node's address, in the maps of `outside`.

use std::net::IpAddr;

use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use evergate_common::maps::{Address, GATEWAYS, OWN_ADDRESS, OWNERS, STATIONS, address, halves};
use evergate_common::steering::{GATEWAY_SLOTS, Gateway, station};

use super::LoadError;
use super::error::map_error;
use super::outside::{Outside, gone};
use super::program::set_only;

/// The maps that say where packets for other gateways go.
pub(super) struct GroupMaps {
    pub(super) gateways: Array<MapData, Gateway>,
    pub(super) owners: BpfHashMap<MapData, [u8; 4], u32>,
    pub(super) max_owners: u32,
    pub(super) stations: BpfHashMap<MapData, u64, u32>,
    pub(super) own_address: Array<MapData, [u64; 2]>,
}

impl Outside {
    /// The node's own address, beside the shared one: where other gateways send packets in IP.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_group_address(&mut self, own: IpAddr) -> Result<(), LoadError> {
        let whole: Address = address(own);
        set_only(OWN_ADDRESS, &mut self.group.own_address, halves(&whole))
    }

    /// How to get to the gateway of this number.
    ///
    /// # Errors
    /// If there can be no such number, or the kernel refuses.
    pub fn set_gateway(&mut self, number: u8, way: Gateway) -> Result<(), LoadError> {
        let set = self.group.gateways.set(number.into(), way, 0);
        set.map_err(|error| map_error(GATEWAYS, GATEWAY_SLOTS, &error))
    }

    /// Another gateway of the group has this address: packets that it sends in IP are taken out of it,
    /// and no heartbeat that seems to come from it is answered.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_gateway_address(&mut self, gateway: IpAddr) -> Result<(), LoadError> {
        self.never_reflect(gateway)?;
        let entry = self.entry(gateway).of_gateway(true);
        self.set_address(gateway, entry)
    }

    /// Another gateway of the group has this link address on the segment.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn add_station(&mut self, mac: [u8; 6]) -> Result<(), LoadError> {
        let insert = self.group.stations.insert(station(&mac), 1, 0);
        insert.map_err(|error| map_error(STATIONS, GATEWAY_SLOTS, &error))
    }

    /// Undoes [`Outside::add_station`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_station(&mut self, mac: [u8; 6]) -> Result<(), LoadError> {
        let removed = self.group.stations.remove(&station(&mac));
        gone(STATIONS, GATEWAY_SLOTS, removed)
    }

    /// The gateway that owns an SPI (host order), whatever the SPI itself says; `None`: it is as the SPI
    /// says. SAs of this node go before.
    ///
    /// # Errors
    /// [`LoadError::Full`].
    pub fn set_owner(&mut self, spi: u32, owner: Option<u8>) -> Result<(), LoadError> {
        let (owners, capacity) = (&mut self.group.owners, self.group.max_owners);
        let key = spi.to_be_bytes();
        match owner {
            Some(number) => owners
                .insert(key, u32::from(number), 0)
                .map_err(|error| map_error(OWNERS, capacity, &error)),
            None => gone(OWNERS, capacity, owners.remove(&key)),
        }
    }
}
