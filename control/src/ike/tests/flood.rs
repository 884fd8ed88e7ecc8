//! Floods of first messages, of refusals, and of senders that are who they say.

use super::*;

/// First messages of so many sessions, as from `from`.
fn first_messages(pair: &mut Pair, count: usize, from: &str) -> Vec<Transmit> {
    for _ in 0..count {
        let wish = pair.wish();
        pair.initiate(wish);
    }
    let mut messages = pair.a.take();
    for message in &mut messages {
        message.local = from.parse().unwrap();
    }
    messages
}

#[test]
fn half_open_sessions_are_bounded_in_number_and_time() {
    let mut pair = Pair::with(|_, b| {
        b.half_open_limit = 5;
        b.half_open_per_source = 100;
        b.cookie_threshold = usize::MAX;
    });
    let messages = first_messages(&mut pair, 9, "198.51.100.7:500");
    for t in &messages {
        assert_eq!(pair.deliver(t).len(), 1);
    }
    let stats = pair.b.engine.stats();
    assert_eq!(
        (stats.sas, stats.half_open, stats.half_open_evicted),
        (5, 5, 4)
    );
    // The newest are still there: their repetition is known.
    for t in &messages[4..] {
        pair.deliver(t);
    }
    assert_eq!(pair.b.engine.stats().repeated, 5);
    pair.now += Duration::from_secs(10);
    pair.b.engine.handle_timeout(pair.now, &mut pair.b.owner);
    let stats = pair.b.engine.stats();
    assert_eq!(
        (stats.sas, stats.half_open, stats.half_open_expired),
        (0, 0, 5)
    );
    assert_eq!(pair.b.engine.next_timeout(), None);
    assert!(pair.b.events.is_empty());
}

#[test]
fn one_source_can_not_take_all_slots() {
    let mut pair = Pair::with(|_, b| b.cookie_threshold = usize::MAX);
    // Half of its slots are free for the taking; for the rest it must show that it is there.
    let mut answers = Vec::new();
    for t in first_messages(&mut pair, 12, "198.51.100.7:500") {
        answers.extend(pair.deliver(&t));
    }
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.cookies_sent), (4, 8));
    let returned: Vec<Transmit> = answers[4..].iter().flat_map(|t| pair.deliver(t)).collect();
    let served = returned.iter().flat_map(|t| pair.deliver(t)).count();
    let stats = pair.b.engine.stats();
    assert_eq!(
        (served, stats.half_open, stats.half_open_refused),
        (4, 8, 4)
    );
    // Another port or another host of its IPv6 network is no other source; another address is.
    for (from, half_open) in [
        ("198.51.100.7:4500", 8),
        ("[2001:db8::1]:500", 12),
        ("[2001:db8::2]:500", 12),
        ("198.51.100.8:500", 16),
    ] {
        for t in first_messages(&mut pair, 5, from) {
            pair.b.receive(pair.now, &t);
        }
        assert_eq!(pair.b.engine.stats().half_open, half_open, "{from}");
    }
}

#[test]
fn a_true_peer_gets_through_when_all_slots_are_taken() {
    let mut pair = Pair::with(|_, b| {
        b.half_open_limit = 64;
        b.cookie_threshold = 0;
    });
    for host in 0..=255 {
        // Each returns its cookie, and says no more.
        for t in first_messages(&mut pair, 1, &format!("203.0.113.{host}:500")) {
            for answer in pair.b.receive(pair.now, &t) {
                for mut returned in pair.a.receive(pair.now, &answer) {
                    returned.local = t.local;
                    pair.b.receive(pair.now, &returned);
                }
            }
        }
    }
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.half_open_evicted), (64, 192));
    let wish = pair.wish();
    pair.initiate(wish);
    assert_eq!(pair.run(), 6);
    assert!(pair.a.established().is_some() && pair.b.established().is_some());
}

#[test]
fn a_refusal_frees_the_slot_and_is_told_again() {
    let mut pair = Pair::with(|_, b| b.half_open_limit = 1);
    let stranger = Initiate {
        auth: psk("guess").into(),
        ..pair.wish()
    };
    pair.initiate(stranger.clone());
    let first = pair.a.take().remove(0);
    let second = pair.deliver(&first).remove(0);
    let third = pair.deliver(&second).remove(0);
    let refusal = pair.deliver(&third);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.sas, refusal.len()), (0, 1, 1));
    // Its repetition gets the same answer while it lasts, and no new hearing.
    assert_eq!(pair.deliver(&third), refusal);
    assert_eq!(pair.b.engine.stats().authentication_failed, 1);
    pair.initiate(stranger);
    pair.run();
    assert_eq!(pair.b.engine.stats().authentication_failed, 2);
    assert_eq!(pair.b.engine.stats().half_open_evicted, 0);
    pair.pass(Duration::from_secs(11));
    assert_eq!(pair.b.engine.stats().sas, 0);
}

#[test]
fn last_answers_are_bounded() {
    let mut pair = Pair::with(|_, b| b.last_answers_limit = 3);
    let (_, up) = pair.up();
    for attempt in 0..10 {
        // Wrong keys, and right ones that get no child.
        pair.b.owner.addresses = Err(AssignRefused);
        let wish = Initiate {
            auth: psk(if attempt % 2 == 0 { "guess" } else { "secret" }).into(),
            ..pair.wish()
        };
        pair.initiate(wish);
        for first in pair.a.take() {
            for second in pair.deliver(&first) {
                for third in pair.deliver(&second) {
                    pair.b.receive(pair.now, &third);
                }
            }
        }
    }
    let stats = pair.b.engine.stats();
    assert_eq!(
        (stats.sas, stats.half_open, stats.last_answers_evicted),
        (4, 0, 7)
    );
    // What is established is never a victim.
    pair.b.engine.check_liveness(pair.now, up);
    assert_eq!(pair.b.take().len(), 1);
}

#[test]
fn cookies_are_asked_for_from_the_threshold_on() {
    let mut pair = Pair::with(|_, b| b.cookie_threshold = 2);
    for _ in 0..4 {
        let wish = pair.wish();
        pair.initiate(wish);
    }
    let answers: Vec<_> = pair.a.take().iter().flat_map(|t| pair.deliver(t)).collect();
    assert_eq!(answers.len(), 4);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.cookies_sent), (2, 2));
    // From another address the cookie is worth nothing.
    let mut returned = pair.deliver(&answers[2]).remove(0);
    returned.local = "198.51.100.8:500".parse().unwrap();
    pair.deliver(&returned);
    let stats = pair.b.engine.stats();
    assert_eq!(
        (stats.half_open, stats.cookies_wrong, stats.cookies_sent),
        (2, 1, 3)
    );
    // From the right one, it is, also half a minute later; but not after two.
    pair.now += Duration::from_secs(31);
    let right = pair.deliver(&answers[3]).remove(0);
    assert_eq!(pair.deliver(&right).len(), 1);
    assert_eq!(pair.b.engine.stats().half_open, 3);
    pair.now += Duration::from_secs(90);
    returned.local = pair.a.address;
    pair.deliver(&returned);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.half_open, stats.cookies_wrong), (3, 2));
}
