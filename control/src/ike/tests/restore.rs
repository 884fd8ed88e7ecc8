//! IKE SAs that outlive their engine: whoever goes on has a snapshot, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::super::payload::header::{HEADER, Header, exchange};
use super::*;

/// What the gateway keeps, as a repository would: what is urgent before anything is sent.
pub(super) struct Keeper {
    run: u32,
    kept: BTreeMap<u64, Vec<u8>>,
    /// What is not urgent is not there yet when the gateway dies.
    pub(super) lazy: bool,
    /// Initialisation vectors of the gateway, by the SPIs of the IKE SA.
    used: BTreeSet<(u64, u64, [u8; 8])>,
}

pub(super) const MILLIS: u64 = 1_700_000_000_000;

fn millis(start: Instant, now: Instant) -> u64 {
    MILLIS + now.duration_since(start).as_millis() as u64
}

pub(super) struct World {
    start: Instant,
    pub(super) pair: Pair,
    pub(super) keeper: Keeper,
    pub(super) wire: VecDeque<Transmit>,
    pub(super) settings: Settings,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings, &mut Settings)) -> World {
        let mut pair = Pair::with(change);
        pair.b.engine.keep(1).unwrap();
        pair.a.owner.is_client = true;
        World {
            start: pair.now,
            settings: pair.b.engine.settings().clone(),
            pair,
            keeper: Keeper {
                run: 1,
                kept: BTreeMap::new(),
                lazy: true,
                used: BTreeSet::new(),
            },
            wire: VecDeque::new(),
        }
    }

    /// With a session.
    pub(super) fn up(change: impl FnOnce(&mut Settings, &mut Settings)) -> (World, SaId, SaId) {
        let mut world = World::new(change);
        let wish = world.pair.wish();
        let a = world.pair.initiate(wish);
        world.run();
        let b = world.pair.b.established().unwrap().0;
        world.pair.a.events.clear();
        world.pair.b.events.clear();
        (world, a, b)
    }

    /// Takes what either side has to say and to keep.
    pub(super) fn take(&mut self) {
        self.wire.extend(self.pair.a.take());
        let sent = self.pair.b.take();
        let millis = millis(self.start, self.pair.now);
        while let Some(changed) = self.pair.b.engine.poll_changed(self.pair.now, millis) {
            let late = self.keeper.lazy && !changed.urgent;
            match changed.snapshot {
                Some(_) if late => {}
                Some(snapshot) => {
                    assert_eq!(snapshot.spi(), changed.spi);
                    let bytes = snapshot.to_bytes().unwrap().to_vec();
                    self.keeper.kept.insert(changed.spi, bytes);
                }
                None => {
                    self.keeper.kept.remove(&changed.spi);
                }
            }
        }
        for t in sent {
            self.note_iv(&t.data);
            self.wire.push_back(t);
        }
    }

    /// No initialisation vector of the gateway comes twice, but with the very same message.
    fn note_iv(&mut self, data: &[u8]) {
        let Ok(header) = Header::parse(data) else {
            return;
        };
        if header.exchange == exchange::IKE_SA_INIT {
            return;
        }
        let iv = data[HEADER + 4..HEADER + 12].try_into().unwrap();
        let text = crypto::sha256(&[data]);
        let known = (header.spi_i, header.spi_r, iv);
        let same = (
            header.spi_i ^ u64::MAX,
            u64::from_be_bytes(iv),
            text[..8].try_into().unwrap(),
        );
        let new = self.keeper.used.insert(known);
        let repeated = !self.keeper.used.insert(same);
        assert!(new || repeated, "{iv:?} of {header:?} again");
    }

    pub(super) fn deliver(&mut self) -> bool {
        self.take();
        let Some(t) = self.wire.pop_front() else {
            return false;
        };
        let now = self.pair.now;
        let node = match t.remote.ip() == self.pair.a.address.ip() {
            true => &mut self.pair.a,
            false => &mut self.pair.b,
        };
        let (local, remote) = (t.remote, t.local);
        node.engine
            .handle_datagram(now, local, remote, &t.data, &mut node.owner);
        self.take();
        true
    }

    fn run(&mut self) -> usize {
        (0..).take_while(|_| self.deliver()).count()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.take();
        let until = self.pair.now + time;
        loop {
            self.run();
            let due = [&self.pair.a, &self.pair.b].map(|n| n.engine.next_timeout());
            let Some((at, _)) = due.into_iter().flatten().min().filter(|d| d.0 <= until) else {
                break;
            };
            self.pair.now = self.pair.now.max(at);
            let now = self.pair.now;
            for node in [&mut self.pair.a, &mut self.pair.b] {
                node.engine.handle_timeout(now, &mut node.owner);
            }
        }
        self.pair.now = until;
    }

    /// The gateway is killed and begins anew; with `lost`, what it has sent and not delivered too.
    pub(super) fn kill(&mut self, lost: bool) -> Vec<SaId> {
        if lost {
            let a = self.pair.a.address.ip();
            self.wire.retain(|t| t.remote.ip() != a);
        }
        self.keeper.run += 1;
        let seed = u64::from(self.keeper.run) * 17;
        let rng = StdRng::seed_from_u64(seed);
        let mut engine = Engine::new(self.settings.clone(), rng);
        engine.keep(self.keeper.run).unwrap();
        let millis = millis(self.start, self.pair.now);
        let mut restored = Vec::new();
        for bytes in self.keeper.kept.values() {
            let snapshot = Snapshot::from_bytes(bytes).unwrap();
            let id = engine.restore(self.pair.now, millis, &snapshot).unwrap();
            if !snapshot.is_replaced() {
                restored.push(id);
            }
        }
        self.pair.b.engine = engine;
        self.pair.b.events.clear();
        restored
    }

    /// Both ends have one session, with the same child SAs, and either can ask the other and have fresh
    /// keys.
    pub(super) fn must_be_well(&mut self, a: SaId, b: SaId) {
        for events in [&self.pair.a.events, &self.pair.b.events] {
            let closed = events.iter().find(|e| matches!(e, Event::Closed { .. }));
            assert!(closed.is_none(), "{closed:?}");
        }
        self.must_have_the_same_children(a, b);
        self.pair.a.events.clear();
        self.pair.b.events.clear();
        self.pair.a.engine.check_liveness(self.pair.now, a);
        self.pass(Duration::from_secs(1));
        assert!(alive(&self.pair.a, a), "the gateway does not answer");
        self.pair.b.engine.check_liveness(self.pair.now, b);
        self.pass(Duration::from_secs(25));
        assert!(alive(&self.pair.b, b), "the client does not answer");
        let spi_in = self.pair.b.engine.core(b).unwrap().children[0].spi_in;
        self.pair.b.engine.rekey_child(self.pair.now, b, spi_in);
        self.pass(Duration::from_secs(2));
        let spi_in = self.pair.a.engine.core(a).unwrap().children[0].spi_in;
        self.pair.a.engine.rekey_child(self.pair.now, a, spi_in);
        self.pass(Duration::from_secs(2));
        let rekeyed = |events: &[Event]| {
            let made = |e: &&Event| matches!(e, Event::ChildRekeyed { .. });
            events.iter().filter(made).count()
        };
        for events in [&self.pair.a.events, &self.pair.b.events] {
            assert!(rekeyed(events) >= 2, "{events:?}");
        }
        self.must_have_the_same_children(a, b);
    }

    fn must_have_the_same_children(&self, a: SaId, b: SaId) {
        let spis = |node: &Node, id, turn: bool| -> BTreeSet<(u32, u32)> {
            let core = node.engine.core(id).expect("a session");
            let children = core.children.iter();
            children
                .map(|c| match turn {
                    true => (c.spi_out, c.spi_in),
                    false => (c.spi_in, c.spi_out),
                })
                .collect()
        };
        let (ours, theirs) = (spis(&self.pair.a, a, false), spis(&self.pair.b, b, true));
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 1);
    }
}

