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
    // Asked again it says nothing: one that was added anew would not know.
    edge.stop_in_vain();
    // Nothing of it comes out by itself.
    assert_eq!(edge.at(50).after_batch(), []);
    let late = edge.at(100).after_batch();
    let dropped = Fate::Dropped(Counter::ParkedLate);
    assert_eq!(late, [dropped, Fate::Dropped(Counter::ParkedLate)]);
}

// Its notary says what is there when it dies: no packet may have gone on that is not.
#[test]
fn what_has_been_opened_is_in_the_logbook() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let packets = client.send_many(9);
    assert_eq!(edge.logbook(), []);
    edge.take((2, 0), 6, (1, 100));
    assert_eq!(edge.logbook(), [(SPI, 5, 2)], "what counts as seen");
    for (number, top) in [(3, 3), (5, 5), (4, 5)] {
        assert_eq!(edge.hear(&packets[number - 1]), Fate::Inside(number as u32));
        assert_eq!(edge.logbook(), [(SPI, 5, top)]);
    }
    // What it may not accept yet, and what is no packet of the client's, changes nothing.
    assert_eq!(edge.hear(&packets[7]), Fate::Waits);
    assert_eq!(edge.hear(&packets[2]), Fate::Dropped(Counter::Replayed));
    assert_eq!(edge.logbook(), [(SPI, 5, 5)]);
    // What waited goes on when it may, and not before that is written.
    assert_eq!(edge.bound(20, 100), inside(8..=8));
    assert_eq!(edge.logbook(), [(SPI, 5, 8)]);
    edge.stop();
    assert_eq!(edge.logbook(), [], "the tenure is over, and was told of");
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
    assert_eq!(edge.at(1).after_batch(), []);
    let due = edge.start + Duration::from_millis(2);
    assert_eq!(edge.core.next_deadline().unwrap().0, due);
    edge.at(2).after_batch();
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
fn who_may_send_one_more_is_told_of_in_a_while() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), 1, (1, 40));
    // After a silence at once; from then on there is no haste.
    for (number, ms) in [(1, 0), (2, 20), (3, 21)] {
        edge.at(ms).hear(&client.send());
        edge.after_batch();
        let told = if ms == 21 { vec![] } else { vec![(number, 0)] };
        assert_eq!(edge.progress(), told, "{number}");
        edge.bound(number + 1, 40);
    }
    edge.at(23).after_batch();
    assert_eq!(edge.progress(), [(3, 0)]);
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

// What had come while the numbers were here is carried: nobody else could take it.
#[test]
fn a_session_stops_behind_what_lies_in_the_rings() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let stop = || {
        Command::Lease(Lease::Stop {
            spi: SPI,
            term: 5,
            tell: true,
        })
    };
    edge.take((0, 0), ALL, (1, 9));
    edge.command(stop());
    assert_eq!(edge.hear(&client.send()), Fate::Inside(1));
    assert!(matches!(edge.send(1), Fate::Outside(_)));
    // The rings were not empty.
    let now = edge.now;
    edge.core.after_batch(&mut edge.umem, now, None);
    assert_eq!(edge.hear(&client.send()), Fate::Inside(2));
    assert_eq!(edge.core.leases.deadline(), Some(now + STOP_BY));
    assert_eq!(edge.stopped(), (2, 1, 0));
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    // They do not get empty.
    edge.take((2, 0), ALL, (2, 9));
    edge.command(stop());
    edge.now += STOP_BY;
    edge.core.after_batch(&mut edge.umem, edge.now, None);
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.stopped(), (3, 1, 0));
    // Numbers that come at once after it are another tenure's.
    edge.take((3, 0), ALL, (2, 9));
    edge.command(stop());
    edge.take((3, 0), 4, (7, 9));
    assert_eq!(edge.stopped(), (4, 1, 0));
    let Fate::Outside(sealed) = edge.send(1) else {
        panic!("not sealed");
    };
    assert_eq!(client.open(&sealed).0, 7);
    // Without an answer it stops at once.
    edge.command(Command::Lease(Lease::Stop {
        spi: SPI,
        term: 6,
        tell: false,
    }));
    assert_eq!(edge.send(2), Fate::Waits);
    edge.after_batch();
    assert!(edge.told().is_empty());
}

