//! Answers what an engine asks of its node.

use std::net::IpAddr;

use evergate::ike::{
    AssignRefused, Beside, Hooks, Identity, Methods, Psk, TicketKey, TrafficSelector, TsRefused,
};
use evergate::sadb::Sadb;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::client_inner;

pub(super) struct Owner {
    pub(super) sadb: Sadb,
    rng: StdRng,
}

impl Owner {
    pub(super) fn new(rng: &mut StdRng) -> Owner {
        Owner {
            sadb: Sadb::new(),
            rng: StdRng::from_rng(rng),
        }
    }
}

/// What all prove themselves by.
pub(super) fn methods() -> Methods {
    Psk::new("what all nodes of the simulator share".to_owned()).into()
}

/// Of all gateways.
pub(super) fn ticket_key() -> TicketKey {
    TicketKey::new(&[7; 32]).expect("32 octets")
}

pub(super) fn client_name(index: usize) -> String {
    format!("c{index}.example")
}

/// The networks behind the gateways.
pub(super) fn targets() -> TrafficSelector {
    TrafficSelector::range([10, 0, 0, 0], [10, 0, 255, 255])
}

/// The inner address of a client.
fn inner_of(peer: &Identity) -> Option<IpAddr> {
    let Identity::Fqdn(name) = peer else {
        return None;
    };
    let number = name.strip_prefix('c')?.strip_suffix(".example")?;
    Some(client_inner(number.parse().ok()?))
}

impl Hooks for Owner {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        Some(methods())
    }

    fn unix_time(&mut self) -> u64 {
        1_893_456_000
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        self.sadb.allocate_spi(&mut self.rng)
    }

    fn assign(
        &mut self,
        peer: &Identity,
        _: &[IpAddr],
        _: bool,
        _: bool,
    ) -> Result<Vec<IpAddr>, AssignRefused> {
        Ok(vec![inner_of(peer).ok_or(AssignRefused)?])
    }

    fn selectors(
        &mut self,
        _: &Identity,
        assigned: &[IpAddr],
        _: &[TrafficSelector],
        _: &[TrafficSelector],
    ) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), TsRefused> {
        let theirs = assigned.iter().map(|ip| TrafficSelector::host(*ip));
        Ok((vec![targets()], theirs.collect()))
    }
}
