//! Gateways that authenticate and are found dead at once.

use super::*;

/// How often `gateway` is asked while every session with it is dead after `life`, within `span`.
fn asked(bench: &mut Bench, gateway: IpAddr, life: Duration, span: Duration) -> usize {
    let end = bench.now + span;
    let wanted = format!("authenticate {}", name(gateway));
    let mut count = 0;
    let mut said = bench.ask(Some(gateway));
    while bench.now < end {
        if said.contains(&wanted) {
            count += 1;
            bench.made(gateway);
            bench.pass(life);
            bench.then(|kms, now| kms.on_dead(gateway, now));
            said = bench.ask(Some(gateway));
        } else {
            let Some((at, _)) = bench.kms.next_deadline() else {
                panic!("nothing will happen any more: {said:?}")
            };
            bench.now = bench.now.max(at);
            said = bench.then(|kms, now| kms.poll(now));
        }
    }
    count
}

// The only gateway there is has a dead link: it is asked less and less, and never given up.
#[test]
fn a_lonely_gateway_that_keeps_dying_is_asked_less_and_less() {
    let mut bench = Bench::new(0, 3);
    bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
    let life = Duration::from_millis(20);
    let at_first = asked(&mut bench, A, life, CAP * 3);
    assert!((3..=9).contains(&at_first), "{at_first}");
    let later = asked(&mut bench, A, life, CAP * 20);
    assert!((18..=45).contains(&later), "{later}");
}

// The first death costs nobody any time: a gateway that was restarted is asked at once.
#[test]
fn one_early_death_is_free() {
    let mut bench = Bench::new(0, 3);
    bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
    bench.in_use(A);
    bench.then(|kms, now| kms.on_dead(A, now));
    assert_eq!(bench.ask(Some(A)), ["authenticate A"]);
}

// A drained gateway is left for one whose link is out, comes back, is left again: next time it is the
// healthy one that is asked.
#[test]
fn a_drain_gets_past_a_gateway_that_keeps_dying() {
    let mut bench = Bench::new(0, 3);
    bench.in_use(A);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let said = bench.ask(Some(A));
        asked.extend(said.clone());
        if said == ["authenticate B"] {
            bench.made(B);
            bench.pass(Duration::from_millis(20));
            bench.then(|kms, now| kms.on_dead(B, now));
        }
    }
    assert_eq!(
        asked,
        ["authenticate B", "authenticate B", "authenticate C"]
    );
}

// Who was passed over is told, with the reason.
#[test]
fn the_rejection_names_who_was_passed_over() {
    let mut bench = Bench::new(0, 3);
    bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
    for _ in 0..2 {
        assert_eq!(bench.ask(Some(A)), ["authenticate A"]);
        bench.made(A);
        bench.then(|kms, now| kms.on_dead(A, now));
    }
    bench.kms.request(ONE, Some(A), bench.now);
    let Some(Action::Rejected {
        tried, retry_at, ..
    }) = bench.kms.next_action()
    else {
        panic!("not rejected")
    };
    let [(gateway, reason)] = &tried[..] else {
        panic!("{tried:?}")
    };
    assert_eq!(*gateway, A);
    assert!(reason.contains("its last 2 sessions"), "{reason}");
    assert!(retry_at > bench.now && retry_at <= bench.now + FIRST);
}

// A session that lives for longer than the longest wait clears its gateway's name.
#[test]
fn a_long_life_is_forgiven() {
    let mut bench = Bench::new(0, 3);
    bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
    for life in [0, 0, 0, 1_001, 0] {
        bench.pass(CAP);
        assert_eq!(bench.ask(Some(A)), ["authenticate A"]);
        bench.made(A);
        bench.pass(Duration::from_millis(life));
        bench.then(|kms, now| kms.on_dead(A, now));
    }
    assert_eq!(bench.ask(Some(A)), ["authenticate A"]);
}

// However that session ended: deleted, or replaced by a newer one.
#[test]
fn a_long_life_is_forgiven_without_a_death() {
    for replaced in [false, true] {
        let mut bench = Bench::new(0, 3);
        bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
        bench.in_use(A);
        bench.then(|kms, now| kms.on_dead(A, now));
        bench.in_use(A);
        bench.pass(CAP + FIRST);
        if !replaced {
            bench.then(|kms, now| kms.on_session_lost(A, SessionHandle(2), now));
        }
        bench.in_use(A);
        bench.then(|kms, now| kms.on_dead(A, now));
        assert_eq!(bench.ask(Some(A)), ["authenticate A"], "{replaced}");
    }
}

// A keyed gateway that is to be left is not passed over, and nobody waits for it.
#[test]
fn the_gateway_to_leave_is_not_among_those_passed_over() {
    let mut bench = Bench::new(0, 3);
    bench.kms.set_clusters(vec![(ONE, vec![A])], bench.now);
    for _ in 0..2 {
        bench.in_use(A);
        bench.then(|kms, now| kms.on_dead(A, now));
    }
    bench.in_use(A);
    assert_eq!(bench.ask(Some(A)), ["rejected 1 "]);
}
