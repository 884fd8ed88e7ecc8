//! Which gateway comes next, and what moves traffic at all.

use super::Do::*;
use super::*;
use crate::liveness::Phase;
use crate::policy::HeartbeatMode::{Deferred, Instant as Instantly, None as Never};

/// The script's actions after `from` ms, with times cut off: for tests that care what, not when.
fn what(bench: &Bench, from: u64) -> Vec<&str> {
    let lines = bench.log.iter().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(ms, _)| ms.parse::<u64>().unwrap() >= from)
        .map(|(_, text)| text)
        .collect()
}

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

// A gateway that drains is left for another keyed one, but it is not dead and keeps its key.
#[test]
fn draining_moves_to_a_keyed_gateway() {
    let script = [(0, Keyed(A)), (0, Keyed(C)), (21, Answer(A, 1, DRAINING))];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "21: health A 1",
        "21: activate C",
    ];
    let bench = plays(Instantly, &script, 40, &expected);
    assert!(bench.monitor.snapshot().next().unwrap().keyed);
}

// If no other is keyed, stay, and ask for a key once; then move.
#[test]
fn draining_stays_until_a_key_arrives() {
    let script = [
        (0, Keyed(A)),
        (21, Answer(A, 1, DRAINING)),
        (42, Answer(A, 2, DRAINING)),
        (50, Keyed(B)),
    ];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "21: health A 1",
        "21: ask after A",
        "41: heartbeat A 2",
        "50: activate B",
    ];
    plays(Instantly, &script, 60, &expected);
}

#[test]
fn draining_stays_if_the_request_is_rejected() {
    let script = [(0, Keyed(A)), (21, Answer(A, 1, DRAINING)), (30, KeyFailed)];
    let mut bench = plays(
        Instantly,
        &script,
        45,
        &[
            "0: activate A",
            "20: heartbeat A 1",
            "21: health A 1",
            "21: ask after A",
            "41: heartbeat A 2",
        ],
    );
    assert_eq!(bench.monitor.active(), Some(A));
    bench.act(Answer(A, 2, DRAINING));
    assert_eq!(
        what(&bench, 45),
        ["ask after A"],
        "still unwell: another request"
    );
    bench.act(KeyFailed);
    bench.pass(66);
    bench.act(Answer(A, 3, 0));
    bench.act(Keyed(B));
    assert_eq!(
        what(&bench, 66),
        ["health A 0"],
        "well again: nothing to leave for"
    );
}

// A gateway asks to be left without a heartbeat: for the one that it names if that is keyed, else
// for the next one that is.
#[test]
fn a_gateway_is_left_when_it_asks_for_it() {
    for (to, next) in [
        (Some(C), "activate C"),
        (Some(X), "activate B"),
        (Some(A), "activate B"),
        (None, "activate B"),
    ] {
        let keyed = [(0, Keyed(A)), (0, Keyed(B)), (0, Keyed(C))];
        let script = [&keyed[..], &[(5, Leave(A, to))]].concat();
        let (health, next) = ("5: health A 1", format!("5: {next}"));
        plays(Never, &script, 5, &["0: activate A", health, &next]);
    }
    // One in reserve is only noted: it is not what traffic moves to next.
    let script = [
        (0, Keyed(A)),
        (0, Keyed(B)),
        (0, Keyed(C)),
        (5, Leave(B, None)),
        (6, Leave(A, None)),
        (7, Leave(X, None)),
    ];
    let expected = ["0: activate A", "6: health A 1", "6: activate C"];
    plays(Never, &script, 7, &expected);
}

// It stays in use until there is a key for another one, and asks again if there was none.
#[test]
fn a_gateway_that_asks_to_be_left_is_used_until_another_is_keyed() {
    let script = [
        (0, Keyed(A)),
        (5, Leave(A, Some(B))),
        (6, Leave(A, Some(B))),
        (7, KeyFailed),
        (8, Leave(A, Some(B))),
        (9, Keyed(B)),
    ];
    let expected = [
        "0: activate A",
        "5: health A 1",
        "5: ask after A",
        "8: ask after A",
        "9: activate B",
    ];
    plays(Never, &script, 10, &expected);
}

// Two gateways that both drain do not throw a client back and forth.
#[test]
fn draining_gateways_do_not_flap() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.act(Keyed(B));
    bench.pass(20);
    bench.act(Answer(A, 1, DRAINING));
    assert_eq!(bench.monitor.active(), Some(B));
    bench.pass(40);
    bench.act(Answer(B, 2, DRAINING));
    assert_eq!(bench.monitor.active(), Some(B), "A is no better");
    bench.act(Keyed(A));
    assert_eq!(
        bench.monitor.active(),
        Some(B),
        "nor is it when we are told twice of its key"
    );
    bench.act(Keyed(C));
    assert_eq!(bench.monitor.active(), Some(C));
    bench.pass(80); // C dies: an unwell gateway is better than none
    assert_eq!(bench.monitor.active(), Some(A));
}

