//! Key requests, the session cache, and the back-off of requests.

use super::*;
use crate::kms::RequestState;

// One gateway of the cluster is asked first (the first in drawn order), then the next specified
// one, in a round-robin manner; the key of the first that authenticates is passed back.
#[test]
fn gateways_are_asked_in_order_until_one_authenticates() {
    let mut bench = Bench::new(0, 1);
    assert_eq!(bench.ask(None), ["authenticate A"]);
    assert_eq!(bench.failed(A), ["authenticate B"]);
    assert_eq!(bench.made(B), ["granted 1 B"]);
    assert_eq!(bench.kms.session(B), Some(SessionHandle(1)));
    assert_eq!(bench.kms.request_state(ONE), Some(RequestState::Idle));
}

// The search for another gateway starts behind the one that was lost, which comes last.
#[test]
fn the_search_starts_behind_the_lost_gateway() {
    for (after, round) in [
        (A, [B, C, A]),
        (B, [C, A, B]),
        (C, [A, B, C]),
        (X, [A, B, C]),
    ] {
        let mut bench = Bench::new(0, 1);
        let mut actions = bench.ask(Some(after));
        for gateway in round {
            assert_eq!(
                actions,
                [format!("authenticate {}", name(gateway))],
                "after {after}"
            );
            actions = bench.failed(gateway);
        }
        assert_eq!(
            actions,
            [format!("rejected 1 {}", round.map(name).concat())]
        );
    }
}

// If authentication with all of the gateways fails, the key request is rejected, with reasons.
#[test]
fn a_rejection_tells_who_was_asked_and_why_not() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    for (gateway, reason) in [
        (A, "no answer"),
        (B, "AUTHENTICATION_FAILED"),
        (C, "no answer"),
    ] {
        bench.kms.on_failed(gateway, reason.into(), bench.now);
    }
    let last = std::iter::from_fn(|| bench.kms.next_action()).last();
    let Some(Action::Rejected {
        cluster,
        tried,
        retry_at,
    }) = last
    else {
        panic!("{last:?}")
    };
    assert_eq!(cluster, ONE);
    let reasons: Vec<_> = tried.iter().map(|(gw, why)| (*gw, why.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (A, "no answer"),
            (B, "AUTHENTICATION_FAILED"),
            (C, "no answer")
        ]
    );
    assert!(retry_at >= bench.now + FIRST / 2 && retry_at <= bench.now + FIRST);
    assert_eq!(
        bench.kms.request_state(ONE),
        Some(RequestState::BackOff(retry_at))
    );
}

// The exchange takes place with one and the same gateway: news of others do not divert it.
#[test]
fn one_exchange_at_a_time() {
    let mut bench = Bench::new(0, 1);
    assert_eq!(bench.ask(None), ["authenticate A"]);
    assert!(bench.failed(B).is_empty());
    assert!(
        bench.ask(None).is_empty(),
        "a second request is the same one"
    );
    assert!(bench.ask(Some(A)).is_empty());
    assert_eq!(
        bench.kms.request_state(ONE),
        Some(RequestState::Authenticating(A))
    );
    assert_eq!(bench.failed(A), ["authenticate B"]);
}

// A key that exists already is passed back at once.
#[test]
fn a_keyed_gateway_is_granted_without_an_exchange() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(C);
    assert_eq!(bench.ask(None), ["granted 1 C"]);
    bench.in_use(B);
    assert_eq!(bench.ask(None), ["granted 1 B"], "the first in order");
    assert_eq!(bench.ask(Some(B)), ["granted 1 C"], "the first behind B");
}

// With `after`, that gateway itself is no answer while it is keyed (it is being drained).
#[test]
fn the_gateway_to_leave_is_no_answer() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
    // Not even when its session is made anew meanwhile.
    let anew = SessionHandle(50);
    let actions = bench.then(|kms, now| kms.on_peer_initiated(A, anew, now));
    assert_eq!(actions, ["drop A 1"]);
    assert_eq!(bench.failed(B), ["authenticate C"]);
    assert_eq!(
        bench.failed(C),
        ["rejected 1 BC"],
        "A is not asked: it has a key"
    );
}

// A dead gateway that is alive again when its turn comes is an answer like any other.
#[test]
fn the_lost_gateway_is_asked_last() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.then(|kms, now| kms.on_dead(A, now)), ["drop A 1"]);
    assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
    assert_eq!(bench.failed(B), ["authenticate C"]);
    assert_eq!(bench.failed(C), ["authenticate A"]);
    assert_eq!(bench.made(A), ["granted 1 A"]);
}

