//! IKE SAs that outlive their engine at any moment of any exchanges; snapshots that are none.

use proptest::prelude::*;

use super::super::life::Busy;
use super::restore::{MILLIS, World, with_sync, without_sync};
use super::*;

#[test]
fn only_a_later_run_goes_on() {
    let (world, _, b) = World::up(with_sync);
    let now = world.pair.now;
    let snapshot = world.pair.b.engine.snapshot(now, MILLIS, b).unwrap();
    let mut engine = Engine::new(world.settings.clone(), StdRng::seed_from_u64(9));
    let refused = |of, now| Err(BadSnapshot::NotLater { of, now });
    assert_eq!(engine.restore(now, MILLIS, &snapshot), refused(1, 0));
    engine.keep(1).unwrap();
    assert_eq!(engine.restore(now, MILLIS, &snapshot), refused(1, 1));
    engine.keep(2).unwrap();
    assert!(engine.restore(now, MILLIS, &snapshot).is_ok());
    assert_eq!(
        engine.restore(now, MILLIS, &snapshot),
        Err(BadSnapshot::InUse)
    );
    for run in [0, 1 << 24, u32::MAX] {
        assert!(engine.keep(run).is_err());
    }
}

/// What the fuzz target begins with is still what is written.
#[test]
fn the_corpus_has_snapshots_of_this_form() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/ike_snapshot");
    let seeds = std::fs::read_dir(folder).unwrap();
    let seeds = seeds.map(|entry| entry.unwrap().path());
    let seeds = seeds.filter(|path| path.to_string_lossy().contains("/seed-"));
    let mut count = 0;
    for path in seeds {
        let bytes = std::fs::read(&path).unwrap();
        let snapshot = Snapshot::from_bytes(&bytes).expect("a snapshot");
        assert_eq!(snapshot.to_bytes().unwrap().to_vec(), bytes, "{path:?}");
        let settings = Settings::new(id("gw.example"));
        let mut engine = Engine::new(settings, StdRng::seed_from_u64(9));
        engine.keep(2).unwrap();
        let now = Instant::now();
        assert!(engine.restore(now, MILLIS, &snapshot).is_ok(), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn a_damaged_snapshot_is_an_error() {
    let (world, _, b) = World::up(with_sync);
    let snapshot = world.pair.b.engine.snapshot(world.pair.now, MILLIS, b);
    let bytes = snapshot.unwrap().to_bytes().unwrap().to_vec();
    assert_eq!(Snapshot::from_bytes(&[]), Err(BadSnapshot::Damaged));
    for length in 0..bytes.len() {
        assert!(Snapshot::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Snapshot::from_bytes(&longer), Err(BadSnapshot::Damaged));
    let other = [&[2], &bytes[1..]].concat();
    assert_eq!(
        Snapshot::from_bytes(&other),
        Err(BadSnapshot::Version { found: 2 })
    );
    let long = vec![1; 1 << 17];
    assert_eq!(
        Snapshot::from_bytes(&long),
        Err(BadSnapshot::TooLong(1 << 17))
    );
    // No key is shown.
    let shown = format!("{:?}", Snapshot::from_bytes(&bytes).unwrap());
    assert!(shown.len() < 80, "{shown}");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    AskA,
    AskB,
    ChildA,
    ChildB,
    IkeA,
    Nat,
}

fn acts() -> impl Strategy<Value = Vec<(Act, u8)>> {
    let act = prop_oneof![
        Just(Act::AskA),
        Just(Act::AskB),
        Just(Act::ChildA),
        Just(Act::ChildB),
        Just(Act::IkeA),
        Just(Act::Nat),
    ];
    prop::collection::vec((act, 0..8_u8), 1..8)
}

impl World {
    /// Whether both ends are about to replace a child SA.
    fn rekeys_cross(&self, a: SaId, b: SaId) -> bool {
        let rekeys = |node: &Node, id| {
            let busy = node.engine.core(id).map(|core| &core.busy);
            matches!(busy, Some(Busy::RekeyChild { .. }))
        };
        rekeys(&self.pair.a, a) && rekeys(&self.pair.b, b)
    }

    /// Whether both ends use a child SA that the other one has, whatever else waits there for its end.
    fn have_one_together(&self, a: SaId, b: SaId) -> bool {
        let (Some(ours), Some(theirs)) = (self.pair.a.engine.core(a), self.pair.b.engine.core(b))
        else {
            return false;
        };
        let used = ours.children.iter().filter(|child| child.is_in_use());
        let mut known = used.map(|child| (child.spi_out, child.spi_in));
        let theirs: Vec<_> = theirs.children.iter().collect();
        known.any(|pair| {
            let mut theirs = theirs.iter().filter(|child| child.is_in_use());
            theirs.any(|child| (child.spi_in, child.spi_out) == pair)
        })
    }

    /// Begins something, and lets so many datagrams come.
    fn act(&mut self, a: SaId, b: SaId, act: Act, datagrams: u8) {
        let now = self.pair.now;
        match act {
            Act::AskA => self.pair.a.engine.check_liveness(now, a),
            Act::AskB => self.pair.b.engine.check_liveness(now, b),
            Act::ChildA => {
                let spi = self.pair.a.engine.core(a).unwrap().children[0].spi_in;
                self.pair.a.engine.rekey_child(now, a, spi);
            }
            Act::ChildB => {
                let spi = self.pair.b.engine.core(b).unwrap().children[0].spi_in;
                self.pair.b.engine.rekey_child(now, b, spi);
            }
            Act::IkeA => self.pair.a.engine.rekey_ike(now, a),
            Act::Nat => {
                let mut elsewhere = self.pair.a.address;
                elsewhere.set_port(elsewhere.port() + 1);
                self.pair.b.engine.peer_moved(now, b, elsewhere);
            }
        }
        for node in [&mut self.pair.a, &mut self.pair.b] {
            node.engine.handle_timeout(now, &mut node.owner);
        }
        for _ in 0..datagrams {
            self.deliver();
        }
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// The gateway is killed at any moment of any exchanges, several times: the session goes on. Only an
    /// exchange of its own that replaces the IKE SA is beyond that, and rekeys that cross may be.
    #[test]
    fn a_gateway_that_is_killed_goes_on(
        lives in prop::collection::vec((acts(), any::<bool>()), 1..4),
        sync in any::<bool>(),
        lazy in any::<bool>(),
    ) {
        let change = if sync { with_sync } else { without_sync };
        let (mut world, a, mut b) = World::up(change);
        world.keeper.lazy = lazy;
        let mut crossed = false;
        for (acts, lost) in lives {
            let has = |wanted| acts.iter().any(|(act, _)| *act == wanted);
            let both = has(Act::ChildA) && has(Act::ChildB);
            for (act, datagrams) in acts {
                world.act(a, b, act, datagrams);
            }
            crossed |= world.rekeys_cross(a, b) || both;
            let restored = world.kill(lost);
            prop_assert_eq!(restored.len(), 1);
            b = restored[0];
            // What either side had begun comes to its end.
            world.pass(Duration::from_secs(20));
            let closed = [&world.pair.a, &world.pair.b].map(|node| node.closed().is_some());
            if crossed && (closed == [true, true] || world.have_one_together(a, b)) {
                return Ok(());
            }
        }
        world.must_be_well(a, b);
    }

    #[test]
    fn nothing_that_is_no_snapshot_is_taken_for_one(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (world, _, b) = World::up(with_sync);
        let now = world.pair.now;
        let snapshot = world.pair.b.engine.snapshot(now, MILLIS, b).unwrap();
        let mut bytes = snapshot.to_bytes().unwrap().to_vec();
        for (index, byte) in at {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let mut engine = Engine::new(world.settings.clone(), StdRng::seed_from_u64(9));
        engine.keep(2).unwrap();
        // Whatever it is by now, it makes an IKE SA that works or an error, and no panic.
        if let Ok(snapshot) = Snapshot::from_bytes(&bytes)
            && let Ok(id) = engine.restore(now, MILLIS, &snapshot)
        {
            prop_assert!(engine.snapshot(now, MILLIS, id).is_some());
            engine.check_liveness(now, id);
            while engine.poll_transmit().is_some() {}
        }
    }
}

/// The child SA that is left was replaced by one that the gateway has forgotten: it carries nothing, and the
/// session ends, for a new one.
#[test]
fn a_gateway_that_has_forgotten_the_winner_of_crossing_rekeys_ends_the_session() {
    let (mut world, a, b) = World::up(without_sync);
    world.keeper.lazy = false;
    world.act(a, b, Act::IkeA, 1);
    let restored = world.kill(false);
    world.pass(Duration::from_secs(20));
    world.act(a, restored[0], Act::ChildB, 1);
    world.act(a, restored[0], Act::ChildA, 1);
    let restored = world.kill(false);
    world.pass(Duration::from_secs(20));
    let both = world.have_one_together(a, restored[0]);
    let closed = [&world.pair.a, &world.pair.b].map(|node| node.closed().is_some());
    assert!(both || closed == [true, true], "{closed:?}");
}

/// Each end has made a child SA in the place of the same one, and the gateway has forgotten its own: none is left
/// that both have, and the session ends at both ends, for a new one.
#[test]
fn a_gateway_that_is_killed_when_rekeys_cross_ends_the_session() {
    let (mut world, a, b) = World::up(without_sync);
    world.keeper.lazy = false;
    for (act, datagrams) in [(Act::ChildA, 4), (Act::ChildA, 0), (Act::ChildB, 1)] {
        world.act(a, b, act, datagrams);
    }
    assert!(world.rekeys_cross(a, b));
    world.kill(false);
    world.pass(Duration::from_secs(20));
    assert!(world.pair.a.closed().is_some() && world.pair.b.closed().is_some());
}
