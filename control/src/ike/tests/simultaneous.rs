//! Both sides begin a session at the same time.

use super::*;
use proptest::prelude::*;

fn wish_of_b(pair: &Pair) -> Initiate {
    Initiate {
        local: pair.b.address,
        remote: pair.a.address,
        remote_id: Some(id("client.example")),
        request_addresses: None,
        remote_ts: Vec::new(),
        initial_contact: true,
        ..pair.wish()
    }
}

/// The sessions of one side, as its owner holds them: those told and not closed.
type Held = Vec<(SaId, Instant, bool, Rank)>;

fn note(node: &mut Node, now: Instant, held: &mut Held) {
    for event in node.events.drain(..) {
        match event {
            Event::Established {
                id,
                initiator,
                rank,
                ..
            } => held.push((id, now, initiator, rank)),
            Event::Closed { id, .. } => held.retain(|(other, ..)| *other != id),
            other => panic!("{other:?}"),
        }
    }
}

/// What is left if the owner lets each new session contend with those that it has.
fn kept(held: &Held) -> &Rank {
    let contender = |(id, at, initiator, rank)| Contender {
        id,
        at,
        initiator,
        rank,
    };
    let best = held
        .iter()
        .map(|(id, at, initiator, rank)| contender((*id, *at, *initiator, rank)))
        .reduce(|a, b| if survivor(a, b) == a.id { a } else { b });
    best.unwrap().rank
}

proptest! {
    #![proptest_config(config(256))]

    /// Each direction keeps its order; which one is faster, and how far one side has come when the
    /// other begins, is chance. Both say that they hold no other session.
    #[test]
    fn both_ends_keep_the_same_session(
        late in 0..9usize,
        b_first in any::<bool>(),
        turns in prop::collection::vec(any::<bool>(), 16),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new();
        // Other nonces each time.
        pair.a.engine = Engine::new(pair.a.engine.settings().clone(), StdRng::seed_from_u64(seed));
        let (mut of_a, mut of_b) = (Held::new(), Held::new());
        let mut wires = [VecDeque::new(), VecDeque::new()];
        for step in 0..40 {
            if step == if b_first { late } else { 0 } {
                let wish = Initiate { initial_contact: true, ..pair.wish() };
                pair.initiate(wish);
            }
            if step == if b_first { 0 } else { late } {
                let wish = wish_of_b(&pair);
                pair.b.engine.initiate(pair.now, wish, &mut pair.b.owner);
            }
            wires[0].extend(pair.a.take());
            wires[1].extend(pair.b.take());
            pair.now += Duration::from_millis(7);
            let turn = usize::from(turns.get(step).copied().unwrap_or(step % 2 == 0));
            let next = wires[turn].pop_front().or_else(|| wires[1 - turn].pop_front());
            if let Some(t) = next {
                let out = pair.deliver(&t);
                wires[usize::from(t.local == pair.a.address)].extend(out);
            }
            note(&mut pair.a, pair.now, &mut of_a);
            note(&mut pair.b, pair.now, &mut of_b);
        }
        let ranks = |held: &Held| {
            let mut ranks: Vec<Rank> = held.iter().map(|(.., rank)| rank.clone()).collect();
            ranks.sort();
            ranks
        };
        prop_assert_eq!(ranks(&of_a), ranks(&of_b));
        prop_assert_eq!(of_a.len(), 2);
        prop_assert_ne!(of_a[0].2, of_a[1].2);
        prop_assert_eq!(kept(&of_a), kept(&of_b));
        prop_assert_eq!(kept(&of_a), &ranks(&of_b)[1]);
    }
}

#[test]
fn the_newer_survives_if_one_side_began_both_or_time_lies_between() {
    let now = Instant::now();
    let ranks = [[1, 9], [2, 3]].map(|[ni, nr]| Rank::new(&[vec![ni], vec![nr]]));
    let session = |id, seconds, initiator, rank: usize| Contender {
        id: SaId(id),
        at: now + Duration::from_secs(seconds),
        initiator,
        rank: &ranks[rank],
    };
    for (one, other, stays) in [
        // The lowest of four nonces, 1, loses, whoever is newer.
        (session(1, 0, true, 0), session(2, 5, false, 1), 2),
        (session(1, 0, true, 1), session(2, 5, false, 0), 1),
        (session(1, 0, true, 1), session(2, 6, false, 0), 2),
        (session(1, 0, true, 1), session(2, 0, true, 0), 2),
        (session(1, 3, false, 0), session(2, 3, false, 1), 2),
    ] {
        assert_eq!(survivor(one, other), SaId(stays));
        assert_eq!(survivor(other, one), SaId(stays));
    }
}

#[test]
fn a_peer_that_starts_anew_replaces_what_we_began() {
    let mut pair = Pair::new();
    let wish = wish_of_b(&pair);
    pair.b.engine.initiate(pair.now, wish, &mut pair.b.owner);
    assert_eq!(pair.run(), 4);
    let (a, b) = (
        pair.a.established().unwrap().0,
        pair.b.established().unwrap().0,
    );
    pair.b.events.clear();
    // The client forgets everything a moment later.
    pair.now += Duration::from_millis(500);
    pair.a.engine.forget(a);
    let wish = Initiate {
        initial_contact: true,
        ..pair.wish()
    };
    pair.initiate(wish);
    pair.run();
    assert!(matches!(
        &pair.b.events[..],
        [Event::Closed { id, reason: CloseReason::Replaced, .. }, Event::Established { .. }] if *id == b
    ));
}

#[test]
fn initial_contact_is_not_claimed_beside_another_session() {
    let mut pair = Pair::new();
    pair.up();
    let wish = Initiate {
        initial_contact: true,
        ..pair.wish()
    };
    pair.initiate(wish);
    pair.run();
    assert_eq!(pair.b.closed(), None);
    assert_eq!(pair.b.engine.stats().sas, 2);
}