fn alive(node: &Node, id: SaId) -> bool {
    let mut events = node.events.iter();
    events.any(|e| matches!(e, Event::Alive { id: found } if *found == id))
}

pub(super) fn without_sync(a: &mut Settings, _: &mut Settings) {
    a.sync = false;
}

pub(super) fn with_sync(_: &mut Settings, _: &mut Settings) {}

/// Message IDs of what goes over the wire until nothing does any more, the client's negative.
pub(super) fn ids(world: &mut World) -> Vec<(bool, u8, u32)> {
    let mut ids = Vec::new();
    loop {
        world.take();
        if let Some(t) = world.wire.front() {
            let header = Header::parse(&t.data).unwrap();
            let from_gateway = t.remote.ip() == world.pair.a.address.ip();
            ids.push((from_gateway, header.exchange, header.message_id));
        }
        if !world.deliver() {
            return ids;
        }
    }
}

#[test]
fn a_peer_of_rfc_6311_brings_both_into_step() {
    let (mut world, a, b) = World::up(with_sync);
    for _ in 0..5 {
        world.pair.a.engine.check_liveness(world.pair.now, a);
        world.pair.b.engine.check_liveness(world.pair.now, b);
        world.run();
    }
    let restored = world.kill(false);
    let [b] = restored[..] else {
        panic!("{restored:?}");
    };
    // Nothing is said as long as there is nothing to say.
    assert_eq!(ids(&mut world), []);
    // HDR (1 + 6), SK {} --> <-- HDR (0), SK {N(IKEV2_MESSAGE_ID_SYNC)}
    // HDR (0), SK {N(IKEV2_MESSAGE_ID_SYNC)}, HDR (P2), SK {} --> <-- HDR (P2), SK {}
    world.pair.a.engine.check_liveness(world.pair.now, a);
    let info = exchange::INFORMATIONAL;
    let expected = [(false, 7), (true, 0), (false, 0), (false, 8), (true, 8)];
    assert_eq!(ids(&mut world), expected.map(|(from, id)| (from, info, id)));
    // <-- HDR (M2), SK {}
    world.pair.b.engine.check_liveness(world.pair.now, b);
    assert_eq!(ids(&mut world), [(true, info, 512), (false, info, 512)]);
    world.must_be_well(a, b);
    // Once more, from what was written down meanwhile.
    let restored = world.kill(false);
    world.must_be_well(a, restored[0]);
    world.pair.b.engine.close(world.pair.now, restored[0]);
    world.run();
    assert_eq!(world.pair.a.closed(), Some(&CloseReason::PeerDeleted));
    assert!(world.keeper.kept.is_empty());
}

