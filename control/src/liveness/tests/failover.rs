//! Which gateway comes next, and what moves traffic at all.

use super::Do::*;
use super::*;
use crate::liveness::Phase;
use crate::policy::HeartbeatMode::{Deferred, Instant as Instantly, None as Never};

// A key that exists for another gateway is used at once; the search goes through the list in
// order from the defective one, and round.
#[test]
fn next_keyed_gateway_in_list_order() {
    for (keyed, active, next) in [
        (&[A, B, C][..], A, Some(B)),
        (&[A, B, C], B, Some(C)),
        (&[A, B, C], C, Some(A)),
        (&[A, C], A, Some(C)),
        (&[A, C], C, Some(A)),
        (&[A, B], B, Some(A)),
        (&[B], B, None),
    ] {
        let mut bench = Bench::new(Instantly);
        for gateway in keyed {
            bench.act(Keyed(*gateway));
        }
        bench.act(PeerInitiated(active));
        bench.pass(40);
        assert_eq!(bench.monitor.active(), next, "{keyed:?}, active {active}");
        let moved = match next {
            Some(next) => format!("activate {}", name(next)),
            None => format!("ask after {}", name(active)),
        };
        let dead = format!("dead {} after 40", name(active));
        let actions = what(&bench, 40);
        assert_eq!(actions.first(), Some(&dead.as_str()));
        assert_eq!(actions.last(), Some(&moved.as_str()));
    }
}

// If no other key exists, one is requested; whichever gateway the service authenticated is used.
#[test]
fn whichever_gateway_gets_the_key() {
    for gateway in [A, B, C] {
        let script = [(0, Keyed(A)), (50, Wanted), (60, Keyed(gateway))];
        let bench = plays(
            Instantly,
            &script,
            79,
            &[
                "0: activate A",
                "20: heartbeat A 1",
                "30: heartbeat A 2",
                "40: dead A after 40",
                "40: inactive",
                "40: ask after A",
                &format!("60: activate {}", name(gateway)),
            ],
        );
        assert_eq!(bench.monitor.active(), Some(gateway));
    }
}

// If authentication with all fails the request is rejected; payload asks again, once.
#[test]
fn rejection_is_remembered_until_payload_asks_again() {
    let script = [(0, Wanted), (10, KeyFailed), (11, Wanted), (12, Wanted)];
    let mut bench = plays(Deferred, &script, 13, &["0: ask", "11: ask"]);
    assert_eq!(bench.monitor.phase(), Phase::Retrying);
    assert!(bench.monitor.phase().refuses());
    bench.act(KeyFailed);
    assert_eq!(bench.monitor.phase(), Phase::Refused);
    bench.pass(20);
    bench.act(Wanted);
    bench.act(Keyed(C));
    assert_eq!(what(&bench, 13), ["ask", "activate C"]);
    assert!(!bench.monitor.phase().refuses());
}

// INSTANT means not to wait for payload, with the key request neither.
#[test]
fn instant_asks_again_by_itself() {
    plays(
        Instantly,
        &[(0, Wanted), (10, KeyFailed)],
        20,
        &["0: ask", "10: ask"],
    );
}

// The gateway that was lost stays the last choice until another one is in use.
#[test]
fn the_lost_gateway_is_remembered_over_a_rejection() {
    let script = [
        (0, Keyed(B)),
        (0, Sent),
        (1, Unkeyed(B)),
        (10, KeyFailed),
        (20, Wanted),
    ];
    let expected = [
        "0: activate B",
        "1: inactive",
        "1: ask after B",
        "20: ask after B",
    ];
    plays(Deferred, &script, 30, &expected);
}

// A gateway that comes back is used when it is next on the list, not before.
#[test]
fn a_gateway_that_comes_back_takes_nothing_over() {
    let mut bench = Bench::new(Instantly);
    for gateway in [A, B, C] {
        bench.act(Keyed(gateway));
    }
    bench.pass(45); // A dies
    bench.act(Keyed(A));
    assert_eq!(
        bench.monitor.active(),
        Some(B),
        "keyed again, but B is in use"
    );
    bench.pass(80); // B dies
    assert_eq!(bench.monitor.active(), Some(C));
    bench.pass(120); // C dies; A is next
    assert_eq!(bench.monitor.active(), Some(A));
}

// Communication that starts at a gateway makes a session, and the client uses that gateway.
#[test]
fn a_gateway_that_starts_a_session_is_used() {
    for mode in [Never, Deferred, Instantly] {
        let script = [(0, Keyed(A)), (5, PeerInitiated(B)), (6, PeerInitiated(B))];
        let bench = plays(mode, &script, 10, &["0: activate A", "5: activate B"]);
        let keyed: Vec<_> = bench
            .monitor
            .snapshot()
            .map(|gateway| gateway.keyed)
            .collect();
        assert_eq!(keyed, [true, true, false], "A keeps its key");
    }
}

#[test]
fn a_gateway_that_starts_a_session_ends_the_request() {
    let script = [
        (0, Wanted),
        (5, PeerInitiated(C)),
        (6, KeyFailed),
        (7, Keyed(A)),
    ];
    plays(Deferred, &script, 10, &["0: ask", "5: activate C"]);
}

#[test]
fn gateways_of_other_clusters_are_ignored() {
    let script = [
        (0, Keyed(X)),
        (0, PeerInitiated(X)),
        (1, Heard(X)),
        (2, Unkeyed(X)),
        (3, Sent),
    ];
    plays(Instantly, &script, 100, &[]);
}

// A second keyed gateway is a standby and changes nothing.
#[test]
fn a_standby_key_changes_nothing() {
    let script = [(0, Keyed(C)), (1, Keyed(A)), (2, Keyed(B)), (3, Unkeyed(A))];
    plays(Never, &script, 100, &["0: activate C"]);
}

// A session that is deleted or expires is no death, but the gateway can not be used without it.
#[test]
fn an_active_session_that_ends_moves_on() {
    for mode in [Never, Deferred, Instantly] {
        let script = [
            (0, Keyed(A)),
            (0, Keyed(C)),
            (5, Unkeyed(A)),
            (6, Unkeyed(C)),
        ];
        let expected = [
            "0: activate A",
            "5: activate C",
            "6: inactive",
            "6: ask after C",
        ];
        plays(mode, &script, 10, &expected);
    }
}

// In idle times no connection is established needlessly.
#[test]
fn an_idle_session_that_ends_waits_for_payload() {
    let script = [
        (0, Keyed(A)),
        (10, Sent),
        (61_000, Unkeyed(A)),
        (70_000, Wanted),
    ];
    let expected = ["0: activate A", "61000: inactive", "70000: ask after A"];
    let bench = plays(Never, &script, 70_000, &expected);
    assert_eq!(bench.monitor.phase(), Phase::Asking);
    // One that was in use within the last minute is replaced at once.
    let script = [(0, Keyed(A)), (1_001, Sent), (61_000, Unkeyed(A))];
    let expected = ["0: activate A", "61000: inactive", "61000: ask after A"];
    plays(Never, &script, 61_000, &expected);
}
