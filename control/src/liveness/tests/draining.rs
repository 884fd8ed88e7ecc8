//! Gateways that drain, or ask to be left: who is used meanwhile, and what is believed of them.

use super::Do::*;
use super::*;
use crate::liveness::Phase;
use crate::policy::HeartbeatMode::{Deferred, Instant as Instantly, None as Never};

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

// The request may end with a new key for the very gateway that shall be left, if none other answers.
// It is over then: when that gateway dies, there is another.
#[test]
fn a_request_that_changed_nothing_is_over() {
    let script = [
        (0, Keyed(A)),
        (10, Leave(A, None)),
        (11, Granted(A)),
        (12, Unkeyed(A)),
        (13, Granted(X)),
        (14, Granted(A)),
    ];
    let expected = [
        "0: activate A",
        "10: health A 1",
        "10: ask after A",
        "12: inactive",
        "12: ask after A",
        "13: ask after A",
        "14: activate A",
    ];
    plays(Instantly, &script, 15, &expected);
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
