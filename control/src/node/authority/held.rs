//! What is sent to a peer waits until the edges that get its new SA can receive on it: a peer that knows
//! the SPI may use it at once (RFC 7296 section 2.8). And until the repository has what the peer is about to
//! know of its IKE SA.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cluster::EdgeId;
use crate::ike::Transmit;

/// An edge that has not confirmed in this time is not waited for: it asks when it needs the SA.
const PATIENCE: Duration = Duration::from_millis(50);

/// Messages to peers with new SAs that not all edges have yet.
#[derive(Default)]
pub struct Held {
    peers: HashMap<SocketAddr, Waiting>,
    /// Who waits for a write of this number.
    writes: HashMap<u64, SocketAddr>,
}

struct Waiting {
    missing: BTreeSet<(u32, EdgeId)>,
    /// What is not durable yet.
    writes: BTreeSet<u64>,
    until: Instant,
    messages: Vec<(EdgeId, Transmit)>,
}

impl Held {
    /// What goes to `remote` waits until these edges have the pair.
    pub fn wait_for(&mut self, remote: SocketAddr, spi: u32, edges: &[EdgeId], now: Instant) {
        if edges.is_empty() {
            return;
        }
        let waiting = self.waiting(remote, now);
        waiting
            .missing
            .extend(edges.iter().map(|edge| (spi, *edge)));
    }

    fn waiting(&mut self, remote: SocketAddr, now: Instant) -> &mut Waiting {
        self.peers.entry(remote).or_insert_with(|| Waiting {
            missing: BTreeSet::new(),
            writes: BTreeSet::new(),
            until: now + PATIENCE,
            messages: Vec::new(),
        })
    }

    /// What goes to `remote` waits until this write is durable.
    pub(super) fn wait_for_write(&mut self, remote: SocketAddr, number: u64, now: Instant) {
        self.waiting(remote, now).writes.insert(number);
        self.writes.insert(number, remote);
    }

    /// A write is durable.
    pub(super) fn written(&mut self, number: u64) {
        let remote = self.writes.remove(&number);
        if let Some(waiting) = remote.and_then(|remote| self.peers.get_mut(&remote)) {
            waiting.writes.remove(&number);
        }
    }

    /// Takes a message that has to wait; else gives it back.
    #[must_use]
    pub fn hold(&mut self, edge: EdgeId, transmit: Transmit) -> Option<Transmit> {
        match self.peers.get_mut(&transmit.remote) {
            Some(waiting) => {
                waiting.messages.push((edge, transmit));
                None
            }
            None => Some(transmit),
        }
    }

    /// An edge has the pair, or says that it can not use it.
    pub fn confirmed(&mut self, remote: SocketAddr, spi: u32, edge: EdgeId) {
        if let Some(waiting) = self.peers.get_mut(&remote) {
            waiting.missing.remove(&(spi, edge));
        }
    }

    /// An edge is gone: nobody waits for it.
    pub fn gone(&mut self, edge: EdgeId) {
        for waiting in self.peers.values_mut() {
            waiting.missing.retain(|(_, missing)| *missing != edge);
        }
    }

    /// What need not wait any more, and edges that were not waited for any longer.
    #[must_use]
    pub fn release(&mut self, now: Instant) -> (Vec<(EdgeId, Transmit)>, BTreeSet<EdgeId>) {
        let done = |waiting: &Waiting| {
            waiting.missing.is_empty() && waiting.writes.is_empty() || waiting.until <= now
        };
        let (mut messages, mut late) = (Vec::new(), BTreeSet::new());
        for (_, waiting) in self.peers.extract_if(|_, waiting| done(waiting)) {
            late.extend(waiting.missing.into_iter().map(|(_, edge)| edge));
            messages.extend(waiting.messages);
        }
        (messages, late)
    }

    /// When [`Held::release`] has something to do, if nobody confirms anything before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.peers.values().map(|waiting| waiting.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(remote: SocketAddr) -> Transmit {
        Transmit {
            local: "192.0.2.1:500".parse().unwrap(),
            remote,
            data: vec![1],
        }
    }

    #[test]
    fn an_answer_waits_for_every_edge_but_not_for_long() {
        let start = Instant::now();
        let [a, b]: [SocketAddr; 2] =
            ["198.51.100.1:500", "198.51.100.2:500"].map(|a| a.parse().unwrap());
        let [one, two] = [EdgeId(1), EdgeId(2)];
        let mut held = Held::default();
        assert_eq!(held.hold(one, transmit(a)), Some(transmit(a)));
        held.wait_for(a, 7, &[one, two], start);
        held.wait_for(b, 8, &[one], start);
        assert_eq!(held.hold(one, transmit(a)), None);
        assert_eq!(held.hold(two, transmit(b)), None);
        assert!(held.release(start).0.is_empty());
        held.confirmed(a, 7, one);
        // Of another pair.
        held.confirmed(a, 8, two);
        assert!(held.release(start).0.is_empty());
        held.confirmed(a, 7, two);
        assert_eq!(
            held.release(start),
            (vec![(one, transmit(a))], BTreeSet::new())
        );
        assert_eq!(held.hold(one, transmit(a)), Some(transmit(a)));
        let late = held.deadline().unwrap();
        assert_eq!(
            held.release(late),
            (vec![(two, transmit(b))], BTreeSet::from([one]))
        );
        assert_eq!(held.deadline(), None);
    }

    #[test]
    fn nobody_waits_for_an_edge_that_is_gone() {
        let start = Instant::now();
        let a: SocketAddr = "198.51.100.1:500".parse().unwrap();
        let mut held = Held::default();
        held.wait_for(a, 7, &[EdgeId(1)], start);
        assert_eq!(held.hold(EdgeId(2), transmit(a)), None);
        held.gone(EdgeId(1));
        assert_eq!(held.release(start).0, [(EdgeId(2), transmit(a))]);
    }
}