// Packets come at either edge, some twice, some late, while the session goes to and fro between them.
#[test]
fn whatever_comes_where_is_accepted_once_and_sent_with_new_numbers() {
    use rand::RngExt as _;
    let spec = spec(0);
    let mut client = Client::of(&spec);
    let mut edges = [0, 1].map(|_| Edge::new(slice::from_ref(&spec)));
    let mut rng = StdRng::seed_from_u64(7);
    let (mut accepted, mut sent) = (std::collections::BTreeSet::new(), 0);
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let (mut owner, mut given, mut lost) = (0, (0, 0, 0), 0);
    let mut took = |fates: Vec<Fate>, client: &mut Client| {
        for fate in fates {
            match fate {
                Fate::Inside(number) => assert!(accepted.insert(number), "{number} twice"),
                Fate::Outside(sealed) => {
                    let (sequence, _) = client.open(&sealed);
                    assert!(sequence > sent, "{sequence} after {sent}");
                    sent = sequence;
                }
                Fate::Waits => {}
                Fate::Dropped(Counter::ParkedLate) => lost += 1,
                Fate::Dropped(reason) => assert!(
                    matches!(reason, Counter::Replayed | Counter::ParkedFull),
                    "{reason:?}"
                ),
                other => panic!("{other:?}"),
            }
        }
    };
    let first = edges[0].take((0, 0), 20, (1, 10));
    took(first, &mut client);
    for step in 0..4000u64 {
        for edge in &mut edges {
            edge.now = edge.start + Duration::from_micros(step * 500);
        }
        let at = if rng.random_ratio(9, 10) {
            owner
        } else {
            1 - owner
        };
        let fate = match rng.random_range(0..10) {
            0..6 => {
                packets.push(client.send());
                let late = rng.random_range(0..4).min(packets.len() - 1);
                let which = packets.len() - 1 - late;
                edges[at].hear(&packets[which])
            }
            6 => {
                let which = rng.random_range(0..packets.len().max(1));
                match packets.get(which) {
                    Some(packet) => edges[at].hear(packet),
                    None => Fate::Waits,
                }
            }
            _ => edges[at].send(step as u32),
        };
        took(vec![fate], &mut client);
        let more = edges[owner].progress();
        let (top, used) = more.last().copied().unwrap_or((given.0, given.1));
        let raised = edges[owner].bound(top.max(given.0) + 20, used.max(given.1) + 10);
        took(raised, &mut client);
        if step % 301 == 300 {
            given = edges[owner].stop();
            owner = 1 - owner;
            let (top, used, missing) = given;
            let out = edges[owner].take((top, missing), top + 20, (used + 1, used + 10));
            took(out, &mut client);
        }
        for edge in &mut edges {
            let late = edge.after_batch();
            took(late, &mut client);
        }
    }
    assert!(
        accepted.len() > 1500 && sent > 300,
        "{} {sent}",
        accepted.len()
    );
    assert!(lost > 0, "some came to the wrong one for too long");
}

// However many stop at once, each says where.
#[test]
fn no_answer_is_lost_where_many_stop() {
    const MANY: u32 = 10_000;
    let mut edge = Edge::of_workers(0, 1, true, 16);
    for number in 0..MANY {
        let mut spec = spec(number % 100);
        spec.id = SessionId(u64::from(number) + 1);
        spec.inbound.as_mut().unwrap().spi = SPI + number;
        edge.add(&spec);
        edge.command(Command::Lease(Lease::Take {
            spi: SPI + number,
            term: 5,
            floor: 7,
            missing: 0,
            inbound: 9,
            first: 3,
            outbound: 9,
        }));
    }
    for number in 0..MANY {
        edge.command(Command::Lease(Lease::Stop {
            spi: SPI + number,
            term: number,
            tell: true,
        }));
    }
    let mut answered = 0;
    while answered < MANY {
        assert!(edge.core.leases.deadline().is_some() || !edge.core.unsent.is_empty());
        edge.after_batch();
        assert!(edge.core.unsent.len() <= STOPPED);
        for event in edge.told() {
            let WorkerEvent::Stopped { progress, term, .. } = event else {
                panic!("{event:?}");
            };
            let all = (progress.spi, progress.top, progress.sent, term);
            assert_eq!(all, (SPI + answered, 7, 2, answered));
            answered += 1;
        }
    }
    assert_eq!(edge.core.leases.tenures, 0);
}
