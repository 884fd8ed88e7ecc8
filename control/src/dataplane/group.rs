//! Other gateways that share the node's address, as the node's core sees them.

use std::net::IpAddr;

use evergate_common::steering::Gateway;

use super::handle::Dataplane;
use super::loader::LoadError;

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
