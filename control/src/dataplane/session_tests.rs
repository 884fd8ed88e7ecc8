use super::*;
use crate::esp::Marks;
use crate::sadb::{Cipher, Key, Producer, SaSpec};

fn roaming(roams: bool, gateway: bool) -> Session {
    let (local, remote) = ("192.0.2.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
    let mut spec = SessionSpec::new(local, remote, Producer::Ike);
    spec.encap = Some(UdpEncap {
        local_port: 4500,
        remote_port: 40_001,
    });
    spec.roams = roams;
    spec.gateway = gateway.then_some(remote);
    Session::new(Arc::new(spec), 0, Backend::Ring).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_session_follows_its_peer_and_not_too_often() {
    let now = Instant::now();
    let mut session = roaming(true, false);
    assert!(!session.may_follow(at("203.0.113.9:40001"), now));
    let new = at("203.0.113.10:40002");
    assert!(session.may_follow(new, now) && session.move_to(new, now));
    assert!(!session.move_to(new, now), "no news");
    let mut buffer = [0; 100];
    let marks = Marks::default();
    let outer = &mut session.awake().unwrap().outer;
    let packet = outer.write(&mut buffer, 40..100, marks).unwrap();
    let header = &buffer[packet];
    assert_eq!(header[12..20], [192, 0, 2, 1, 203, 0, 113, 10]);
    assert_eq!(header[20..24], [0x11, 0x94, 0x9C, 0x42]);

    let next = at("203.0.113.11:1");
    assert!(!session.may_follow(next, now + STAY / 2));
    assert!(session.may_follow(next, now + STAY));
    // The core has heard it by IKE.
    assert!(session.move_to(at("203.0.113.12:2"), now));
    assert!(
        !session.move_to(at("[2001:db8::1]:2"), now),
        "another IP version"
    );
    assert_eq!(session.peer_at(), at("203.0.113.12:2"));
}

#[test]
fn only_peers_behind_a_nat_are_followed_and_gateways_stay() {
    let now = Instant::now();
    let elsewhere = at("203.0.113.66:40001");
    assert!(!roaming(false, false).may_follow(elsewhere, now));
    assert!(!roaming(true, true).may_follow(elsewhere, now));
    assert!(roaming(true, true).may_follow(at("203.0.113.9:7"), now));
}

// Whoever has no NAT before it follows nobody but a client that said that it would use another port.
#[test]
fn a_port_of_its_own_is_followed_at_the_same_address() {
    let now = Instant::now();
    let mut spec = SessionSpec::clone(&roaming(false, false).spec);
    spec.own_port = true;
    let mut session = Session::new(Arc::new(spec), 0, Backend::Ring).unwrap();
    assert!(!session.may_follow(at("203.0.113.66:50000"), now));
    assert!(session.may_follow(at("203.0.113.9:50000"), now));
    let mut spec = SessionSpec::clone(&roaming(false, true).spec);
    spec.own_port = true;
    let client = Session::new(Arc::new(spec), 0, Backend::Ring);
    assert!(!client.unwrap().may_follow(at("203.0.113.9:50000"), now));
}

#[test]
fn a_session_is_sent_from_its_own_port_until_it_goes_back() {
    let now = Instant::now();
    let mut session = roaming(true, true);
    let ports = |session: &mut Session| {
        let mut buffer = [0; 100];
        let marks = Marks::default();
        let outer = &mut session.awake().unwrap().outer;
        let packet = outer.write(&mut buffer, 40..100, marks).unwrap();
        let port =
            |at| u16::from_be_bytes([buffer[packet.start + at], buffer[packet.start + at + 1]]);
        (port(20), port(22))
    };
    assert!(session.use_port(Some(50_000)) && !session.use_port(Some(50_000)));
    assert_eq!(ports(&mut session), (50_000, 40_001));
    assert!(session.move_to(at("203.0.113.9:40002"), now));
    assert_eq!(ports(&mut session), (50_000, 40_002));
    assert!(session.use_port(None));
    assert_eq!(ports(&mut session), (4500, 40_002));
    // Between other addresses nothing is known of the port.
    session.use_port(Some(50_000));
    session.relocate(Arc::clone(&session.spec), now).unwrap();
    assert_eq!(
        (session.port(), ports(&mut session)),
        (None, (4500, 40_001))
    );
}

/// Numbered sessions with one gateway, as a client has them.
fn session(number: u8, sending: Sending) -> Session {
    let [local, gateway] = ["198.51.100.7", "192.0.2.1"].map(|a| a.parse().unwrap());
    let mut spec = SessionSpec::new(local, gateway, Producer::Ike);
    let sa = |spi: u32, key: u8| {
        let key = Key::new(&[key; 32]).unwrap();
        SaSpec::new(spi, Cipher::Aes256Gcm, key, [0; 4].into())
    };
    spec.id = SessionId(number.into());
    spec.inbound = Some(sa(0x1000 + u32::from(number), number));
    spec.outbound = Some(sa(0x2000 + u32::from(number), number + 100));
    spec.gateway = Some(gateway);
    let mut session = Session::new(Arc::new(spec), 0, Backend::Ring).unwrap();
    session.sending = sending;
    session
}

#[test]
fn sessions_are_found_by_spi_in_their_place_or_elsewhere() {
    let mut sessions = Sessions::default();
    // 1 and 2 have places of their own; 3 has the same place as 1, 4 one far away.
    let spis = [0x0050_0000, 0x0070_0001, 0x0090_0000, 0x000F_FFFF];
    for (number, spi) in (1..).zip(spis) {
        let mut new = session(number, Sending::AtOnce);
        let mut spec = SessionSpec::clone(&new.spec);
        spec.inbound.as_mut().unwrap().spi = spi;
        new = Session::new(Arc::new(spec), 0, Backend::Ring).unwrap();
        sessions.insert(new);
    }
    let found = |sessions: &Sessions, spi| {
        let index = sessions.by_spi(spi)?;
        sessions.get(index).map(|session| session.spec.id.0)
    };
    let all = |sessions: &Sessions| spis.map(|spi| found(sessions, spi));
    assert_eq!(all(&sessions), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(
        (sessions.by_spi(spis[0]), sessions.by_spi(spis[1])),
        (Some(0), Some(1))
    );
    assert!(
        sessions.slots.len() <= 4,
        "nobody makes us take memory by an SPI"
    );
    // The low bits alone are nobody's.
    assert_eq!(found(&sessions, 0x0060_0000), None);
    sessions.remove(SessionId(1));
    assert_eq!(all(&sessions), [None, Some(2), Some(3), Some(4)]);
    sessions.remove(SessionId(3));
    sessions.remove(SessionId(4));
    assert_eq!(all(&sessions), [None, Some(2), None, None]);
    assert!(sessions.by_spi.is_empty());
}

#[test]
fn a_session_without_traffic_sleeps_and_one_with_does_not() {
    let mut sessions = Sessions::default();
    let [idle, busy] = [1, 2].map(|number| sessions.insert(session(number, Sending::AtOnce)));
    let mut buffer = [0; 128];
    let mut send = |sessions: &mut Sessions, index: usize| {
        let outbound = sessions.get_mut(index).unwrap().outbound().unwrap();
        outbound.seal_dummy(&mut buffer, 32, 20).unwrap();
    };
    let sleeps = |sessions: &Sessions, index: usize| sessions.get(index).unwrap().sleeps();
    send(&mut sessions, idle);
    // Each is looked at once in so many calls.
    for round in 0..3 {
        send(&mut sessions, busy);
        assert!(!sleeps(&sessions, busy));
        assert_eq!(sleeps(&sessions, idle), round > 1, "round {round}");
        (0..LOOKS).for_each(|_| sessions.look());
    }
    assert!(sleeps(&sessions, idle) && !sleeps(&sessions, busy));
    send(&mut sessions, idle);
    assert!(!sleeps(&sessions, idle));
}

#[test]
fn a_successor_receives_at_once_and_leads_when_told() {
    let gateway = "192.0.2.1".parse().unwrap();
    let mut sessions = Sessions::default();
    let leader = |sessions: &Sessions| {
        let index = sessions.by_gateway(gateway)?;
        sessions.get(index).map(|session| session.spec.id.0)
    };
    sessions.insert(session(1, Sending::AtOnce));
    let second = sessions.insert(session(2, Sending::WhenHeard));
    sessions.insert(session(3, Sending::Told));
    // Heartbeats go by the first one still, and packets for all of them are taken.
    assert_eq!(leader(&sessions), Some(1));
    assert!((1..=3).all(|n| sessions.by_spi(0x1000 + n).is_some()));
    assert_eq!(sessions.newest_of(0), Some(SessionId(1)));
    // An answer belongs to the one that asked.
    let asked = |spi| {
        sessions
            .sending_to(gateway, spi)
            .and_then(|index| sessions.get(index))
            .map(|s| s.spec.id.0)
    };
    assert_eq!(
        [asked(0x2001), asked(0x2002), asked(0x2009)],
        [Some(1), Some(2), None]
    );

    sessions.lead(second);
    assert_eq!(leader(&sessions), Some(2));
    sessions.remove(SessionId(1));
    assert_eq!(leader(&sessions), Some(2));
    // Without any that sends, the one that may soonest; then the last.
    assert_eq!(sessions.newest_of(0), Some(SessionId(2)));
    sessions.remove(SessionId(2));
    assert_eq!(leader(&sessions), Some(3));
    sessions.remove(SessionId(3));
    assert_eq!(leader(&sessions), None);
}

#[test]
fn only_what_has_changed_is_shown_anew() {
    let mut sessions = Sessions::default();
    let shown = |sessions: &mut Sessions, all| -> Vec<Option<usize>> {
        let pieces = sessions.take_changed(all);
        pieces.map(|piece| piece.map(Iterator::count)).collect()
    };
    for number in 0..=PIECE as u32 {
        let mut spec = SessionSpec::clone(&session(1, Sending::AtOnce).spec);
        spec.id = SessionId(u64::from(number) + 1);
        spec.inbound.as_mut().unwrap().spi = 0x0050_0000 + number;
        sessions.insert(Session::new(Arc::new(spec), 0, Backend::Ring).unwrap());
    }
    assert_eq!(shown(&mut sessions, false), [Some(PIECE), Some(1)]);
    assert_eq!(shown(&mut sessions, false), [None, None]);
    sessions.by_id_mut(SessionId(7)).unwrap().announced = true;
    assert_eq!(shown(&mut sessions, false), [Some(PIECE), None]);
    sessions.remove(SessionId(PIECE as u64 + 1));
    assert_eq!(shown(&mut sessions, false), [None, Some(0)]);
    sessions.unannounce(None);
    assert_eq!(shown(&mut sessions, false), [Some(PIECE), Some(0)]);
    assert_eq!(shown(&mut sessions, true), [Some(PIECE), Some(0)]);
}

// Nothing that was used or seen before it fell asleep is used or accepted again.
#[test]
fn a_session_wakes_where_it_was() {
    let mut there = session(1, Sending::AtOnce);
    let mut spec = SessionSpec::clone(&there.spec);
    std::mem::swap(&mut spec.inbound, &mut spec.outbound);
    let mut here = Session::new(Arc::new(spec), 0, Backend::Ring).unwrap();
    let mut packets = Vec::new();
    for number in 1..=3 {
        let mut buffer = [0; 128];
        let esp = there.outbound().unwrap().seal_dummy(&mut buffer, 32, 20);
        packets.push((buffer, esp.unwrap()));
        assert_eq!(there.sealed(), number);
        (0..3).for_each(|_| there.look());
        assert!(there.sleeps());
        assert_eq!(there.sealed(), number);
    }
    let open = |here: &mut Session, (buffer, esp): &([u8; 128], std::ops::Range<usize>)| {
        let mut buffer = *buffer;
        here.inbound().unwrap().open(&mut buffer, esp.clone())
    };
    assert_eq!(open(&mut here, &packets[1]).unwrap().sequence, 2);
    (0..3).for_each(|_| here.look());
    assert!(here.sleeps());
    assert!(open(&mut here, &packets[1]).is_err(), "a replay");
    assert!(open(&mut here, &packets[0]).is_err(), "one that was late");
    assert_eq!(open(&mut here, &packets[2]).unwrap().sequence, 3);
    assert_eq!(here.opened(), 1);
}

// An SPI that somebody chose must not make the table larger than its sessions, whatever comes first.
#[test]
fn chosen_spis_leave_few_places_free() {
    let mut sessions = Sessions::default();
    for number in 1..=3000_u32 {
        let mut spec = SessionSpec::clone(&session(1, Sending::AtOnce).spec);
        spec.id = SessionId(number.into());
        spec.inbound.as_mut().unwrap().spi =
            0x0050_0000 + number.wrapping_mul(0x0001_3D21) % (1 << 20);
        sessions.insert(Session::new(Arc::new(spec), 0, Backend::Ring).unwrap());
    }
    let free = sessions.slots.iter().filter(|slot| slot.is_none()).count();
    assert!(free <= GAP, "{free}");
    assert_eq!(sessions.iter().count(), 3000);
    assert!(
        sessions
            .iter()
            .all(|one| sessions.by_spi(one.spi).is_some())
    );
}

#[test]
fn an_idle_session_is_small() {
    assert!(
        size_of::<Option<Session>>() <= 192,
        "{}",
        size_of::<Option<Session>>()
    );
}
