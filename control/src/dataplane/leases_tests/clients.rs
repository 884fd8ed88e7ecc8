//! Where a client is: on the LAN, and among workers.

use std::slice;

use super::*;

#[test]
fn the_lan_is_told_by_the_first_packet_and_no_more_after_the_last() {
    let [old, new] = [spec(0), spec(1)];
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&old)), Client::of(&old));
    edge.hear(&client.send());
    assert!(!edge.announces());
    edge.take((0, 0), ALL, (1, 9));
    assert!(edge.announces());
    let here = |edge: &mut Edge| -> Vec<bool> {
        let told = edge.told().into_iter().filter_map(|event| match event {
            WorkerEvent::InnerActive { here, .. } => Some(here),
            _ => None,
        });
        told.collect()
    };
    assert_eq!(here(&mut edge), [true]);
    // Another session of the client's is in use here: nothing changes.
    edge.add(&new);
    let spi = SPI + 1;
    edge.command(Command::Lease(Lease::Take {
        spi,
        term: 5,
        floor: 0,
        missing: 0,
        inbound: ALL,
        first: 1,
        outbound: 9,
    }));
    let mut later = Client::of(&new);
    assert_eq!(edge.hear(&later.send()), Fate::Inside(1));
    edge.stop();
    assert!(edge.announces());
    let (term, tell) = (1, false);
    edge.command(Command::Lease(Lease::Stop { spi, term, tell }));
    assert!(!edge.announces());
    assert_eq!(here(&mut edge), [false]);
    // Nobody on the LAN brings it back; its client does.
    assert_eq!(edge.hear(&later.send()), Fate::Waits);
    assert!(!edge.announces());
    edge.command(Command::Lease(Lease::Take {
        spi,
        term: 5,
        floor: 1,
        missing: 0,
        inbound: ALL,
        first: 2,
        outbound: 9,
    }));
    assert!(edge.announces());
    assert_eq!(here(&mut edge), [true]);
}

#[test]
fn the_worker_that_has_the_session_has_its_numbers() {
    let spec = spec(0);
    let mut odd = spec.clone();
    odd.inbound.as_mut().unwrap().spi = SPI + 1;
    let mut client = Client::of(&odd);
    let mut edges = [0, 1].map(|worker| Edge::of_workers(worker, 2, true, 64));
    let strange = client.send();
    // By way of the first, which may have what somebody wrote by hand, to the one whose it would be.
    let to = |worker| Fate::HandedOver(worker, Door::Outside);
    assert_eq!(edges[1].hear(&strange), to(0));
    edges[0].core.from_other = true;
    assert_eq!(edges[0].hear(&strange), to(1));
    edges[0].core.from_other = false;
    edges[1].core.from_first = true;
    assert_eq!(edges[1].hear(&strange), Fate::Waits);
    edges[1].core.from_first = false;
    for edge in &mut edges {
        edge.add(&odd);
        let out = edge.command(Command::Lease(Lease::Take {
            spi: SPI + 1,
            term: 5,
            floor: 0,
            missing: 0,
            inbound: ALL,
            first: 1,
            outbound: 9,
        }));
        match edge.core.worker {
            0 => assert_eq!(out, []),
            _ => assert_eq!(out, inside([1])),
        }
    }
    let note = edges[1].core.next_note();
    assert_eq!(note, Some((0, Note::ClientSends(PEER))));
    let [first, second] = &mut edges;
    first.core.hear(note.unwrap().1, &mut first.umem, first.now);
    assert!(first.announces());
    assert_eq!(first.send(1), Fate::HandedOver(1, Door::Inner));
    assert!(matches!(second.send(1), Fate::Outside(_)));
    for edge in [&mut *first, &mut *second] {
        edge.command(Command::Lease(Lease::Stop {
            spi: SPI + 1,
            term: 3,
            tell: true,
        }));
    }
    let stopped = |edge: &mut Edge| {
        edge.after_batch();
        let told = edge.told();
        let stopped = told
            .iter()
            .filter(|e| matches!(e, WorkerEvent::Stopped { .. }));
        stopped.count()
    };
    assert_eq!((stopped(first), stopped(second)), (0, 1));
    let note = second.core.next_note();
    assert_eq!(note, Some((0, Note::ClientLeft(PEER))));
    first.core.hear(note.unwrap().1, &mut first.umem, first.now);
    assert!(!first.announces());
    assert_eq!(first.core.next_note(), Some((1, Note::Left(PEER))));
}

