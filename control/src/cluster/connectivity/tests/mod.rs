//! The connectivity protocol between nodes in memory, with a clock that the tests move.

mod datagrams;
mod presence;
mod queries;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{AUTHORITY, Connectivity, Introduction, KEY, Output, PATIENCE, Party};
use crate::cluster::wire::{Carrier, Succession};
use crate::cluster::{EdgeId, Half, Pair, Run};
use crate::esp::Cipher;

const ONE: EdgeId = EdgeId(1);
const TWO: EdgeId = EdgeId(2);
const THREE: EdgeId = EdgeId(3);

/// Seconds since 1970 in all tests.
const SECONDS: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(number: EdgeId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number.0 as u8], 4511))
}

fn party(number: EdgeId) -> Party {
    Party { link: 0, number }
}

/// What two of them are told of each other, with a key of this byte.
fn introductions(one: EdgeId, two: EdgeId, key: u8, epoch: u32) -> [Introduction; 2] {
    let told = |own, number| Introduction {
        own,
        number,
        at: at(number),
        key: [key; KEY].as_slice().into(),
        epoch,
    };
    [told(one, two), told(two, one)]
}

/// A pair that can be used.
fn carrier(spi: u32, stamp: u64, sequence: u64) -> Carrier {
    let half = |spi, key: u8| Half {
        spi,
        cipher: Cipher::Aes128Gcm,
        key: [key; 16].as_slice().into(),
        salt: [key; 4].as_slice().into(),
    };
    Carrier {
        stamp,
        sequence,
        succession: Succession::First,
        pair: Pair {
            client: "client.example".into(),
            inner: vec!["10.99.0.1".parse().unwrap()],
            class: None,
            local: "192.0.2.100".parse().unwrap(),
            remote: "198.51.100.7".parse().unwrap(),
            encap: None,
            roams: false,
            initiator: false,
            lane: 0,
            own_port: false,
            inbound: half(spi, 1),
            outbound: half(7777, 2),
            remote_inner: vec!["10.99.0.1/32".parse().unwrap()],
            local_inner: vec!["0.0.0.0/0".parse().unwrap()],
            heartbeat_key: None,
            esn: true,
            replay_window: 1024,
            expires: SECONDS + 60,
        },
    }
}

/// Nodes that have been made known to each other, and what they want to be done but to send.
struct Net {
    nodes: BTreeMap<EdgeId, Connectivity>,
    now: Instant,
    /// Nothing comes from these.
    cut: Vec<EdgeId>,
}

impl Net {
    fn of(numbers: &[EdgeId]) -> Self {
        let now = Instant::now();
        let node = |number: &EdgeId| {
            let run = Run(number.0.into());
            (*number, Connectivity::new(run, PATIENCE))
        };
        let mut net = Self {
            nodes: numbers.iter().map(node).collect(),
            now,
            cut: Vec::new(),
        };
        for (index, one) in numbers.iter().enumerate() {
            for two in &numbers[index + 1..] {
                let [a, b] = introductions(*one, *two, one.0 as u8 * 16 + two.0 as u8, 1);
                assert!(net.node(*one).introduce(0, &a, now));
                assert!(net.node(*two).introduce(0, &b, now));
            }
        }
        assert!(net.run().is_empty());
        net
    }

    fn node(&mut self, number: EdgeId) -> &mut Connectivity {
        self.nodes.get_mut(&number).unwrap()
    }

    /// Delivers until nothing is on its way; yields what else is to be done, and by whom.
    fn run(&mut self) -> Vec<(EdgeId, Output)> {
        let mut others = Vec::new();
        loop {
            let mut sent = Vec::new();
            for (number, node) in &mut self.nodes {
                while let Some(output) = node.output() {
                    match output {
                        Output::Send { to, datagram } => sent.push((*number, to, datagram)),
                        other => others.push((*number, other)),
                    }
                }
            }
            if sent.is_empty() {
                return others;
            }
            for (from, to, datagram) in sent {
                let node = self.nodes.iter_mut().find(|(number, _)| at(**number) == to);
                if let Some((_, node)) = node.filter(|_| !self.cut.contains(&from)) {
                    node.receive(&datagram, self.now, SECONDS);
                }
            }
        }
    }

    /// Lets time pass, with all that is to be done on the way.
    fn pass(&mut self, time: Duration) -> Vec<(EdgeId, Output)> {
        let (end, mut others) = (self.now + time, Vec::new());
        loop {
            let next = self.nodes.values().filter_map(Connectivity::deadline).min();
            self.now = next.unwrap_or(end).clamp(self.now, end);
            for node in self.nodes.values_mut() {
                node.poll(self.now);
            }
            others.extend(self.run());
            if self.now == end {
                return others;
            }
        }
    }

    fn present(&self, seen_by: EdgeId, number: EdgeId) -> bool {
        self.nodes[&seen_by].is_present(party(number))
    }
}
