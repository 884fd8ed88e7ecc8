//! How the address that edges share comes from one to another, beside a route that is replaced: routes of equal
//! cost, and an address that is taken and announced.

use super::sharing::SHARED;
use super::topology::GATEWAYS;
use super::{Lab, Place};
use anyhow::Result;

/// The group of next hops; each edge's own has its number.
const GROUP: &str = "100";

impl Lab {
    /// The router spreads clients over these edges: each client's packets take one way as long as it is there
    /// (a resilient group of next hops), and nobody else's change theirs when one goes.
    pub(crate) fn spread(&self, edges: &[u8]) -> Result<()> {
        for number in edges {
            let (id, via) = (number.to_string(), format!("192.0.2.{number}"));
            let hop = ["ip", "nexthop", "replace", "id", &id, "via", &via];
            self.exec(Place::Wan, &[&hop[..], &["dev", "br0"]].concat())?;
        }
        let members: Vec<String> = edges.iter().map(u8::to_string).collect();
        let members = members.join("/");
        let group = ["ip", "nexthop", "replace", "id", GROUP, "group", &members];
        // So few that all are in use: of more, an edge that has come back would get those that nobody uses.
        let kept = [
            "type",
            "resilient",
            "buckets",
            "6",
            "idle_timer",
            "1",
            "unbalanced_timer",
            "1",
        ];
        self.exec(Place::Wan, &[&group[..], &kept].concat())?;
        let shared = format!("{SHARED}/32");
        let route = ["ip", "route", "replace", &shared, "nhid", GROUP];
        self.exec(Place::Wan, &route).map(drop)
    }

    /// An edge is no next hop any more, as a routing daemon would have it that misses its neighbour.
    pub(crate) fn no_next_hop(&self, number: u8) -> Result<()> {
        let id = number.to_string();
        self.exec(Place::Wan, &["ip", "nexthop", "del", "id", &id])
            .map(drop)
    }

    /// The router looks for the shared address on the segment, by ARP; this edge has it.
    pub(crate) fn on_one_segment(&self, first: u8) -> Result<()> {
        let shared = format!("{SHARED}/32");
        self.exec(Place::Wan, &["ip", "route", "del", &shared])?;
        self.take_address(first)
    }

    /// An edge takes the shared address and announces itself, as VRRP has it; nobody else has it any more.
    pub(crate) fn take_address(&self, next: u8) -> Result<()> {
        let shared = format!("{SHARED}/32");
        for number in GATEWAYS.into_iter().filter(|number| *number != next) {
            // Most never had it.
            let words = ["ip", "addr", "del", &shared, "dev", "wan0"];
            self.try_exec(Place::Gateway(number), &words)?;
        }
        let place = Place::Gateway(next);
        self.exec(place, &["ip", "addr", "replace", &shared, "dev", "wan0"])?;
        let own = crate::paths::own().to_string_lossy();
        self.exec(place, &[&own, "announce", "wan0", SHARED])
            .map(drop)
    }
}
