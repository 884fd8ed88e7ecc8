//! What edges and authorities say to each other in datagrams.

use std::time::{Duration, Instant};

use evergate::cluster::connectivity::{
    AUTHORITY, Asked, CARRIERS, Connectivity, Introduction, KEY, Output,
};
use evergate::cluster::{EdgeId, Run};

const OWN: EdgeId = EdgeId(1);
const OTHER: EdgeId = EdgeId(2);

/// Seconds since 1970 when all this happens.
const SECONDS: u64 = 1_000_000;

/// What is asked for: SPIs that messages of the corpus have, and where a client is.
const SPI: u32 = 4711;
const CLIENT: [u8; 4] = [198, 51, 100, 7];

fn told(own: EdgeId, number: EdgeId) -> Introduction {
    Introduction {
        own,
        number,
        at: ([10, 0, 0, 1], 4511).into(),
        key: [7; KEY].as_slice().into(),
        epoch: 5,
    }
}

/// A node that has asked two questions, and whom it has heard.
fn node(number: EdgeId, now: Instant) -> Connectivity {
    let mut node = Connectivity::new(Run(1), Duration::from_millis(5));
    assert!(node.introduce(0, &told(OWN, number), now));
    // Whatever it is that one who has the key says: it is there.
    let datagram = evergate::fuzzing::connectivity_datagram(&told(number, OWN), 1, &[]);
    node.receive(&datagram, now, SECONDS);
    node.ask(None, Asked::Spi(SPI), now);
    node.ask(Some(0), Asked::Client(CLIENT.into()), now);
    while node.output().is_some() {}
    node
}

/// A message: from somebody without the key, from an edge, and from an authority.
pub fn connectivity(data: &[u8]) {
    let now = Instant::now();
    let mut stranger = node(OTHER, now);
    stranger.receive(data, now, SECONDS);
    assert_eq!(stranger.output(), None, "nobody without the key is heard");
    for number in [OTHER, AUTHORITY] {
        let mut node = node(number, now);
        let datagram = evergate::fuzzing::connectivity_datagram(&told(number, OWN), 2, data);
        for _ in 0..2 {
            node.receive(&datagram, now, SECONDS);
        }
        node.poll(now + Duration::from_millis(5));
        let mut outputs = 0;
        while let Some(output) = node.output() {
            outputs += 1;
            assert!(outputs <= 3, "one message, and two questions that end");
            let Output::Found { what, carriers, .. } = output else {
                continue;
            };
            assert!((1..=CARRIERS).contains(&carriers.len()));
            for (from, carrier) in carriers {
                assert_eq!(from.number, OTHER);
                assert!(what.is_for(&carrier) && carrier.pair.expires > SECONDS);
                assert!(carrier.pair.session().is_ok());
            }
        }
    }
}
