//! Another order of gateways, or another mode, while a gateway is in use.

use super::Do::*;
use super::*;
use crate::policy::HeartbeatMode::{Deferred, Instant as Instantly, None as Never};

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
