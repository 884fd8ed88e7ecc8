//! Networks that lose, double and reorder.

use super::*;
use proptest::prelude::*;

/// What happens to one datagram.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Arrive,
    Lose,
    Double,
    /// Arrives after so many later ones.
    Late(usize),
}

pub(super) fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrive),
        3 => Just(Fate::Lose),
        2 => Just(Fate::Double),
        2 => (1..6usize).prop_map(Fate::Late),
    ]
}

/// Runs until nothing is due any more. Datagrams meet `fates` one after the other, and arrive once
/// these are used up (`mends`) or are all lost.
pub(super) fn run(
    pair: &mut Pair,
    fates: &[Fate],
    mends: bool,
    mut at_rest: impl FnMut(&mut Pair) -> bool,
) {
    let mut fates = fates.iter();
    // (deliver when so many have been sent, datagram)
    let mut wire: Vec<(usize, Transmit)> = Vec::new();
    let mut sent = 0;
    for _ in 0..10_000 {
        let mut out = pair.a.take();
        out.extend(pair.b.take());
        loop {
            for t in out.drain(..) {
                sent += 1;
                let otherwise = if mends { Fate::Arrive } else { Fate::Lose };
                match fates.next().copied().unwrap_or(otherwise) {
                    Fate::Arrive => wire.push((sent, t)),
                    Fate::Lose => {}
                    Fate::Double => wire.extend([(sent, t.clone()), (sent, t)]),
                    Fate::Late(by) => wire.push((sent + by, t)),
                }
            }
            let Some(next) = wire.iter().position(|(at, _)| *at <= sent) else {
                break;
            };
            let (_, t) = wire.remove(next);
            out = pair.deliver(&t);
        }
        // Nothing is on its way but what is late: time passes, and then it arrives.
        if let Some((at, _)) = wire.iter().min_by_key(|(at, _)| *at) {
            sent = sent.max(*at);
            continue;
        }
        if !pair.wait() && at_rest(pair) {
            return;
        }
    }
    panic!("no end");
}

proptest! {
    #![proptest_config(config(128))]

    /// A network that mends in time: both end up with the same session, made once.
    #[test]
    fn a_session_comes_about_over_a_bad_network(
        fates in prop::collection::vec(fate(), 0..12),
        cookie in any::<bool>(),
        other_group in any::<bool>(),
    ) {
        let mut pair = Pair::with(|a, b| {
            a.retransmit.tries = 40;
            a.half_open_timeout = Duration::from_secs(1000);
            b.half_open_timeout = Duration::from_secs(1000);
            b.cookie_threshold = if cookie { 0 } else { 100 };
            if other_group {
                a.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
                b.ike_proposals[0].groups = vec![Group::P256];
            }
        });
        let wish = pair.wish();
        pair.initiate(wish);
        run(&mut pair, &fates, true, |_| true);
        let (a, b) = (pair.a.established(), pair.b.established());
        prop_assert!(a.is_some() && b.is_some(), "{:?} {:?}", pair.a.events, pair.b.events);
        assert_mirrored(a.unwrap().1, b.unwrap().1);
        prop_assert_eq!((pair.a.events.len(), pair.b.events.len()), (1, 1));
        // What is half open goes by itself.
        pair.pass(Duration::from_secs(2000));
        prop_assert_eq!((pair.a.engine.stats().sas, pair.b.engine.stats().sas), (1, 1));
        prop_assert_eq!(pair.b.engine.stats().half_open, 0);
    }

    /// A network that may stay broken: it works, or fails cleanly; never does the client alone
    /// believe in a session.
    #[test]
    fn a_session_comes_about_or_fails_cleanly(
        fates in prop::collection::vec(fate(), 0..40),
        mends in any::<bool>(),
        right_key in prop::bool::weighted(0.8),
    ) {
        let mut pair = Pair::with(|a, b| {
            a.retransmit.tries = 4;
            b.retransmit.tries = 4;
        });
        let key = psk(if right_key { "secret" } else { "guess" });
        let wish = Initiate { auth: key.into(), ..pair.wish() };
        pair.initiate(wish);
        run(&mut pair, &fates, mends, |_| true);
        let (a, b) = (pair.a.established(), pair.b.established());
        prop_assert!(right_key || (a.is_none() && b.is_none()));
        match (a, b) {
            (Some((_, a)), Some((_, b))) => assert_mirrored(a, b),
            (Some(_), None) => prop_assert!(false, "the client alone is established"),
            // The last answer was lost. A liveness check clears that up.
            (None, Some((id, _))) => {
                prop_assert!(pair.a.failure().is_some());
                pair.b.engine.check_liveness(pair.now, id);
                run(&mut pair, &[], true, |_| true);
                prop_assert_eq!(pair.b.closed(), Some(&CloseReason::Timeout));
            }
            (None, None) => prop_assert!(pair.a.failure().is_some()),
        }
    }

    /// Deletion and liveness over a bad network: at the end neither side holds anything.
    #[test]
    fn a_session_ends_on_both_sides(
        fates in prop::collection::vec(fate(), 0..12),
        ask in any::<[bool; 2]>(),
        close in prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])],
    ) {
        let mut pair = Pair::with(|a, b| {
            for s in [a, b] {
                s.retransmit.tries = 40;
                s.half_open_timeout = Duration::from_secs(1000);
            }
        });
        let (a, b) = pair.up();
        if ask[0] { pair.a.engine.check_liveness(pair.now, a); }
        if ask[1] { pair.b.engine.check_liveness(pair.now, b); }
        if close[0] { pair.a.engine.close(pair.now, a); }
        if close[1] { pair.b.engine.close(pair.now, b); }
        run(&mut pair, &fates, true, |_| true);
        for node in [&pair.a, &pair.b] {
            let closed = node.events.iter().filter(|e| matches!(e, Event::Closed { .. }));
            prop_assert_eq!(closed.count(), 1);
            prop_assert_eq!(node.engine.stats().sas, 0);
        }
    }
}

