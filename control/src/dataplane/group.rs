//! Other gateways that share the node's address, as the node's core sees them.

use std::net::IpAddr;

use evergate_common::steering::Gateway;

use super::handle::Dataplane;
use super::loader::{LoadError, NodeStateWriter, SlotsWriter};

impl Dataplane {
    /// The node's own address beside the shared one, and those of the other gateways: packets that come
    /// from these in IP are taken out of it.
    pub fn join_group(
        &mut self,
        own: IpAddr,
        others: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), LoadError> {
        let Some(outside) = &mut self.outside else {
            return Ok(());
        };
        outside.set_group_address(own)?;
        let mut others = others.into_iter();
        others.try_for_each(|other| outside.add_gateway_address(other))
    }

    /// The shared address and the node's own, the addresses of fronts and nodes that may be some, and the key
    /// of their heartbeats: these are answered, and what comes from there in IP is taken out of it.
    pub fn join_fronts(
        &mut self,
        own: [IpAddr; 2],
        fronts: impl IntoIterator<Item = IpAddr>,
        key: &[u8; 16],
    ) -> Result<(), LoadError> {
        let Some(outside) = &mut self.outside else {
            return Ok(());
        };
        outside.set_own_addresses(&own)?;
        let [_, address] = own;
        outside.set_group_address(address)?;
        outside.answer_fronts(key)?;
        let mut fronts = fronts.into_iter();
        fronts.try_for_each(|front| outside.add_front_address(front))
    }

    /// What a front watches the other nodes with: the slots, once, and what this node would answer itself.
    pub fn front(&mut self) -> Option<(SlotsWriter, NodeStateWriter)> {
        let outside = self.outside.as_mut()?;
        let state = outside.node_state();
        Some((outside.take_slots()?, state))
    }

    /// How to get to the gateway of this number.
    pub fn set_gateway(&mut self, number: u8, way: Gateway) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => outside.set_gateway(number, way),
            None => Ok(()),
        }
    }

    /// Other gateways have these link addresses now on the segment, and not those any more.
    pub fn set_stations(
        &mut self,
        gone: impl IntoIterator<Item = [u8; 6]>,
        new: impl IntoIterator<Item = [u8; 6]>,
    ) -> Result<(), LoadError> {
        let Some(outside) = &mut self.outside else {
            return Ok(());
        };
        for mac in gone {
            outside.remove_station(mac)?;
        }
        new.into_iter().try_for_each(|mac| outside.add_station(mac))
    }

    /// The gateway that owns a single SPI, whatever the SPI itself says; `None`: it is as the SPI says.
    pub fn set_owner(&mut self, spi: u32, owner: Option<u8>) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => outside.set_owner(spi, owner),
            None => Ok(()),
        }
    }
}
