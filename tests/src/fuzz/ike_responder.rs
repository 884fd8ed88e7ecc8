//! A datagram on port 500: an engine that knows nobody takes it.

use std::net::SocketAddr;
use std::time::Instant;

use evergate::ike::{Beside, Engine, Hooks, Identity, Methods, Settings};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

struct Nobody;

impl Hooks for Nobody {
    fn auth(&mut self, _: &Identity, _: &Identity) -> Option<Methods> {
        None
    }

    fn unix_time(&mut self) -> u64 {
        0
    }

    fn allocate_spi(&mut self, _: Option<Beside>) -> u32 {
        0x1000
    }
}

pub fn ike_responder(data: &[u8]) {
    let mut engine = Engine::new(
        Settings::new(Identity::Fqdn("gw.example".to_owned())),
        StdRng::seed_from_u64(1),
    );
    let [local, remote] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| SocketAddr::from((ip, 500)));
    engine.handle_datagram(Instant::now(), local, remote, data, &mut Nobody);
    let answers = std::iter::from_fn(|| engine.poll_transmit()).count();
    assert!(answers <= 1);
    assert!(engine.poll_event().is_none());
}
