//! When heartbeats go out and what counts as life.

use std::time::Duration;

use super::Do::*;
use super::*;
use crate::policy::HeartbeatMode::{Deferred, Instant as Instantly, None as Never};

// Without a setting no heartbeat is ever sent.
#[test]
fn mode_none_sends_no_heartbeat_and_judges_nobody() {
    let script = [(0, Keyed(A)), (1, Sent), (500, Sent), (100_000, Sent)];
    let bench = plays(Never, &script, 200_000, &["0: activate A"]);
    assert_eq!(bench.monitor.next_deadline(), None);
    assert_eq!(bench.monitor.active(), Some(A));
}

// A heartbeat goes only if a session exists; a key is requested once, not per packet.
#[test]
fn without_a_key_there_is_a_request_and_no_heartbeat() {
    let script = [(0, Wanted), (1, Wanted), (2, Sent), (3, Wanted)];
    plays(Instantly, &script, 1_000, &["0: ask"]);
}

// INSTANT: silence for the defer time, a heartbeat; no answer within the response time, a second
// one; still none, and the gateway is dead and its key removed.
#[test]
fn two_unanswered_heartbeats_are_death() {
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "40: dead A after 40",
        "40: inactive",
        "40: ask after A",
    ];
    let bench = plays(Instantly, &[(0, Keyed(A))], 1_000, &expected);
    let a = bench.monitor.snapshot().next().unwrap();
    assert!(!a.keyed && !a.active);
    assert_eq!(
        (a.heartbeats_sent, a.heartbeats_answered, a.heartbeats_lost),
        (2, 0, 2)
    );
}

// As long as packets come from the gateway within the time, it counts as operational.
#[test]
fn any_authenticated_packet_holds_the_heartbeat_back() {
    let mut script = vec![(0, Keyed(A))];
    script.extend((1..50).map(|n| (n * 19, Heard(A))));
    plays(Instantly, &script, 49 * 19 + 19, &["0: activate A"]);
}

// The silence is counted from the last packet heard, to the millisecond.
#[test]
fn the_silence_starts_at_the_last_packet() {
    let script = [(0, Keyed(A)), (7, Heard(A))];
    plays(
        Instantly,
        &script,
        27,
        &["0: activate A", "27: heartbeat A 1"],
    );
}

// An answer in time is life: the next heartbeat waits for the next silence.
#[test]
fn an_answer_ends_the_round() {
    let script = [(0, Keyed(A)), (23, Answer(A, 1, 0)), (44, Answer(A, 2, 0))];
    let expected = ["0: activate A", "20: heartbeat A 1", "43: heartbeat A 2"];
    let bench = plays(Instantly, &script, 63, &expected);
    let a = bench.monitor.snapshot().next().unwrap();
    assert_eq!(
        (a.heartbeats_sent, a.heartbeats_answered, a.heartbeats_lost),
        (2, 2, 0)
    );
    assert_eq!(a.rtt, Some(Duration::from_millis(1)));
}

#[test]
fn an_answer_to_the_second_heartbeat_is_life_too() {
    let script = [(0, Keyed(A)), (39, Answer(A, 2, 0))];
    let expected = ["0: activate A", "20: heartbeat A 1", "30: heartbeat A 2"];
    plays(Instantly, &script, 58, &expected);
}

#[test]
fn a_late_answer_to_the_first_heartbeat_is_life_too() {
    let script = [(0, Keyed(A)), (39, Answer(A, 1, 0))];
    let expected = ["0: activate A", "20: heartbeat A 1", "30: heartbeat A 2"];
    let bench = plays(Instantly, &script, 58, &expected);
    let a = bench.monitor.snapshot().next().unwrap();
    assert_eq!(a.rtt, Some(Duration::from_millis(19)));
}

// Payload that arrives while a heartbeat is out does as well as its answer.
#[test]
fn payload_ends_the_round() {
    let script = [(0, Keyed(A)), (35, Heard(A))];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "55: heartbeat A 3",
    ];
    plays(Instantly, &script, 64, &expected);
}

// Only protected messages that belong to something we asked prove life.
#[test]
fn an_answer_to_nothing_proves_nothing() {
    let script = [
        (0, Keyed(A)),
        (0, Keyed(B)),
        (10, Answer(A, 0, 0)),           // before any heartbeat
        (21, Answer(A, 2, 0)),           // a counter not used yet
        (22, Answer(A, 0x8000_0001, 0)), // the answer bit left in
        (23, Answer(B, 1, 0)),           // from the wrong gateway
        (24, Answer(X, 1, 0)),           // from nobody we know
        (25, Answer(A, 77, DRAINING)),   // and its health is not believed either
    ];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "40: dead A after 40",
        "40: activate B",
    ];
    let bench = plays(Instantly, &script, 59, &expected);
    assert_eq!(bench.monitor.unmatched_answers(), 6);
}

