//! A policy is read anew.

use super::*;

// Sessions with gateways that stay are untouched, in whichever cluster they are now.
#[test]
fn sessions_that_the_policy_still_wants_stay() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    bench.in_use(B);
    let clusters = vec![(ONE, vec![C, A]), (TWO, vec![B])];
    assert!(
        bench
            .then(|kms, now| kms.set_clusters(clusters, now))
            .is_empty()
    );
    assert!(bench.kms.session(A).is_some() && bench.kms.session(B).is_some());
    assert_eq!(
        bench.then(|kms, now| kms.request(TWO, None, now)),
        ["granted 2 B"]
    );
}

#[test]
fn sessions_that_no_cluster_wants_are_dropped() {
    let mut bench = Bench::new(1, 1);
    bench.in_use(A);
    bench.in_use(B);
    let clusters = vec![(ONE, vec![B, C])];
    assert_eq!(
        bench.then(|kms, now| kms.set_clusters(clusters, now)),
        ["drop A 1"]
    );
    assert_eq!(bench.kms.session(A), None);
}

// A session that is made with a gateway after the policy lost it is not kept.
#[test]
fn a_session_that_comes_too_late_is_dropped() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    let clusters = vec![(ONE, vec![B, C])];
    let actions = bench.then(|kms, now| kms.set_clusters(clusters, now));
    assert_eq!(
        actions,
        ["authenticate B"],
        "the request goes on with the others"
    );
    assert_eq!(bench.made(A), ["drop A 1"]);
    assert!(bench.then(|kms, now| kms.on_peer_initiated(X, SessionHandle(8), now)) == ["drop X 8"]);
    assert_eq!(bench.made(B), ["granted 1 B"]);
}

#[test]
fn a_failure_that_comes_too_late_changes_nothing() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    let clusters = vec![(ONE, vec![B, C])];
    bench.then(|kms, now| kms.set_clusters(clusters, now));
    assert!(bench.failed(A).is_empty());
    assert_eq!(bench.failed(B), ["authenticate C"]);
    assert_eq!(bench.failed(C), ["rejected 1 BC"]);
}

// A request under way goes on: with its gateway if that stays, then with those not asked yet.
#[test]
fn a_request_under_way_goes_on_in_the_new_order() {
    let mut bench = Bench::new(0, 1);
    bench.ask(None);
    assert_eq!(bench.failed(A), ["authenticate B"]);
    let clusters = vec![(ONE, vec![D, A, C, B])];
    assert!(
        bench
            .then(|kms, now| kms.set_clusters(clusters, now))
            .is_empty()
    );
    assert_eq!(bench.failed(B), ["authenticate D"]);
    assert_eq!(bench.failed(D), ["authenticate C"], "A was asked already");
    assert_eq!(bench.failed(C), ["rejected 1 ABDC"]);
}

#[test]
fn a_request_is_granted_by_a_gateway_that_another_cluster_keyed() {
    let mut bench = Bench::new(0, 1);
    let clusters = vec![(ONE, vec![A, B]), (TWO, vec![C])];
    bench.then(|kms, now| kms.set_clusters(clusters, now));
    bench.in_use(C);
    assert_eq!(bench.ask(None), ["authenticate A"]);
    let clusters = vec![(ONE, vec![A, B, C]), (TWO, vec![C])];
    assert_eq!(
        bench.then(|kms, now| kms.set_clusters(clusters, now)),
        ["granted 1 C"]
    );
}

// New gateways are worth a new attempt: the wait is over, but only if the gateways did change.
#[test]
fn new_gateways_end_the_back_off() {
    for (order, ends) in [
        (vec![C, B, A], false),
        (vec![D], true),
        (vec![A, B, C, D], true),
    ] {
        let mut bench = Bench::new(0, 1);
        bench.ask(None);
        for gateway in [A, B, C] {
            bench.failed(gateway);
        }
        bench.ask(None);
        let first = name(order[0]);
        let actions = bench.then(|kms, now| kms.set_clusters(vec![(ONE, order)], now));
        let expected = if ends {
            vec![format!("authenticate {first}")]
        } else {
            vec![]
        };
        assert_eq!(actions, expected);
    }
}

