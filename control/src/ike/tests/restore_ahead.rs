//! Sequence numbers of ESP that a peer is told to go on with, by an engine that may have been killed before.

use super::restore::{World, ids, with_sync, without_sync};
use super::*;

#[test]
fn sequence_numbers_are_moved_on() {
    let (mut world, a, b) = World::up(with_sync);
    let now = world.pair.now;
    assert!(world.pair.b.engine.ask_ahead(now, b, 1 << 28));
    // <-- HDR (0), SK {N(IKEV2_MESSAGE_ID_SYNC), N(IPSEC_REPLAY_COUNTER_SYNC)}
    assert_eq!(ids(&mut world).len(), 2);
    let ahead = |node: &Node| {
        let mut events = node.events.iter();
        events.find_map(|e| match e {
            Event::Ahead { id, by } => Some((*id, *by)),
            _ => None,
        })
    };
    assert_eq!(ahead(&world.pair.a), Some((a, 1 << 28)));
    let mut events = world.pair.b.events.iter();
    assert!(events.any(|e| matches!(e, Event::PeerAhead { id } if *id == b)));
    world.must_be_well(a, b);
    // Twice, the second time with the answer of the first one lost: a repetition has a higher M1.
    world.pair.a.events.clear();
    let now = world.pair.now;
    assert!(world.pair.b.engine.ask_ahead(now, b, 7));
    world.take();
    world.deliver();
    world.wire.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(ahead(&world.pair.a), Some((a, 7)));
    world.must_be_well(a, b);

    let (mut world, _, b) = World::up(without_sync);
    let now = world.pair.now;
    assert!(!world.pair.b.engine.ask_ahead(now, b, 7));
    assert_eq!(ids(&mut world), []);
}

#[test]
fn sequence_numbers_are_moved_on_after_each_death() {
    let (mut world, a, _) = World::up(with_sync);
    // Each time it is known less of what the peer was told before.
    for (by, lazy) in [(7, true), (8, false), (9, true), (10, true)] {
        world.keeper.lazy = lazy;
        let restored = world.kill(false);
        let now = world.pair.now;
        world.pair.a.events.clear();
        assert!(world.pair.b.engine.ask_ahead(now, restored[0], by));
        world.pass(Duration::from_secs(1));
        let told = world.pair.a.events.iter().filter_map(|event| match event {
            Event::Ahead { id, by } => Some((*id, *by)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(a, by)]);
        world.must_be_well(a, restored[0]);
    }
    // It has begun with questions, as the call was not answered.
    let restored = world.kill(false);
    let now = world.pair.now;
    world.pair.b.engine.check_liveness(now, restored[0]);
    for _ in 0..40 {
        world.take();
        world.wire.clear();
        world.pair.now += Duration::from_secs(1);
        let now = world.pair.now;
        world
            .pair
            .b
            .engine
            .handle_timeout(now, &mut world.pair.b.owner);
    }
    let now = world.pair.now;
    world.pair.a.events.clear();
    assert!(world.pair.b.engine.ask_ahead(now, restored[0], 11));
    world.pass(Duration::from_secs(1));
    let mut told = world.pair.a.events.iter();
    assert!(told.any(|event| matches!(event, Event::Ahead { by: 11, .. })));
    world.must_be_well(a, restored[0]);
}