// A gateway in two clusters has one session, and one exchange at a time.
#[test]
fn clusters_share_a_gateway() {
    let mut bench = Bench::new(0, 1);
    let now = bench.now;
    bench
        .kms
        .set_clusters(vec![(ONE, vec![A, B, C]), (TWO, vec![A, D])], now);
    assert_eq!(bench.kms.clusters_of(A).collect::<Vec<_>>(), [ONE, TWO]);
    assert_eq!(bench.ask(None), ["authenticate A"]);
    assert!(
        bench
            .then(|kms, now| kms.request(TWO, None, now))
            .is_empty(),
        "A is being asked"
    );
    assert_eq!(bench.failed(A), ["authenticate B", "authenticate D"]);
    assert_eq!(bench.made(D), ["granted 2 D"]);
    assert_eq!(bench.made(B), ["granted 1 B"]);

    let mut bench = Bench::new(0, 1);
    bench
        .kms
        .set_clusters(vec![(ONE, vec![A, B, C]), (TWO, vec![A, D])], now);
    bench.ask(None);
    bench.then(|kms, now| kms.request(TWO, None, now));
    assert_eq!(bench.made(A), ["granted 1 A", "granted 2 A"]);
}

// If a session comes about otherwise while the request runs, the request is granted with it;
// the exchange under way goes on, and its session is cached too.
#[test]
fn a_session_from_the_other_side_grants_the_request() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    let session = SessionHandle(9);
    let actions = bench.then(|kms, now| kms.on_peer_initiated(C, session, now));
    assert_eq!(actions, ["granted 1 C"]);
    assert!(bench.made(A).is_empty());
    assert!(bench.kms.session(A).is_some() && bench.kms.session(C).is_some());
}

// While our own exchange with a gateway runs, its session of its own does not end ours.
#[test]
fn both_sides_start_at_once() {
    let mut bench = Bench::new(0, 1);
    assert_eq!(bench.ask(None), ["authenticate A"]);
    let theirs = SessionHandle(9);
    assert_eq!(
        bench.then(|kms, now| kms.on_peer_initiated(A, theirs, now)),
        ["granted 1 A"]
    );
    assert_eq!(
        bench.then(|kms, now| kms.on_session_lost(A, theirs, now)),
        [""; 0]
    );
    assert!(bench.ask(None).is_empty(), "the exchange with A still runs");
    assert_eq!(bench.made(A), ["granted 1 A"]);
}

// One session per gateway: the newest.
#[test]
fn a_newer_session_replaces_the_older() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    let (old, new) = (SessionHandle(1), SessionHandle(2));
    assert_eq!(
        bench.then(|kms, now| kms.on_peer_initiated(A, new, now)),
        ["drop A 1"]
    );
    bench.kms.on_session_lost(A, old, bench.now);
    assert_eq!(
        bench.kms.session(A),
        Some(new),
        "the end of the old one changes nothing"
    );
    bench.kms.on_session_lost(A, new, bench.now);
    assert_eq!(bench.kms.session(A), None);
}

// The session key of the defective gateway is removed from the cache.
#[test]
fn death_removes_the_key_once() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.then(|kms, now| kms.on_dead(A, now)), ["drop A 1"]);
    assert_eq!(bench.kms.session(A), None);
    assert!(bench.then(|kms, now| kms.on_dead(A, now)).is_empty());
    assert!(bench.then(|kms, now| kms.on_dead(X, now)).is_empty());
}

// A request that was rejected is made again by itself, after waits that double up to a bound: a
// client may start before its gateways, and have nothing to say until it is spoken to.
#[test]
fn rejected_requests_back_off() {
    for asks_again in [false, true] {
        let mut bench = Bench::new(0, 7);
        bench.ask(None);
        for full in [100, 200, 400, 800, 1_000, 1_000, 1_000] {
            let full = Duration::from_millis(full);
            for gateway in [A, B, C] {
                bench.failed(gateway);
            }
            if asks_again {
                assert!(bench.ask(None).is_empty(), "not before its time");
                assert!(bench.ask(None).is_empty());
            }
            assert!(
                bench
                    .kms
                    .next_deadline()
                    .is_some_and(|(_, why)| why == "key request retry")
            );
            let seen = bench.pass(full);
            let [(waited, action)] = &seen[..] else {
                panic!("{seen:?}")
            };
            assert!(
                *waited >= full / 2 && *waited <= full,
                "{waited:?} of {full:?}"
            );
            assert_eq!(action, "authenticate A");
        }
    }
}