// A repeated gateway, or a repeated cluster, counts once.
#[test]
fn repetitions_count_once() {
    let mut bench = Bench::new(0, 1);
    let clusters = vec![(ONE, vec![A, A, B, A]), (ONE, vec![C])];
    bench.then(|kms, now| kms.set_clusters(clusters, now));
    bench.ask(None);
    assert_eq!(bench.failed(A), ["authenticate B"]);
    assert_eq!(bench.failed(B), ["rejected 1 AB"]);
}

// A session that the new policy wants more of is made anew; the old one goes when the new one is
// there.
#[test]
fn a_session_is_refreshed_beside_the_old_one() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    let refreshed = bench.then(|kms, now| kms.refresh(A, now));
    assert_eq!(refreshed, ["authenticate A"]);
    assert_eq!(bench.kms.session(A), Some(SessionHandle(1)));
    assert!(
        bench.then(|kms, now| kms.refresh(A, now)).is_empty(),
        "one exchange at a time"
    );
    assert_eq!(bench.made(A), ["drop A 1"]);
    assert_eq!(bench.kms.session(A), Some(SessionHandle(2)));
    assert_eq!(bench.kms.next_deadline(), None);
    let unkeyed = bench.then(|kms, now| kms.refresh(B, now));
    assert!(unkeyed.is_empty(), "nothing to make anew");
}

#[test]
fn a_refresh_that_fails_is_tried_again() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    bench.then(|kms, now| kms.refresh(A, now));
    for full in [100, 200, 400, 800, 1_000, 1_000] {
        let full = Duration::from_millis(full);
        assert!(bench.failed(A).is_empty());
        assert_eq!(bench.kms.session(A), Some(SessionHandle(1)), "it stays");
        assert!(
            bench
                .kms
                .next_deadline()
                .is_some_and(|(_, why)| why == "session refresh")
        );
        let seen = bench.pass(full);
        let [(waited, action)] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert!(*waited >= full / 2 && *waited <= full, "{waited:?}");
        assert_eq!(action, "authenticate A");
    }
    // A session that ends meanwhile needs no refresh any more.
    bench.then(|kms, now| kms.on_dead(A, now));
    assert!(bench.failed(A).is_empty());
    assert_eq!(bench.kms.next_deadline(), None);
}

// The lost gateway falls off the list and comes back to it: it is one like any other, as it is for the
// monitor.
#[test]
fn a_lost_gateway_that_falls_off_the_list_is_forgotten() {
    for waits in [false, true] {
        let mut bench = Bench::new(0, 1);
        assert_eq!(bench.ask(Some(A)), ["authenticate B"]);
        if waits {
            for gateway in [B, C, A] {
                bench.failed(gateway);
            }
        }
        // The first of these lists begins the request anew if it waits.
        for list in [vec![B, C], vec![A, B, C]] {
            bench.then(|kms, now| kms.set_clusters(vec![(ONE, list)], now));
        }
        assert_eq!(bench.failed(B), ["authenticate A"], "{waits}");
    }
}

// What is held against a gateway goes with it, whether an exchange runs then or not.
#[test]
fn a_gateway_that_falls_off_the_list_starts_afresh() {
    for exchange in [false, true] {
        let mut bench = Bench::new(0, 1);
        for _ in 0..3 {
            bench.in_use(B);
            bench.then(|kms, now| kms.on_dead(B, now));
        }
        if exchange {
            // Of the background: requests pass it over.
            bench.in_use(B);
            assert_eq!(
                bench.then(|kms, now| kms.refresh(B, now)),
                ["authenticate B"]
            );
        }
        for list in [vec![A, C], vec![B]] {
            bench.then(|kms, now| kms.set_clusters(vec![(ONE, list)], now));
        }
        let expected: &[&str] = if exchange { &[] } else { &["authenticate B"] };
        assert_eq!(
            bench.ask(None),
            expected,
            "it shares the exchange that runs, if one does"
        );
        assert_eq!(
            bench.kms.request_state(ONE),
            Some(crate::kms::RequestState::Authenticating(B))
        );
    }
}