#[test]
fn an_answer_counts_once() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.pass(22);
    let now = bench.now;
    assert_eq!(
        bench.monitor.on_answer(A, 1, 0, now),
        Some(Duration::from_millis(2))
    );
    assert_eq!(bench.monitor.on_answer(A, 1, 0, now), None);
    assert_eq!(bench.monitor.unmatched_answers(), 1);
}

// An answer that comes after the verdict belongs to a session that is gone.
#[test]
fn the_dead_do_not_answer() {
    let script = [
        (0, Keyed(A)),
        (0, Keyed(B)),
        (41, Answer(A, 2, 0)),
        (42, Heard(A)),
    ];
    let bench = plays(
        Instantly,
        &script,
        59,
        &[
            "0: activate A",
            "20: heartbeat A 1",
            "30: heartbeat A 2",
            "40: dead A after 40",
            "40: activate B",
        ],
    );
    assert_eq!(bench.monitor.unmatched_answers(), 1);
}

// Nor do answers of an old session count for a new one, whether it was deleted or died (a mode
// that is set again changes nothing).
#[test]
fn an_answer_dies_with_its_session() {
    for ends in [Unkeyed(A), Mode(Instantly)] {
        let mut bench = Bench::new(Instantly);
        bench.act(Keyed(A));
        bench.pass(39);
        bench.act(ends);
        bench.pass(100); // by now A is gone either way
        bench.act(Keyed(A));
        let now = bench.now;
        assert_eq!(bench.monitor.on_answer(A, 1, 0, now), None);
        assert_eq!(bench.monitor.on_answer(A, 2, 0, now), None);
    }
}

// DEFERRED: the heartbeat waits until payload goes to the gateway anyway.
#[test]
fn deferred_waits_for_payload() {
    let script = [(0, Keyed(A)), (57, Sent)];
    let expected = [
        "0: activate A",
        "57: heartbeat A 1",
        "67: heartbeat A 2",
        "77: dead A after 77",
        "77: inactive",
        "77: ask after A",
    ];
    plays(Deferred, &script, 1_000, &expected);
}

// Idle times stay idle: without payload there is never a heartbeat, nor a verdict.
#[test]
fn deferred_is_quiet_without_payload() {
    let bench = plays(Deferred, &[(0, Keyed(A))], 10_000, &["0: activate A"]);
    assert_eq!(
        bench.monitor.next_deadline(),
        None,
        "nothing to wake up for"
    );
}

// Payload from before the silence does not count: it went when the gateway was taken for alive.
#[test]
fn deferred_wants_payload_after_the_silence() {
    let script = [(0, Keyed(A)), (19, Sent), (90, Sent)];
    plays(
        Deferred,
        &script,
        99,
        &["0: activate A", "90: heartbeat A 1"],
    );
}

// With payload in flight, DEFERRED is as quick as INSTANT, but for the gap between packets.
#[test]
fn deferred_with_payload_flowing() {
    let mut script = vec![(0, Keyed(A))];
    script.extend((1..60).map(|n| (n, Sent)));
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "40: dead A after 40",
        "40: inactive",
        "40: ask after A",
    ];
    plays(Deferred, &script, 60, &expected);
}

// What is heard while the heartbeat waits for payload is life: the silence starts again.
#[test]
fn deferred_hears_while_it_waits() {
    let script = [
        (0, Keyed(A)),
        (50, Heard(A)),
        (51, Sent),
        (69, Sent),
        (70, Sent),
    ];
    plays(
        Deferred,
        &script,
        79,
        &["0: activate A", "70: heartbeat A 1"],
    );
}

// Heartbeats go only to the gateway in use, however many are keyed; what the others send is
// noted but says nothing about the active one.
#[test]
fn standby_gateways_get_no_heartbeats() {
    let script = [
        (0, Keyed(A)),
        (0, Keyed(B)),
        (0, Keyed(C)),
        (15, Heard(B)),
        (25, Heard(C)),
    ];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "40: dead A after 40",
        "40: activate B",
        "60: heartbeat B 3",
        "70: heartbeat B 4",
        "80: dead B after 40",
        "80: activate C",
    ];
    plays(Instantly, &script, 99, &expected);
}

// A fresh activation gives the gateway its whole defer time, however long it was silent before.
#[test]
fn the_silence_of_a_standby_is_not_held_against_it() {
    let mut script = vec![(0, Keyed(A)), (0, Keyed(B))];
    script.extend((1..20).map(|n| (n * 10, Heard(A))));
    let expected = [
        "0: activate A",
        "210: heartbeat A 1",
        "220: heartbeat A 2",
        "230: dead A after 40",
        "230: activate B",
        "250: heartbeat B 3",
    ];
    plays(Instantly, &script, 259, &expected);
}

