//! A datagram on port 500: the parser reads and writes it back the same, and an engine takes it.

use std::net::SocketAddr;
use std::time::Instant;

use evergate::ike::payload::header::{HEADER, Header};
use evergate::ike::payload::{parse_chain, write_chain};
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

pub fn ike_message(data: &[u8]) {
    if let (Ok(header), Some(body)) = (Header::parse(data), data.get(HEADER..))
        && let Ok(payloads) = parse_chain(header.next, body)
    {
        // Reserved bits, foreign attributes and selectors are left out on reading; what is written
        // then is read and written the same.
        let mut out = Vec::new();
        let first = write_chain(&payloads, &mut out).expect("what was read can be written");
        let again = parse_chain(first, &out).expect("what was written can be read");
        let mut same = Vec::new();
        assert_eq!(write_chain(&again, &mut same), Ok(first));
        assert_eq!(out, same);
    }
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
