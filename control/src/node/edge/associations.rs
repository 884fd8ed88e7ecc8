//! Stations that come to the network in front of an edge: the SAs of clients among them are asked for before
//! their first packet.

use std::net::IpAddr;
use std::time::Instant;

use crate::api::model::Done;
use crate::api::server::CommandError;
use crate::node::commands::Answer;
use crate::node::core::Node;

/// Stations that authorities are told of in a second, and at once: anybody on the segment can look like many.
pub(super) const TOLD: (u32, u32) = (1_000, 200);

impl Node {
    /// The kernel has come to know how to reach a neighbour.
    pub(in crate::node) fn on_arrival(&mut self, interface: u32, address: IpAddr) {
        let Some(edge) = &mut self.edge else { return };
        if interface == edge.outside && edge.arrivals.allow(Instant::now()) {
            self.tell_associated(address);
        }
    }

    /// Somebody who knows of associations, an access point for instance, tells of one.
    pub(in crate::node) fn associate(&mut self, address: IpAddr) -> Answer<Done> {
        if self.edge.is_none() {
            let text = "only an edge gets SAs from elsewhere: this node has no [channel]";
            return Err(CommandError::Invalid(text.to_owned()));
        }
        match self.tell_associated(address) {
            0 => Err(CommandError::Failed(
                "there is no connection to an authority".to_owned(),
            )),
            asked => Ok(Done::new(format!(
                "asked {asked} of {} for what they have of {address}",
                match self.inputs.uplinks.len() {
                    1 => "1 authority".to_owned(),
                    count => format!("{count} authorities"),
                }
            ))),
        }
    }

    /// How many authorities were told, or will be if no other edge knows the station.
    fn tell_associated(&mut self, address: IpAddr) -> usize {
        let address = address.to_canonical();
        let links = 0..self.inputs.uplinks.len();
        links
            .filter(|link| self.ask_of_client(*link, address))
            .count()
    }
}