#[test]
fn a_peer_without_it_is_asked_until_it_answers() {
    for questions in 0..12 {
        let (mut world, a, b) = World::up(without_sync);
        for _ in 0..questions {
            world.pair.b.engine.check_liveness(world.pair.now, b);
            world.run();
        }
        let restored = world.kill(false);
        world
            .pair
            .b
            .engine
            .check_liveness(world.pair.now, restored[0]);
        world.pass(Duration::from_secs(5));
        world.must_be_well(a, restored[0]);
    }
}

#[test]
fn a_peer_that_does_not_answer_is_gone() {
    for change in [with_sync, without_sync] {
        let (mut world, a, _) = World::up(change);
        let restored = world.kill(false);
        world.pair.a.engine.forget(a);
        world
            .pair
            .b
            .engine
            .check_liveness(world.pair.now, restored[0]);
        world.pass(Duration::from_secs(60));
        assert_eq!(world.pair.b.closed(), Some(&CloseReason::Timeout));
        assert!(world.keeper.kept.is_empty());
    }
}

#[test]
fn a_repeated_request_has_the_same_answer() {
    let (mut world, a, _) = World::up(with_sync);
    let spi_in = world.pair.a.engine.core(a).unwrap().children[0].spi_in;
    world.pair.a.engine.rekey_child(world.pair.now, a, spi_in);
    let now = world.pair.now;
    world
        .pair
        .a
        .engine
        .handle_timeout(now, &mut world.pair.a.owner);
    // HDR, SK {N(REKEY_SA), SA, Ni, KEi, TSi, TSr} --> <-- the answer, which is lost with its sender.
    world.deliver();
    let answer = world.wire.pop_front().unwrap();
    let restored = world.kill(true);
    world.pair.now += Duration::from_millis(500);
    let now = world.pair.now;
    world
        .pair
        .a
        .engine
        .handle_timeout(now, &mut world.pair.a.owner);
    world.deliver();
    assert_eq!(world.wire.pop_front().unwrap().data, answer.data);
    world.wire.push_back(answer);
    world.pass(Duration::from_secs(1));
    world.must_be_well(a, restored[0]);
}