#[test]
fn each_message_of_the_handshake_lost_once() {
    for lost in 0..4 {
        let mut fates = [Fate::Arrive; 4];
        fates[lost] = Fate::Lose;
        let mut pair = Pair::new();
        let (start, wish) = (pair.now, pair.wish());
        pair.initiate(wish);
        run(&mut pair, &fates, true, |_| true);
        assert_mirrored(
            pair.a.established().unwrap().1,
            pair.b.established().unwrap().1,
        );
        assert_eq!(pair.a.engine.stats().retransmits, 1);
        assert_eq!(pair.b.engine.stats().repeated, u64::from(lost % 2 == 1));
        assert_eq!(pair.now - start, Duration::from_millis(500));
    }
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_is_done_once() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take();
    let second = pair.deliver(&first[0]);
    assert_eq!(pair.deliver(&first[0]), second);
    assert_eq!(pair.b.engine.stats().half_open, 1);
    let third = pair.deliver(&second[0]);
    assert_eq!(pair.deliver(&second[0]), []);
    let fourth = pair.deliver(&third[0]);
    assert_eq!(pair.deliver(&third[0]), fourth);
    assert_eq!(pair.b.events.len(), 1);
    assert_eq!(pair.b.owner.next_spi, 0x3001);
    pair.deliver(&fourth[0]);
    assert_eq!(pair.deliver(&fourth[0]), []);
    assert_eq!(pair.a.events.len(), 1);
    // The first message once more: nothing half open is made of it.
    assert_eq!(pair.deliver(&first[0]), []);
    assert_eq!(pair.b.engine.stats().sas, 1);
    assert_eq!(pair.b.engine.stats().repeated, 2);
    // The last request, after a later one: out of the window.
    pair.a
        .engine
        .check_liveness(pair.now, pair.a.established().unwrap().0);
    pair.run();
    assert_eq!(pair.deliver(&third[0]), []);
    assert_eq!(pair.b.engine.stats().bad_message_id, 1);
}

#[test]
fn a_deletion_is_answered_again_after_the_fact() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.close(pair.now, a);
    let delete = pair.a.take();
    let lost = pair.deliver(&delete[0]);
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
    assert_eq!(pair.deliver(&delete[0]), lost);
    assert_eq!(pair.b.events.len(), 1);
}

#[test]
fn answers_go_where_the_request_came_from() {
    let mut pair = Pair::new();
    let (a, _) = pair.up();
    pair.a.engine.check_liveness(pair.now, a);
    let mut asked = pair.a.take().remove(0);
    asked.local = "203.0.113.5:4500".parse().unwrap();
    asked.remote = "192.0.2.1:4500".parse().unwrap();
    let answer = pair.b.receive(pair.now, &asked);
    assert_eq!(
        (answer[0].remote, answer[0].local),
        (asked.local, asked.remote)
    );
}
