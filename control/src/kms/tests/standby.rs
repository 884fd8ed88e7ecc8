//! Standby gateways: keyed in the background, never in the way.

use super::*;

// Nothing is keyed in the background before a gateway is in use.
#[test]
fn standby_waits_for_the_active_gateway() {
    let mut bench = Bench::new(2, 1);
    assert!(bench.pass(CAP * 10).is_empty());
    bench.ask(None);
    assert!(bench.pass(CAP * 10).is_empty(), "nor while a request runs");
    bench.made(A);
    assert!(
        bench
            .kms
            .next_deadline()
            .is_some_and(|(_, why)| why == "standby")
    );
}

// N further gateways, next in order after the active one, one exchange after the other.
#[test]
fn standby_takes_the_next_in_order() {
    for (active, next) in [(A, ["B", "C"]), (B, ["C", "A"]), (C, ["A", "B"])] {
        let mut bench = Bench::new(2, 1);
        bench.in_use(active);
        for name in next {
            let seen = bench.pass(CAP);
            let [(waited, action)] = &seen[..] else {
                panic!("{seen:?}")
            };
            assert!(*waited <= FIRST);
            assert_eq!(*action, format!("authenticate {name}"));
            assert!(bench.made([A, B, C]["ABC".find(name).unwrap()]).is_empty());
        }
        assert!(bench.pass(CAP * 10).is_empty(), "enough");
    }
}

#[test]
fn standby_stops_at_its_number() {
    let mut bench = Bench::new(1, 1);
    bench.in_use(A);
    assert_eq!(bench.pass(CAP)[0].1, "authenticate B");
    bench.made(B);
    assert!(bench.pass(CAP * 10).is_empty());
    assert_eq!(bench.kms.next_deadline(), None);
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    assert_eq!(bench.kms.next_deadline(), None);
}

// A standby attempt that fails goes on to the next gateway; the failed one waits ever longer.
#[test]
fn failed_standbys_back_off() {
    let mut bench = Bench::new(1, 5);
    bench.kms.set_clusters(vec![(ONE, vec![A, B])], bench.now);
    bench.in_use(A);
    for full in [100, 200, 400, 800, 1_000, 1_000] {
        let full = Duration::from_millis(full);
        while !bench.actions().contains(&"authenticate B".to_owned()) {
            bench.now = bench.kms.next_deadline().unwrap().0;
            bench.kms.poll(bench.now);
        }
        bench.failed(B);
        let wait = bench.kms.next_deadline().unwrap().0 - bench.now;
        assert!(
            wait >= full / 2 && wait <= full + FIRST,
            "{wait:?} of {full:?}"
        );
    }
}

#[test]
fn a_failed_standby_gives_way_to_the_next() {
    let mut bench = Bench::new(1, 5);
    bench.in_use(A);
    assert_eq!(bench.pass(FIRST)[0].1, "authenticate B");
    bench.failed(B);
    let seen = bench.pass(FIRST);
    assert_eq!(
        seen.iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>(),
        ["authenticate C"]
    );
}

// After failover the new active gateway gets a standby again, the dead one only after a while.
#[test]
fn the_dead_are_held_down() {
    for seed in 0..50 {
        let mut bench = Bench::new(1, seed);
        bench.kms.set_clusters(vec![(ONE, vec![A, B])], bench.now);
        bench.in_use(A);
        bench.in_use(B);
        bench.kms.on_active(ONE, Some(A), bench.now);
        bench.then(|kms, now| kms.on_dead(A, now));
        bench.then(|kms, now| kms.on_active(ONE, Some(B), now));
        let seen = bench.pass(CAP);
        let [(waited, action)] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(action, "authenticate A");
        assert!(*waited >= FIRST / 2 && *waited <= FIRST * 2, "{waited:?}");
    }
}

// A gateway that authenticates and dies over and over is held down longer each time.
#[test]
fn a_flapping_gateway_is_held_down_longer() {
    let mut bench = Bench::new(1, 2);
    bench.kms.set_clusters(vec![(ONE, vec![A, B])], bench.now);
    bench.in_use(B);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = bench.now;
        while !bench.actions().contains(&"authenticate A".to_owned()) {
            bench.now = bench.kms.next_deadline().unwrap().0;
            bench.kms.poll(bench.now);
        }
        waits.push(bench.now - before);
        bench.made(A);
        bench.then(|kms, now| kms.on_dead(A, now));
    }
    assert!(waits[0] <= FIRST && waits[5] >= CAP / 2, "{waits:?}");
    // One that lived for longer than the longest wait is forgiven.
    bench.pass(CAP * 3);
    bench.made(A);
    bench.pass(CAP + FIRST);
    bench.then(|kms, now| kms.on_dead(A, now));
    let (at, _) = bench.kms.next_deadline().unwrap();
    assert!(at <= bench.now + FIRST * 2);
}

// A request never waits for the background, and asks a held-down gateway all the same.
#[test]
fn a_request_is_not_delayed_by_standby() {
    let mut bench = Bench::new(1, 1);
    bench.in_use(A);
    assert_eq!(bench.pass(FIRST)[0].1, "authenticate B");
    bench.then(|kms, now| kms.on_dead(A, now));
    assert_eq!(
        bench.ask(Some(B)),
        ["authenticate C"],
        "though B is being asked"
    );
    // A request whose turn comes to B takes the exchange that runs already.
    let mut bench = Bench::new(1, 1);
    bench.in_use(A);
    assert_eq!(bench.pass(FIRST)[0].1, "authenticate B");
    bench.then(|kms, now| kms.on_dead(A, now));
    assert!(bench.ask(Some(A)).is_empty());
    assert_eq!(bench.failed(B), ["authenticate C"]);
    assert_eq!(
        bench.failed(C),
        ["authenticate A"],
        "held down for the background only"
    );
}

// Standbys of an idle cluster are not replaced: nobody uses it.
#[test]
fn no_standby_without_an_active_gateway() {
    let mut bench = Bench::new(2, 1);
    bench.in_use(A);
    bench.kms.on_active(ONE, None, bench.now);
    assert!(bench.pass(CAP * 10).is_empty());
}

#[test]
fn settings_can_change() {
    let mut bench = Bench::new(0, 1);
    bench.in_use(A);
    let settings = Settings {
        retry_first: FIRST,
        retry_cap: CAP,
        standby: 1,
    };
    bench.kms.set_settings(settings, bench.now);
    assert_eq!(bench.pass(FIRST)[0].1, "authenticate B");
}

// A request may be granted by a gateway that the monitor does not move to, because it is no better. The
// one in use is still in use, and has its standby.
#[test]
fn a_grant_that_moves_nothing_leaves_standby_as_it_was() {
    let mut bench = Bench::new(1, 1);
    bench.in_use(B);
    bench.in_use(A);
    assert_eq!(bench.ask(Some(A)), ["granted 1 B"]);
    bench.then(|kms, now| kms.on_session_lost(B, SessionHandle(1), now));
    assert_eq!(bench.pass(CAP)[0].1, "authenticate C");
}
