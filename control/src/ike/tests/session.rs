//! A session between two engines, and what their owners hold of it.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// What an owner holds of one session, by the events alone.
#[derive(Default)]
pub(super) struct Held {
    pub(super) id: Option<SaId>,
    pub(super) children: BTreeMap<u32, Child>,
    /// Those that a newer one replaces, which only receive.
    pub(super) old: BTreeSet<u32>,
    pub(super) rekeyed: usize,
    pub(super) failures: Vec<Failure>,
    pub(super) closed: Option<CloseReason>,
    /// SPIs that are free again.
    pub(super) freed: BTreeSet<u32>,
}

impl Held {
    /// Takes in what has happened, and checks that it goes together.
    pub(super) fn follow(&mut self, node: &mut Node) {
        for event in node.events.drain(..) {
            match event {
                Event::Established { id, child, .. } => {
                    assert!(self.id.replace(id).is_none());
                    assert!(self.children.insert(child.spi_in, child).is_none());
                }
                Event::ChildAdded { id, child, .. } => {
                    assert_eq!((self.id, &self.closed), (Some(id), &None));
                    assert!(self.children.insert(child.spi_in, child).is_none());
                }
                Event::ChildRekeyed {
                    id,
                    old_spi_in,
                    child,
                    outbound,
                    ..
                } => {
                    assert_eq!((self.id, &self.closed), (Some(id), &None));
                    if outbound == Outbound::Never {
                        self.old.insert(child.spi_in);
                    } else {
                        self.old.insert(old_spi_in);
                    }
                    assert!(self.children.insert(child.spi_in, child).is_none());
                    self.rekeyed += 1;
                }
                Event::ChildClosed {
                    id,
                    spi_in,
                    spi_out,
                } => {
                    assert_eq!((self.id, &self.closed), (Some(id), &None));
                    let child = self.children.remove(&spi_in).expect("closed twice");
                    assert_eq!(child.spi_out, spi_out);
                    self.old.remove(&spi_in);
                    assert!(self.freed.insert(spi_in));
                }
                Event::ChildFailed { id, spi_in, error } => {
                    assert_eq!((self.id, &self.closed), (Some(id), &None));
                    assert!(!self.children.contains_key(&spi_in));
                    assert!(self.freed.insert(spi_in), "freed twice");
                    self.failures.push(error);
                }
                Event::Closed { id, reason, .. } => {
                    assert_eq!((self.id, &self.closed), (Some(id), &None));
                    self.freed.extend(self.children.keys());
                    self.children.clear();
                    self.closed = Some(reason);
                }
                Event::Rekeyed { id } | Event::Alive { id } => assert_eq!(self.id, Some(id)),
                other => panic!("{other:?}"),
            }
        }
        // Whatever was allocated is in use or free again; nothing is while an exchange runs.
        assert!(
            self.freed
                .iter()
                .all(|spi| !self.children.contains_key(spi))
        );
    }

    /// Every SPI that was promised is in use or free again.
    pub(super) fn assert_no_leak(&self, node: &Node, first: u32) {
        let known = |spi: &u32| self.children.contains_key(spi) || self.freed.contains(spi);
        let mut promised = first..node.owner.next_spi;
        assert_eq!(promised.find(|spi| !known(spi)), None, "leaked");
    }

    /// The only child SA that is there.
    pub(super) fn only(&self) -> &Child {
        assert_eq!(self.children.len(), 1, "{:?}", self.children);
        self.children.values().next().unwrap()
    }
}

/// A session that is up, and what both owners hold of it.
pub(super) struct Session {
    pub(super) pair: Pair,
    pub(super) a: Held,
    pub(super) b: Held,
    /// The first SPIs that each owner has allocated.
    pub(super) first: [u32; 2],
}

impl Session {
    pub(super) fn new(change: impl FnOnce(&mut Settings, &mut Settings)) -> Session {
        let mut pair = Pair::with(change);
        let first = [pair.a.owner.next_spi, pair.b.owner.next_spi];
        let wish = pair.wish();
        pair.initiate(wish);
        assert_eq!(pair.run(), 4);
        let (a, b) = (Held::default(), Held::default());
        let mut session = Session { pair, a, b, first };
        session.follow();
        session
    }

    pub(super) fn follow(&mut self) {
        self.a.follow(&mut self.pair.a);
        self.b.follow(&mut self.pair.b);
    }

    pub(super) fn ids(&self) -> (SaId, SaId) {
        (self.a.id.unwrap(), self.b.id.unwrap())
    }

    /// The client wants its child SA replaced.
    pub(super) fn a_rekeys_child(&mut self) -> Vec<Transmit> {
        let spi = *self.a.children.keys().next_back().unwrap();
        self.pair
            .a
            .engine
            .rekey_child(self.pair.now, self.ids().0, spi);
        self.pair.a.due(self.pair.now)
    }

    pub(super) fn b_rekeys_child(&mut self) -> Vec<Transmit> {
        let spi = *self.b.children.keys().next_back().unwrap();
        self.pair
            .b
            .engine
            .rekey_child(self.pair.now, self.ids().1, spi);
        self.pair.b.due(self.pair.now)
    }

    pub(super) fn a_rekeys_ike(&mut self) -> Vec<Transmit> {
        self.pair.a.engine.rekey_ike(self.pair.now, self.ids().0);
        self.pair.a.due(self.pair.now)
    }

    pub(super) fn b_rekeys_ike(&mut self) -> Vec<Transmit> {
        self.pair.b.engine.rekey_ike(self.pair.now, self.ids().1);
        self.pair.b.due(self.pair.now)
    }

    /// Delivers these and all that follows from them; yields how many datagrams that were.
    pub(super) fn carry(&mut self, datagrams: Vec<Transmit>) -> usize {
        let mut wire: VecDeque<Transmit> = datagrams.into();
        let mut count = 0;
        while let Some(t) = wire.pop_front() {
            count += 1;
            assert!(count < 100, "an endless conversation");
            wire.extend(self.pair.deliver(&t));
            self.follow();
        }
        count
    }

    /// Hands over one datagram; yields what that sends.
    pub(super) fn hand(&mut self, t: &Transmit) -> Vec<Transmit> {
        let out = self.pair.deliver(t);
        self.follow();
        out
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.pair.pass(time);
        self.follow();
    }

    /// Both hold one and the same child SA and one IKE SA that works, and nothing else.
    pub(super) fn assert_whole(&mut self) {
        self.pass(Duration::from_secs(200));
        assert_eq!((&self.a.closed, &self.b.closed), (&None, &None));
        assert_mirrored(self.a.only(), self.b.only());
        self.a.assert_no_leak(&self.pair.a, self.first[0]);
        self.b.assert_no_leak(&self.pair.b, self.first[1]);
        let sas = |node: &Node| node.engine.stats().sas;
        assert_eq!((sas(&self.pair.a), sas(&self.pair.b)), (1, 1));
        let (a, b) = self.ids();
        self.pair.a.engine.check_liveness(self.pair.now, a);
        self.pair.b.engine.check_liveness(self.pair.now, b);
        assert_eq!(self.pair.run(), 4);
        self.follow();
        assert_eq!((&self.a.closed, &self.b.closed), (&None, &None));
    }
}

/// The SPIs of the IKE SA that a datagram belongs to.
pub(super) fn spis(t: &Transmit) -> [u64; 2] {
    let header = payload::header::Header::parse(&t.data).unwrap();
    [header.spi_i, header.spi_r]
}
