//! Which numbers are used where, and what is told of it.

use std::slice;

use super::*;

#[test]
fn no_number_is_used_before_a_tenure_or_after_it() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.send(1), Fate::Waits);
    // First what came from outside.
    let out = edge.take((0, 0), ALL, (1, 100));
    assert_eq!(out[0], Fate::Inside(1));
    let [_, Fate::Outside(sealed)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(client.open(sealed), (1, inner(TARGET, CLIENT, 1)));
    assert_eq!(edge.hear_all(&client.send_many(2)), inside(2..=3));
    let Fate::Outside(sealed) = edge.send(2) else {
        panic!("not sealed");
    };
    assert_eq!(client.open(&sealed).0, 2);
    assert_eq!(edge.stop(), (3, 2, 0));
    assert!(edge.sleeps(SPI));
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.send(3), Fate::Waits);
    // Asked again it says the same.
    assert_eq!(edge.stop(), (3, 2, 0));
    // Nothing of it comes out by itself.
    assert_eq!(edge.at(50).after_batch(), []);
    let late = edge.at(100).after_batch();
    let dropped = Fate::Dropped(Counter::ParkedLate);
    assert_eq!(late, [dropped, Fate::Dropped(Counter::ParkedLate)]);
}

// Whatever the ledger says, this node never uses one of its own numbers twice.
#[test]
fn numbers_that_are_lent_twice_are_used_once() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let packets = client.send_many(3);
    edge.take((0, 0), ALL, (1, 100));
    assert_eq!(edge.hear_all(&packets), inside(1..=3));
    edge.send(1);
    edge.stop();
    edge.take((0, 0), ALL, (1, 100));
    let replayed = Fate::Dropped(Counter::Replayed);
    assert_eq!(edge.hear(&packets[2]), replayed);
    assert_eq!(edge.hear(&packets[0]), replayed);
    let Fate::Outside(sealed) = edge.send(2) else {
        panic!("not sealed");
    };
    assert_eq!(client.open(&sealed).0, 2);
}

#[test]
fn a_session_changes_hands_with_nothing_lost_and_nothing_twice() {
    let spec = spec(0);
    let (mut one, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let mut other = Edge::new(&[spec]);
    let packets = client.send_many(80);
    one.take((0, 0), ALL, (1, 100));
    // 30 and 79 are late; 5 is too far back to be handed over.
    for number in (1..=80).filter(|n| ![5, 30, 79].contains(n)) {
        let fate = one.hear(&packets[number - 1]);
        assert_eq!(fate, Fate::Inside(number as u32));
    }
    for number in 1..=10 {
        assert!(matches!(one.send(number), Fate::Outside(_)));
    }
    let (top, sent, missing) = one.stop();
    assert_eq!((top, sent, missing), (80, 10, 1 << 1 | 1 << 50));
    other.take((top, missing), ALL, (sent + 1, 200));
    let replayed = || Fate::Dropped(Counter::Replayed);
    for number in 1..=80 {
        let fate = other.hear(&packets[number - 1]);
        match number {
            30 | 79 => assert_eq!(fate, Fate::Inside(number as u32)),
            _ => assert_eq!(fate, replayed()),
        }
    }
    let Fate::Outside(sealed) = other.send(1) else {
        panic!("not sealed");
    };
    assert_eq!(client.open(&sealed).0, 11);
    // And back, where the late ones count as seen now.
    let (top, sent, missing) = other.stop();
    assert_eq!((top, sent, missing), (80, 11, 0));
    one.take((top, missing), ALL, (sent + 1, 300));
    assert_eq!(one.hear(&packets[29]), replayed());
    assert_eq!(one.hear_all(&client.send_many(2)), inside(81..=82));
    let Fate::Outside(sealed) = one.send(1) else {
        panic!("not sealed");
    };
    assert_eq!(client.open(&sealed).0, 12);
}

#[test]
fn what_lies_beyond_the_limit_waits_until_it_is_raised() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), 3, (1, 2));
    let fates = edge.hear_all(&client.send_many(6));
    assert_eq!(fates[..3], inside(1..=3));
    assert_eq!(fates[3..], waits(3));
    // How far the client is, only this tells: a gap may lie before it.
    assert_eq!(edge.claims(), [(SPI, 4)]);
    let mut forged = client.send();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(edge.at(20).hear(&forged), Fate::Dropped(Counter::BadIcv));
    assert_eq!(edge.bound(5, 2), inside(4..=5));
    assert_eq!(edge.bound(4, 1), [], "never less far");
    assert_eq!(edge.bound(9, 2), inside([6]));

    for number in 1..=2 {
        assert!(matches!(edge.send(number), Fate::Outside(_)));
    }
    assert_eq!(edge.send(3), Fate::Waits);
    assert_eq!(edge.send(4), Fate::Waits);
    let out = edge.bound(9, 3);
    let [Fate::Outside(sealed)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(client.open(sealed), (3, inner(TARGET, CLIENT, 3)));
    let out = edge.bound(9, 30);
    let [Fate::Outside(sealed)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(client.open(sealed), (4, inner(TARGET, CLIENT, 4)));
}

#[test]
fn progress_is_told_at_once_when_numbers_run_short_and_else_in_a_while() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), 100, (1, 40));
    let mut hear = |edge: &mut Edge, count| {
        assert_eq!(
            edge.hear_all(&client.send_many(count)).last(),
            Some(&Fate::Inside(client.sent))
        );
        edge.after_batch();
        edge.progress()
    };
    // After a silence at once.
    assert_eq!(hear(&mut edge, 1), [(1, 0)]);
    assert_eq!(hear(&mut edge, 1), []);
    assert_eq!(edge.at(4).after_batch(), []);
    let due = edge.start + Duration::from_millis(5);
    assert_eq!(edge.core.next_deadline().unwrap().0, due);
    edge.at(5).after_batch();
    assert_eq!(edge.progress(), [(2, 0)]);
    // Half of the 98 that are left is 49.
    assert_eq!(hear(&mut edge, 49), []);
    assert_eq!(hear(&mut edge, 1), [(52, 0)]);
    assert_eq!(hear(&mut edge, 24), []);
    assert_eq!(hear(&mut edge, 1), [(77, 0)]);
    // A quarter of 40 is 10.
    let send = |edge: &mut Edge, count| {
        (0..count).for_each(|number| drop(edge.send(number)));
        edge.after_batch();
        edge.progress()
    };
    assert_eq!(send(&mut edge, 29), []);
    assert_eq!(send(&mut edge, 1), [(77, 30)]);
    assert_eq!(send(&mut edge, 5), []);
    assert_eq!(send(&mut edge, 1), [(77, 36)]);
    edge.bound(100, 76);
    assert_eq!(send(&mut edge, 1), []);
    edge.at(100).after_batch();
    assert_eq!(edge.progress(), [(77, 37)]);
    assert_eq!(edge.core.leases.deadline(), None);
}