// At a failure, a gateway that drains is passed over for one that does not.
#[test]
fn failover_prefers_a_gateway_that_is_well() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.act(PeerInitiated(B));
    bench.pass(20);
    bench.act(Answer(B, 1, DRAINING));
    assert_eq!(bench.monitor.active(), Some(A));
    bench.act(Keyed(C));
    bench.pass(60); // A dies; B is next, but drains
    assert_eq!(bench.monitor.active(), Some(C));
}

// What a gateway said in its last session does not count in a new one.
#[test]
fn a_new_session_forgets_the_draining() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.act(Keyed(B));
    bench.pass(20);
    bench.act(Answer(A, 1, DRAINING));
    bench.act(Unkeyed(A));
    bench.act(Keyed(A));
    bench.pass(40);
    bench.act(Answer(B, 2, DRAINING));
    assert_eq!(bench.monitor.active(), Some(A));
}

// The word of a gateway that gets no heartbeats any more is believed for half a minute.
#[test]
fn draining_is_forgotten_in_the_end() {
    for (at, next) in [(30_019, C), (30_020, B)] {
        let mut bench = Bench::new(Never);
        bench.act(Mode(Instantly));
        bench.act(Keyed(B));
        bench.act(Keyed(A));
        bench.pass(20);
        bench.act(Answer(B, 1, DRAINING));
        bench.act(Mode(Never));
        bench.act(Keyed(C));
        bench.pass(at);
        bench.act(Unkeyed(A));
        assert_eq!(bench.monitor.active(), Some(next), "{at} ms");
    }
}

// A request that a draining gateway caused is remembered when its session ends, idle or not.
#[test]
fn a_request_outlives_the_session_that_caused_it() {
    let script = [
        (0, Keyed(A)),
        (21, Sent),
        (22, Answer(A, 1, DRAINING)),
        (70_000, Unkeyed(A)),
        (70_001, Wanted),
    ];
    let expected = [
        "0: activate A",
        "21: heartbeat A 1",
        "22: health A 1",
        "22: ask after A",
        "70000: inactive",
    ];
    let bench = plays(Deferred, &script, 70_001, &expected);
    assert_eq!(bench.monitor.phase(), Phase::Asking);
}

// The request that a draining gateway caused serves when that gateway dies: there is only one.
#[test]
fn one_request_at_a_time() {
    let script = [(0, Keyed(A)), (21, Answer(A, 1, DRAINING))];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "21: health A 1",
        "21: ask after A",
        "41: heartbeat A 2",
        "51: heartbeat A 3",
        "61: dead A after 40",
        "61: inactive",
    ];
    let mut bench = plays(Instantly, &script, 100, &expected);
    bench.act(Keyed(B));
    assert_eq!(what(&bench, 100), ["activate B"]);
}

// A reload does not touch the gateways that stay, however the new order looks.
#[test]
fn reload_keeps_the_active_gateway() {
    let script = [
        (0, Keyed(A)),
        (0, Keyed(B)),
        (25, Order(vec![X, C, B, A])),
        (27, Answer(A, 1, 0)),
        (30, Order(vec![A, A, X])),
    ];
    let bench = plays(
        Instantly,
        &script,
        46,
        &["0: activate A", "20: heartbeat A 1"],
    );
    let order: Vec<_> = bench
        .monitor
        .snapshot()
        .map(|gateway| gateway.address)
        .collect();
    assert_eq!(order, [A, X]);
    assert_eq!(bench.monitor.active(), Some(A));
    assert_eq!(
        bench.monitor.snapshot().next().unwrap().heartbeats_answered,
        1
    );
}

#[test]
fn reload_leaves_a_gateway_that_is_gone() {
    let script = [(0, Keyed(A)), (0, Keyed(C)), (5, Order(vec![B, C]))];
    plays(Never, &script, 10, &["0: activate A", "5: activate C"]);
    let script = [(0, Keyed(A)), (5, Order(vec![B, C])), (9, Keyed(B))];
    let expected = ["0: activate A", "5: inactive", "5: ask", "9: activate B"];
    plays(Never, &script, 10, &expected);
}

#[test]
fn reload_forgets_the_lost_gateway_if_it_is_gone() {
    let script = [
        (0, Keyed(A)),
        (1, Unkeyed(A)),
        (2, KeyFailed),
        (3, Order(vec![B])),
        (4, Wanted),
    ];
    let expected = ["0: activate A", "1: inactive", "1: ask after A", "4: ask"];
    plays(Deferred, &script, 10, &expected);
}

#[test]
fn reload_of_the_mode_starts_the_round_again() {
    let script = [(0, Keyed(A)), (35, Mode(Never))];
    let expected = ["0: activate A", "20: heartbeat A 1", "30: heartbeat A 2"];
    plays(Instantly, &script, 1_000, &expected);
    let script = [(0, Keyed(A)), (500, Mode(Instantly))];
    plays(
        Never,
        &script,
        520,
        &["0: activate A", "520: heartbeat A 1"],
    );
    // The same timing again changes nothing.
    let script = [(0, Keyed(A)), (35, Mode(Instantly))];
    let bench = plays(
        Instantly,
        &script,
        40,
        &[
            "0: activate A",
            "20: heartbeat A 1",
            "30: heartbeat A 2",
            "40: dead A after 40",
            "40: inactive",
            "40: ask after A",
        ],
    );
    assert_eq!(bench.monitor.active(), None);
}