// Fresh keys for a client that is here: the old ones go, and the LAN notices nothing.
#[test]
fn a_client_stays_announced_through_a_rekey() {
    let [old, new] = [spec(0), spec(1)];
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&old)), Client::of(&old));
    edge.take((0, 0), ALL, (1, 9));
    edge.hear(&client.send());
    edge.command(Command::AddSession {
        spec: Arc::new(new.clone()),
        group: PEER,
        succeeds: Some(Sending::WhenHeard),
    });
    let spi = SPI + 1;
    let take = |floor| {
        Command::Lease(Lease::Take {
            spi,
            term: 5,
            floor,
            missing: 0,
            inbound: ALL,
            first: floor + 1,
            outbound: 9,
        })
    };
    edge.command(take(0));
    edge.command(Command::SendOn(new.id));
    edge.command(Command::RemoveSession(old.id));
    assert!(edge.announces());
    // It goes, and comes back by what was not the session that is sent on.
    let (term, tell) = (2, false);
    edge.command(Command::Lease(Lease::Stop { spi, term, tell }));
    assert!(!edge.announces());
    edge.command(take(5));
    let mut client = Client::of(&new);
    assert_eq!(
        edge.hear_all(&client.send_many(6)).last(),
        Some(&Fate::Inside(6))
    );
    assert!(edge.announces());
}

// The answers to what waited must find this gateway.
#[test]
fn the_lan_hears_of_a_client_before_it_hears_of_its_packets() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    // Numbers that nobody has claimed here: there is no client yet.
    assert_eq!(edge.take_and_tell((0, 0), ALL, (1, 9)), []);
    assert!(!edge.announces());
    edge.stop();
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert!(!edge.announces(), "it may be elsewhere");
    let fates = edge.take_and_tell((0, 0), ALL, (10, 19));
    let (packet, told) = fates.split_last().unwrap();
    assert_eq!(*packet, Fate::Inside(1));
    assert!(!told.is_empty() && told.iter().all(|fate| *fate == Fate::Announced));
    assert!(edge.announces());
}

// A drain: the client is elsewhere already, and its targets have not heard of it yet.
#[test]
fn answers_go_on_to_the_gateway_that_has_the_client_now() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    edge.take((0, 0), ALL, (1, 9));
    assert_eq!(edge.hear(&client.send()), Fate::Inside(1));
    edge.stop();
    assert_eq!(edge.send(1), Fate::Waits, "who has the client is not known");
    let next = [2, 0, 0, 0, 0, 0x33];
    let mut told = vec![0xff; 6];
    told.extend(next);
    told.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    told.extend(next);
    told.extend(CLIENT);
    told.extend([0; 6]);
    told.extend(CLIENT);
    told.resize(60, 0);
    let mut frame = edge.frame(&told);
    let way = edge.core.take_inside(&mut frame, &mut edge.umem, edge.now);
    assert!(matches!(way, Way::Done), "{way:?}");
    edge.umem.free(frame);
    let sent_on = |edge: &mut Edge| -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((frame, way)) = edge.core.next_outgoing() {
            assert!(matches!(way, Way::Lan), "{way:?}");
            all.push(edge.umem.packet(&frame).to_vec());
            edge.umem.free(frame);
        }
        all
    };
    let waited = sent_on(&mut edge);
    assert_eq!(waited.len(), 1);
    let header = [&next[..], &[2, 0, 0, 0, 0, 3, 8, 0]].concat();
    assert_eq!((&waited[0][..14], number(&waited[0])), (&header[..], 1));
    assert_eq!(edge.send(2), Fate::Announced, "it goes by the LAN at once");
    // The client comes back: its answers are sealed here again.
    let (packet, fate) = (client.send(), Fate::Inside(2));
    assert_eq!(edge.hear(&packet), Fate::Waits);
    assert_eq!(edge.take((1, 0), ALL, (10, 19)), [fate]);
    assert!(matches!(edge.send(3), Fate::Outside(_)));
}