#[test]
fn old_requests_that_come_again_change_nothing() {
    let (mut world, a, _) = World::up(with_sync);
    // What the client asks, as somebody on the way has it.
    let mut heard = Vec::new();
    for _ in 0..3 {
        world.pair.a.engine.check_liveness(world.pair.now, a);
        world.take();
        heard.extend(world.wire.front().cloned());
        world.run();
    }
    let restored = world.kill(false);
    for t in heard.iter().rev().chain(&heard) {
        world.wire.push_back(t.clone());
        world.run();
    }
    world.must_be_well(a, restored[0]);
    // Further than anybody can be: not even looked at.
    let before = world.pair.b.engine.stats().bad_message_id;
    world.wire.push_back(heard[0].clone());
    world.run();
    assert_eq!(world.pair.b.engine.stats().bad_message_id, before + 1);
}

#[test]
fn an_old_call_for_message_ids_is_not_answered() {
    let (mut world, a, _) = World::up(with_sync);
    let restored = world.kill(false);
    world
        .pair
        .b
        .engine
        .check_liveness(world.pair.now, restored[0]);
    world.take();
    let call = world.wire.front().cloned().unwrap();
    world.run();
    let before = world.pair.a.engine.stats().bad_message_id;
    world.wire.push_back(call);
    assert_eq!(world.run(), 1);
    assert_eq!(world.pair.a.engine.stats().bad_message_id, before + 1);
    world.must_be_well(a, restored[0]);
}

#[test]
fn what_the_dead_one_has_not_heard_is_asked_again() {
    let (mut world, a, _) = World::up(with_sync);
    let spi_in = world.pair.a.engine.core(a).unwrap().children[0].spi_in;
    world.pair.a.engine.rekey_child(world.pair.now, a, spi_in);
    let now = world.pair.now;
    world
        .pair
        .a
        .engine
        .handle_timeout(now, &mut world.pair.a.owner);
    world.take();
    world.wire.clear();
    let restored = world.kill(true);
    world
        .pair
        .b
        .engine
        .check_liveness(world.pair.now, restored[0]);
    let create = exchange::CREATE_CHILD_SA;
    let seen = ids(&mut world);
    assert!(seen.contains(&(false, create, 3)), "{seen:?}");
    world.must_be_well(a, restored[0]);
}

#[test]
fn lifetimes_go_on() {
    let change = |_: &mut Settings, b: &mut Settings| {
        let mut life = Lifetime::new(Duration::from_secs(100));
        life.jitter = 0.0;
        b.child_lifetime = Some(life);
    };
    let (mut world, a, b) = World::up(change);
    world.pass(Duration::from_secs(60));
    let before = world.pair.b.engine.core(b).unwrap().children[0].spi_in;
    let restored = world.kill(false);
    world.pass(Duration::from_secs(39));
    let core = world.pair.b.engine.core(restored[0]).unwrap();
    assert_eq!(core.children[0].spi_in, before);
    world.pass(Duration::from_secs(2));
    let core = world.pair.b.engine.core(restored[0]).unwrap();
    assert_ne!(core.children[0].spi_in, before);
    world.must_be_well(a, restored[0]);
    // What was due meanwhile comes soon.
    world.pair.now += Duration::from_secs(150);
    let before = world.pair.b.engine.core(restored[0]).unwrap().children[0].spi_in;
    let restored = world.kill(false);
    world.pass(Duration::from_secs(6));
    let core = world.pair.b.engine.core(restored[0]).unwrap();
    assert_ne!(core.children[0].spi_in, before);
    world.must_be_well(a, restored[0]);
}