#[test]
fn progress_that_finds_no_room_is_told_later() {
    let spec = spec(0);
    let mut client = Client::of(&spec);
    let mut edge = Edge::of_workers(0, 1, true, 1);
    edge.add(&spec);
    edge.take((0, 0), 4, (1, 9));
    edge.hear(&client.send());
    edge.told();
    // The queue is full of something else.
    edge.core.send_quietly(WorkerEvent::UnknownSpi(1));
    edge.hear_all(&client.send_many(2));
    edge.after_batch();
    let again = edge.core.next_deadline().unwrap().0;
    assert_eq!(again, edge.start + REPORT_AGAIN);
    assert_eq!(edge.progress(), []);
    edge.now = again;
    edge.after_batch();
    assert_eq!(edge.progress(), [(3, 0)]);
}

#[test]
fn a_session_that_is_removed_says_how_far_it_came() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), ALL, (1, 9));
    edge.hear_all(&client.send_many(2));
    edge.send(1);
    edge.command(Command::RemoveSession(spec.id));
    assert_eq!(edge.progress(), [(2, 1)]);
    assert_eq!(edge.core.leases.tenures, 0);
    edge.add(&spec);
    assert_eq!(edge.hear(&client.send()), Fate::Waits, "nothing is lent");
}

// Nothing on the way of a packet grows.
#[test]
fn packets_allocate_nothing() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let before = edge.core.leases.parking.len();
    for round in 0..50u64 {
        let taken = round * 10;
        edge.take((taken, 0), taken + 5, (round * 10 + 1, round * 10 + 9));
        let room = edge.core.leases.news.capacity();
        edge.hear_all(&client.send_many(10));
        (0..10).for_each(|number| drop(edge.send(number)));
        assert_eq!(edge.core.leases.news.capacity(), room);
        assert!(edge.core.leases.news.len() <= 1 && !edge.core.leases.missed);
        edge.at(round).after_batch();
        edge.bound(ALL, taken + 10);
        edge.after_batch();
        edge.stop();
        edge.told();
    }
    assert_eq!(before, 0);
}