// A session made anew with the active gateway is an authenticated sign of life.
#[test]
fn a_new_key_is_life() {
    let script = [(0, Keyed(A)), (35, Keyed(A))];
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "55: heartbeat A 3",
    ];
    plays(Instantly, &script, 64, &expected);
}

// Our own late wake-up is never taken for a dead gateway: the window starts again.
#[test]
fn oversleeping_starts_the_window_again() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.pass(35);
    bench.oversleep(46); // due at 40, more than half a response time late
    bench.pass(50);
    bench.act(Answer(A, 3, 0));
    let expected = [
        "0: activate A",
        "20: heartbeat A 1",
        "30: heartbeat A 2",
        "46: heartbeat A 3",
    ];
    assert_eq!(bench.log, expected);
    assert_eq!(bench.monitor.windows_restarted(), 1);
}

#[test]
fn a_little_late_is_in_time() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    bench.pass(35);
    bench.oversleep(45); // half a response time
    assert_eq!(bench.log[3], "45: dead A after 45");
}

// A machine that is always late still leaves a dead gateway: two restarts a round at most.
#[test]
fn oversleeping_is_bounded() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    for wake in 1..=5 {
        bench.oversleep(wake * 100);
    }
    let expected = [
        "0: activate A",
        "100: heartbeat A 1",
        "200: heartbeat A 2", // again
        "300: heartbeat A 3", // and again
        "400: heartbeat A 4", // the second heartbeat of the rule
        "500: dead A after 500",
        "500: inactive",
        "500: ask after A",
    ];
    assert_eq!(bench.log, expected);
}

#[test]
fn a_sign_of_life_forgives_oversleeping() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    for round in 0..10 {
        let base = round * 1_000;
        for wake in 1..=4 {
            bench.oversleep(base + wake * 100);
        }
        bench.act(Heard(A));
    }
    assert!(
        bench.log.iter().all(|line| !line.contains("dead")),
        "{:?}",
        bench.log
    );
    assert_eq!(bench.monitor.windows_restarted(), 20);
}

// With our own link down nothing can be heard: no verdict falls, and the keys survive.
#[test]
fn no_verdict_while_our_own_link_is_down() {
    let script = [
        (0, Keyed(A)),
        (25, Link(false)),
        (26, Sent),
        (500, Link(true)),
    ];
    let expected = ["0: activate A", "20: heartbeat A 1", "520: heartbeat A 2"];
    plays(Instantly, &script, 529, &expected);
}

#[test]
fn deferred_sends_nothing_into_a_link_that_is_down() {
    let script = [
        (0, Keyed(A)),
        (25, Link(false)),
        (26, Sent),
        (30, Link(true)),
        (31, Sent),
    ];
    let mut bench = plays(Deferred, &script, 49, &["0: activate A"]);
    bench.pass(60);
    bench.act(Sent);
    assert_eq!(bench.log[1], "60: heartbeat A 1");
}

// 31 bits: the bit above tells answers from requests.
#[test]
fn the_counter_wraps_below_the_answer_bit() {
    let mut bench = Bench::new(Instantly);
    bench.monitor.counter = 0x7fff_fffe;
    bench.act(Keyed(A));
    bench.pass(30);
    let expected = [
        "0: activate A",
        "20: heartbeat A 2147483647",
        "30: heartbeat A 0",
    ];
    assert_eq!(bench.log, expected);
    let now = bench.now;
    assert!(bench.monitor.on_answer(A, 0, 0, now).is_some());
}

// Timers reach down to a millisecond, and no setting makes them spin or overflow.
#[test]
fn timings_are_clamped() {
    for (given, want) in [
        (Duration::ZERO, Duration::from_millis(1)),
        (Duration::from_millis(1), Duration::from_millis(1)),
        (Duration::MAX, Duration::from_secs(3600)),
    ] {
        let mode = HeartbeatMode::Instant;
        let clamped = Timing {
            mode,
            response_time: given,
            defer_time: given,
        }
        .clamped();
        assert_eq!((clamped.response_time, clamped.defer_time), (want, want));
    }
}

// The packet path allocates nothing.
#[test]
fn rounds_do_not_grow_anything() {
    let mut bench = Bench::new(Instantly);
    bench.act(Keyed(A));
    let capacity = bench.monitor.actions.capacity();
    for round in 1..10_000 {
        bench.pass(round * 25);
        bench.act(Sent);
        bench.act(Heard(A));
        bench.log.clear();
    }
    assert_eq!(bench.monitor.actions.capacity(), capacity);
}