// The retry goes on from where the request did, or from where a later one says.
#[test]
fn a_retry_begins_behind_the_lost_gateway() {
    for (later, first) in [(None, "authenticate C"), (Some(C), "authenticate A")] {
        let mut bench = Bench::new(0, 1);
        bench.ask(Some(B));
        for gateway in [C, A, B] {
            bench.failed(gateway);
        }
        if later.is_some() {
            bench.ask(later);
        }
        let seen = bench.pass(FIRST);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].1, first);
    }
}

// While a gateway is keyed there is no need: no retry unless somebody asks. Somebody asks later:
// at once, for the wait is over.
#[test]
fn a_keyed_cluster_is_not_asked_for_again_unless_wanted() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
    bench.failed(B);
    assert_eq!(bench.failed(C), ["rejected 1 BC"]);
    assert_eq!(bench.kms.next_deadline(), None);
    assert!(bench.pass(FIRST).is_empty());
    assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
}

// A success, or a long quiet time, makes the next wait short again.
#[test]
fn back_off_starts_afresh() {
    for long_quiet in [false, true] {
        let mut bench = Bench::new(0, 3);
        let (after, left) = if long_quiet {
            bench.in_use(A);
            (Some(A), &[B, C][..])
        } else {
            (None, &[A, B, C][..])
        };
        for _ in 0..6 {
            bench.ask(after);
            for gateway in left {
                bench.failed(*gateway);
            }
            bench.pass(CAP);
        }
        if long_quiet {
            bench.pass(CAP * 2);
        } else {
            bench.made(A);
            bench.then(|kms, now| kms.on_dead(A, now));
        }
        bench.ask(after);
        for gateway in left {
            bench.failed(*gateway);
        }
        let Some(RequestState::BackOff(at)) = bench.kms.request_state(ONE) else {
            panic!()
        };
        assert!(at <= bench.now + FIRST, "{long_quiet}");
    }
}

// A key that arrives during the wait is used, whether it was asked for again or not.
#[test]
fn a_key_ends_the_wait() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    for gateway in [A, B, C] {
        bench.failed(gateway);
    }
    bench.ask(None);
    let session = SessionHandle(9);
    let actions = bench.then(|kms, now| kms.on_peer_initiated(B, session, now));
    assert_eq!(actions, ["granted 1 B"]);

    bench.then(|kms, now| kms.on_dead(B, now));
    bench.ask(Some(B));
    for gateway in [C, A, B] {
        bench.failed(gateway);
    }
    let actions = bench.then(|kms, now| kms.on_peer_initiated(C, session, now));
    assert_eq!(actions, ["granted 1 C"]);
    assert_eq!(bench.ask(Some(B)), ["granted 1 C"]);
}

#[test]
fn a_cluster_without_gateways_is_rejected() {
    let mut bench = Bench::new(0, 1);
    assert_eq!(
        bench.then(|kms, now| kms.request(TWO, None, now)),
        ["rejected 2 "]
    );
    let now = bench.now;
    bench.kms.set_clusters(vec![(ONE, vec![])], now);
    assert_eq!(bench.ask(None), ["rejected 1 "]);
}

// A session whose keys are replaced stays the one that it was: nothing is asked, granted or dropped.
#[test]
fn a_session_with_fresh_keys_is_known_by_its_new_name() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    let rekeyed = |bench: &mut Bench, gateway, old, new| {
        bench.then(|kms, _| kms.on_rekeyed(gateway, SessionHandle(old), SessionHandle(new)))
    };
    assert!(rekeyed(&mut bench, A, 1, 7).is_empty());
    assert_eq!(bench.kms.session(A), Some(SessionHandle(7)));
    // One that is not the cached one, and a gateway without any.
    assert!(rekeyed(&mut bench, A, 1, 8).is_empty());
    assert!(rekeyed(&mut bench, B, 1, 9).is_empty());
    assert_eq!(bench.kms.session(A), Some(SessionHandle(7)));
    assert_eq!(bench.kms.session(B), None);
    // The end of the old name is not that of the session.
    assert!(
        bench
            .then(|kms, now| kms.on_session_lost(A, SessionHandle(1), now))
            .is_empty()
    );
    assert_eq!(bench.then(|kms, now| kms.on_dead(A, now)), ["drop A 7"]);
}

// Also if nobody asks just then, because the gateway to be left is still there: when both are gone,
// nobody waits for what was rejected before the other came.
#[test]
fn a_session_ends_the_wait_that_nobody_waits_for() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
    bench.failed(B);
    assert_eq!(bench.failed(C), ["rejected 1 BC"]);
    bench.in_use(B);
    for gateway in [A, B] {
        bench.then(|kms, now| kms.on_dead(gateway, now));
    }
    assert_eq!(bench.ask(Some(B)), ["authenticate C"]);
}
