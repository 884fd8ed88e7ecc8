//! What waits, for how long, and who is asked meanwhile.

use std::slice;

use super::*;

#[test]
fn only_what_the_client_sent_claims_and_not_too_often() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let mut forged = client.send();
    *forged.last_mut().unwrap() ^= 1;
    let refused = Fate::Dropped(Counter::BadIcv);
    assert_eq!(edge.hear(&forged), refused);
    assert!(edge.sleeps(SPI), "a stranger takes no memory");
    assert_eq!(edge.claims(), []);
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.claims(), [(SPI, 2)]);
    // While that is under way nothing is looked at.
    assert_eq!(edge.at(19).hear(&client.send()), Fate::Waits);
    assert_eq!(edge.hear(&forged), Fate::Waits);
    assert_eq!(edge.claims(), []);
    assert_eq!(edge.at(20).hear(&forged), refused);
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.claims(), [(SPI, 4)]);
    let out = edge.take((0, 0), ALL, (1, 100));
    let fates = [Fate::Inside(2), Fate::Inside(3), refused, Fate::Inside(4)];
    assert_eq!(out, fates);
    // A copy of what was accepted here claims nothing afterwards.
    let last = client.send();
    assert_eq!(edge.at(40).hear(&last), Fate::Inside(5));
    edge.stop();
    assert_eq!(edge.hear(&last), Fate::Dropped(Counter::Replayed));
    assert!(edge.claims().is_empty() && edge.sleeps(SPI));
}

#[test]
fn a_packet_that_waited_has_its_ttl_lowered_once() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    assert_eq!(edge.send_from_lan(5), Fate::Waits);
    let out = edge.take((0, 0), ALL, (1, 100));
    let [Fate::Outside(sealed)] = &out[..] else {
        panic!("{out:?}");
    };
    let (_, packet) = client.open(sealed);
    let parsed = parse_inner(&packet).unwrap();
    assert_eq!((parsed.ttl, number(&packet)), (63, 5));
    assert_eq!(checksum(&packet[..20]), 0);
}

#[test]
fn what_waits_has_bounds_and_an_end() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(slice::from_ref(&spec)), Client::of(&spec));
    let of_session = usize::from(OF_SESSION);
    let fates = edge.hear_all(&client.send_many(of_session + 2));
    assert_eq!(fates[..of_session], waits(of_session));
    assert_eq!(fates[of_session], Fate::Dropped(Counter::ParkedFull));
    let at = edge.core.next_deadline().unwrap().0;
    assert_eq!(at, edge.start + PATIENCE);
    edge.now = at;
    let late = edge.after_batch();
    assert_eq!(late.len(), of_session);
    assert!(
        late.iter()
            .all(|f| *f == Fate::Dropped(Counter::ParkedLate))
    );
    assert_eq!(edge.take((0, 0), ALL, (1, 9)), []);
    // Also what waits anew for a limit that is raised too little is not kept for longer.
    edge.at(200).stop();
    edge.take((0, 0), 0, (1, 9));
    assert_eq!(edge.hear(&client.send()), Fate::Waits);
    assert_eq!(edge.at(290).bound(1, 9), []);
    assert_eq!(edge.at(299).after_batch(), []);
    let late = edge.at(300).after_batch();
    assert_eq!(late, [Fate::Dropped(Counter::ParkedLate)]);
}

#[test]
fn an_unknown_spi_is_asked_about_and_its_packets_wait() {
    let spec = spec(0);
    let (mut edge, mut client) = (Edge::new(&[]), Client::of(&spec));
    let asked = |edge: &mut Edge| -> Vec<u32> {
        let told = edge.told().into_iter().filter_map(|event| match event {
            WorkerEvent::UnknownSpi(spi) => Some(spi),
            _ => None,
        });
        told.collect()
    };
    assert_eq!(edge.hear_all(&client.send_many(3)), waits(3));
    assert_eq!(asked(&mut edge), [SPI]);
    edge.at(49).hear(&client.send());
    assert_eq!(asked(&mut edge), [0; 0]);
    edge.at(50).hear(&client.send());
    assert_eq!(asked(&mut edge), [SPI]);
    // The session: its first packet claims, and all wait on.
    assert_eq!(edge.at(60).add(&spec), []);
    assert_eq!(edge.claims(), [(SPI, 1)]);
    assert_eq!(edge.take((0, 0), ALL, (1, 9)), inside(1..=5));

    // One that nobody has.
    let mut lost = client.send();
    lost[34..38].copy_from_slice(&[9; 4]);
    let of_strange = usize::from(OF_STRANGE);
    assert_eq!(
        edge.hear_all(&vec![lost.clone(); of_strange]),
        waits(of_strange)
    );
    let dropped = || Fate::Dropped(Counter::UnknownSpi);
    assert_eq!(edge.hear(&lost), dropped());
    let late = edge.at(160).after_batch();
    assert_eq!(late.len(), of_strange);
    assert!(late.iter().all(|fate| *fate == dropped()));
    // A node that shares nothing.
    let mut other = Edge::of_workers(0, 1, false, 8);
    assert_eq!(other.hear(&lost), dropped());
    assert!(asked(&mut other).is_empty());
}

#[test]
fn strangers_have_few_questions_asked() {
    let mut edge = Edge::new(&[]);
    let mut strange = Client::of(&spec(0)).send();
    let mut asked = 0;
    for round in 0..20_000u32 {
        strange[34..38].copy_from_slice(&(0x4000_0000 + round).to_be_bytes());
        edge.now = edge.start + Duration::from_micros(u64::from(round) * 50);
        edge.hear(&strange);
        edge.after_batch();
        let told = edge.told();
        asked += told.len();
        assert!(edge.core.leases.parking.len() <= 1024);
    }
    // A second of it, and what is asked at once.
    assert!((5000..=6100).contains(&asked), "{asked}");
}
