use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn ids(changes: &[Change]) -> Vec<(bool, u64)> {
    let id = |change: &Change| match change {
        Change::Add(spec) | Change::Move(spec) => (true, spec.id.0),
        Change::Remove(id) => (false, id.0),
    };
    changes.iter().map(id).collect()
}

#[test]
fn sessions_come_and_go() {
    let mut sadb = Sadb::new();
    assert_eq!(ids(&sadb.insert(manual(1)).expect("valid")), [(true, 1)]);
    assert_eq!(
        ids(&sadb.insert(session(Producer::Ike, 2)).expect("valid")),
        [(true, 2)]
    );
    assert_eq!(
        sadb.by_inbound_spi(0x1001).map(|spec| spec.id),
        Some(SessionId(1))
    );
    let remote = SocketAddr::new(address("198.51.100.7"), 0);
    assert_eq!(
        sadb.by_outbound_spi(remote, 0x2002).map(|spec| spec.id),
        Some(SessionId(2))
    );
    let wrong = sadb
        .remove(Producer::Manual, SessionId(2))
        .expect_err("of IKE");
    assert_eq!(wrong.to_string(), "there is no session 2 of origin manual");
    let changes = sadb.remove_spi(Producer::Manual, 0x2001).expect("there");
    assert_eq!(changes, [Change::Remove(SessionId(1))]);
    assert!(sadb.remove_spi(Producer::Manual, 0x1001).is_err());
    assert_eq!(sadb.by_inbound_spi(0x1001), None);
    assert_eq!(sadb.flush(Producer::Manual), []);
    assert_eq!(sadb.flush(Producer::Ike), [Change::Remove(SessionId(2))]);
    assert!(sadb.is_empty());
    let mut named = manual(3);
    named.id = SessionId(77);
    sadb.insert(named).expect("valid");
    assert_eq!(sadb.next_id(), SessionId(78), "names are not used twice");
}

#[test]
fn a_peer_behind_a_nat_moves() {
    let mut sadb = Sadb::new();
    let in_udp = |number, port| {
        let mut spec = session(Producer::Ike, number);
        spec.encap = Some(UdpEncap {
            local_port: 4500,
            remote_port: port,
        });
        spec
    };
    sadb.insert(in_udp(1, 40_001)).expect("valid");
    // Another client behind the same NAT chose the same SPI.
    let mut second = in_udp(2, 40_002);
    second.outbound.as_mut().expect("both").spi = 0x2001;
    sadb.insert(second).expect("another port");
    sadb.insert(session(Producer::Ike, 3)).expect("valid");

    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let new = at("203.0.113.9:40003");
    let changes = sadb
        .move_peer(Producer::Ike, SessionId(1), new)
        .expect("there");
    let [Change::Move(spec)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((spec.id, spec.peer_at()), (SessionId(1), new));
    assert_eq!(sadb.get(SessionId(1)), Some(spec));
    let owner = |sadb: &Sadb, at| sadb.by_outbound_spi(at, 0x2001).map(|spec| spec.id.0);
    assert_eq!(owner(&sadb, new), Some(1));
    assert_eq!(owner(&sadb, at("198.51.100.7:40001")), None);
    assert_eq!(owner(&sadb, at("198.51.100.7:40002")), Some(2));
    assert_eq!(sadb.move_peer(Producer::Ike, SessionId(1), new), Ok(vec![]));

    let taken = at("198.51.100.7:40002");
    for (id, to) in [(1, taken), (3, new), (9, new), (1, at("[2001:db8::1]:1"))] {
        assert!(sadb.move_peer(Producer::Ike, SessionId(id), to).is_err());
    }
    assert_eq!(owner(&sadb, new), Some(1));
    sadb.flush(Producer::Ike);
    assert_eq!((owner(&sadb, new), owner(&sadb, taken)), (None, None));
}

#[test]
fn conflicts_are_refused_and_change_nothing() {
    let mut sadb = Sadb::new();
    let mut rng = StdRng::seed_from_u64(1);
    let pending = sadb.allocate_spi(&mut rng);
    sadb.insert(manual(1)).expect("valid");
    let with = |change: &dyn Fn(&mut SessionSpec)| {
        let mut spec = manual(2);
        change(&mut spec);
        spec
    };
    let inbound =
        |change: &dyn Fn(&mut SaSpec)| with(&|spec| change(spec.inbound.as_mut().expect("both")));
    let outbound =
        |change: &dyn Fn(&mut SaSpec)| with(&|spec| change(spec.outbound.as_mut().expect("both")));
    let cases = [
        (
            inbound(&|sa| sa.spi = 0x1001),
            "inbound SPI 0x1001 belongs to session 1",
        ),
        (
            inbound(&|sa| sa.spi = 255),
            "expected, found 0xff, which is reserved",
        ),
        (inbound(&|sa| sa.spi = 0), "found 0x0, which is reserved"),
        (
            inbound(&|sa| sa.spi = u32::MAX),
            "found 0xffffffff, which is reserved",
        ),
        (
            outbound(&|sa| sa.spi = u32::MAX),
            "found 0xffffffff, which is reserved",
        ),
        (
            inbound(&|sa| sa.spi = pending),
            "taken by a key exchange in progress",
        ),
        (
            outbound(&|sa| sa.spi = 0x2001),
            "outbound SPI 0x2001 toward 198.51.100.7 belongs",
        ),
        (
            inbound(&|sa| sa.cipher = Cipher::Aes256Gcm),
            "has 32 bytes, found 16",
        ),
        (inbound(&|sa| sa.replay_window = 1000), "found 1000"),
        (
            inbound(&|sa| sa.key = Key::new(&[2; 16]).expect("a key")),
            "are or were those of",
        ),
        (
            outbound(&|sa| sa.key = Key::new(&[4; 16]).expect("a key")),
            "are or were those of",
        ),
        (
            outbound(&|sa| (sa.esn, sa.sequence) = (false, 1 << 32)),
            "up to 4294967295 was expected without ESN, found 4294967296",
        ),
        (
            with(&|spec| spec.remote_inner = Nets::new()),
            "on the remote side was expected",
        ),
        (
            with(&|spec| spec.local_inner = Nets::new()),
            "on the local side was expected",
        ),
        (
            with(&|spec| spec.local_inner = nets(&["10.1.2.3/8"]).into()),
            "found 10.1.2.3/8; 10.0.0.0/8 is the network",
        ),
        (
            with(&|spec| spec.outside_local = address("::1")),
            "one IP version",
        ),
        (
            with(&|spec| spec.outside_local = address("0.0.0.0")),
            "found 0.0.0.0",
        ),
        (
            with(&|spec| {
                spec.encap = Some(UdpEncap {
                    local_port: 4500,
                    remote_port: 0,
                })
            }),
            "UDP ports from 1 to 65535",
        ),
        (
            with(&|spec| (spec.inbound, spec.outbound) = (None, None)),
            "found neither",
        ),
        (
            with(&|spec| spec.id = SessionId(1)),
            "session 1 exists already",
        ),
    ];
    for (spec, expected) in cases {
        let error = sadb.insert(spec).expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
        assert_eq!(sadb.len(), 1);
    }
    // Another peer may have chosen the same SPI.
    let mut other = manual(2);
    other.outside_remote = address("198.51.100.8");
    other.outbound.as_mut().expect("both").spi = 0x2001;
    sadb.insert(other).expect("valid");
}

#[test]
fn a_key_of_a_removed_hand_written_sa_never_comes_back() {
    let mut sadb = Sadb::new();
    sadb.insert(manual(1)).expect("valid");
    sadb.flush(Producer::Manual);
    for direction in [Direction::In, Direction::Out] {
        let mut half = manual(1);
        match direction {
            Direction::In => half.outbound = None,
            Direction::Out => half.inbound = None,
        }
        assert!(matches!(
            sadb.insert(half),
            Err(SadbError::KeyReused { .. })
        ));
    }
    let mut salted = manual(1);
    salted.inbound.as_mut().expect("both").salt = [2; 4].into();
    salted.outbound.as_mut().expect("both").salt = [2; 4].into();
    sadb.insert(salted)
        .expect("another salt makes other nonces");
}

#[test]
fn replacing_all_touches_only_what_differs() {
    let mut sadb = Sadb::new();
    let named = |number: u32| SessionSpec {
        id: SessionId(number.into()),
        ..manual(number)
    };
    let all = vec![named(1), named(2), named(3)];
    let changes = sadb.replace_all(Producer::Manual, all).expect("valid");
    assert_eq!(ids(&changes), [(true, 1), (true, 2), (true, 3)]);
    sadb.insert(session(Producer::Ike, 9)).expect("valid");

    // 1 stays, 2 goes, 3 makes room for 5, 6 only receives and so comes first.
    let mut receiver = named(6);
    receiver.outbound = None;
    let mut heir = named(5);
    heir.inbound.as_mut().expect("both").spi = 0x1003;
    let next = vec![named(1), heir, receiver];
    let changes = sadb.replace_all(Producer::Manual, next).expect("valid");
    assert_eq!(
        ids(&changes),
        [(false, 3), (true, 6), (true, 5), (false, 2)]
    );
    let left: Vec<_> = sadb.iter().map(|spec| spec.id.0).collect();
    assert_eq!(left, [1, 4, 5, 6], "the session of IKE is untouched");

    // All or nothing.
    let mut wrong = named(8);
    wrong.local_inner = Nets::new();
    assert!(
        sadb.replace_all(Producer::Manual, vec![named(7), wrong])
            .is_err()
    );
    let foreign = vec![session(Producer::Ike, 8)];
    let error = sadb
        .replace_all(Producer::Manual, foreign)
        .expect_err("foreign");
    assert_eq!(
        error.to_string(),
        "a session of origin manual was expected, found ike"
    );
    assert_eq!(sadb.len(), 4);
}

#[test]
fn a_changed_session_can_not_restart_its_key() {
    for origin in [Producer::Ike, Producer::Manual] {
        let mut sadb = Sadb::new();
        let mut spec = session(origin, 1);
        spec.id = SessionId(1);
        sadb.replace_all(origin, vec![spec.clone()]).expect("valid");
        assert_eq!(sadb.replace_all(origin, vec![spec.clone()]), Ok(vec![]));
        spec.peer = "renamed".into();
        let refused = sadb.replace_all(origin, vec![spec]);
        assert!(
            matches!(refused, Err(SadbError::KeyReused { .. })),
            "{refused:?}"
        );
        assert_eq!(sadb.len(), 1);
    }
}

#[test]
fn spis_are_never_reserved_in_use_or_promised_twice() {
    /// Says the same for ever.
    struct Stuck(u32);
    impl rand::rand_core::TryRng for Stuck {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(self.0)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(self.0.into())
        }
        fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
            dst.fill(self.0 as u8);
            Ok(())
        }
    }
    for stuck in [
        0,
        1,
        0x0F00,
        u32::MAX - 258,
        u32::MAX - 257,
        u32::MAX - 1,
        u32::MAX,
    ] {
        let mut sadb = Sadb::new();
        sadb.insert(manual(0)).expect("valid");
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let spi = sadb.allocate_spi(&mut Stuck(stuck));
            assert!((LOWEST_SPI..=HIGHEST_SPI).contains(&spi) && spi != 0x1000);
            assert!(seen.insert(spi), "{spi:#x} twice");
        }
    }
    let mut sadb = Sadb::new();
    let spi = sadb.allocate_spi(&mut Stuck(7));
    let mut spec = session(Producer::Ike, 1);
    spec.inbound.as_mut().expect("both").spi = spi;
    sadb.insert(spec).expect("the promise is kept");
    assert_ne!(sadb.allocate_spi(&mut Stuck(7)), spi, "in use");
    sadb.flush(Producer::Ike);
    let again = sadb.allocate_spi(&mut Stuck(7));
    assert_eq!(spi_place(again), spi_place(spi), "free again");
    sadb.release_spi(again);
    let third = sadb.allocate_spi(&mut Stuck(7));
    assert_eq!(spi_place(third), spi_place(spi), "released");
    assert!(again != spi && third != again, "but not the same SPI");
}

#[test]
fn drawn_spis_have_places_of_their_own_that_come_again() {
    let mut sadb = Sadb::new();
    let mut rng = StdRng::seed_from_u64(1);
    let mut drawn: Vec<u32> = (0..1000).map(|_| sadb.allocate_spi(&mut rng)).collect();
    let places = |spis: &[u32]| {
        let mut places: Vec<u32> = spis.iter().map(|spi| spi_place(*spi)).collect();
        places.sort_unstable();
        places
    };
    assert_eq!(places(&drawn), (0..1000).collect::<Vec<_>>());
    let highs: HashSet<u32> = drawn.iter().map(|spi| spi >> 20).collect();
    assert!(highs.len() > 800, "drawn at random: {}", highs.len());
    for spi in drawn.drain(..500) {
        sadb.release_spi(spi);
        // Told twice, it is free once.
        sadb.release_spi(spi);
    }
    drawn.extend((0..500).map(|_| sadb.allocate_spi(&mut rng)));
    assert_eq!(places(&drawn), (0..1000).collect::<Vec<_>>());
}

#[test]
fn spis_of_a_gateway_that_shares_its_address_carry_its_number() {
    use evergate_common::steering::{HIGHEST_NUMBER, number_of};
    for number in [1, 2, 33, HIGHEST_NUMBER] {
        let mut sadb = Sadb::new().with_number(number);
        let mut rng = StdRng::seed_from_u64(number.into());
        let mut seen = HashSet::new();
        for place in 0..5000 {
            let spi = sadb.allocate_spi(&mut rng);
            assert_eq!(number_of(spi.to_be_bytes()), number);
            assert_eq!(spi_place(spi), place);
            assert!((LOWEST_SPI..=HIGHEST_SPI).contains(&spi));
            assert!(seen.insert(spi), "{spi:#x} twice");
        }
        let highs: HashSet<u32> = seen.iter().map(|spi| spi >> 20).collect();
        assert_eq!(highs.len(), 64, "drawn at random");
        // No place is left.
        sadb.next_place_for_test(1 << 20);
        for _ in 0..1000 {
            let spi = sadb.allocate_spi(&mut rng);
            assert_eq!(number_of(spi.to_be_bytes()), number);
            assert!(seen.insert(spi), "{spi:#x} twice");
        }
    }
}

#[test]
fn a_spec_makes_a_sender_and_a_receiver_that_fit() {
    let mut spec = manual(1);
    let sending = spec.outbound.as_mut().expect("both");
    (sending.sequence, sending.spi) = (500, 0x1001);
    let receiving = SaSpec {
        sequence: 480,
        ..sending.clone()
    };
    let mut out = sending.sender(Backend::Ring).expect("valid");
    let mut inb = receiving.receiver(Backend::RustCrypto).expect("valid");
    let mut buf = [0; 128];
    let esp = out.seal_dummy(&mut buf, 16, 40).expect("room");
    let opened = inb.open(&mut buf, esp).expect("authentic");
    assert_eq!((opened.sequence, opened.is_dummy()), (501, true));
    assert_eq!(spec.outer().expect("one family").header_len(), 20);
    assert_eq!(spec.selectors(Direction::In).0, nets(&["10.99.0.7/32"]));
    assert_eq!(spec.selectors(Direction::Out).1, nets(&["10.99.0.7/32"]));
}

#[test]
fn workers_take_turns_and_each_has_places_of_its_own() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut sadb = Sadb::for_workers(3, false);
    let spis: Vec<u32> = (0..6).map(|_| sadb.allocate_spi(&mut rng)).collect();
    let workers: Vec<usize> = spis.iter().map(|spi| spi_worker(*spi, 3)).collect();
    assert_eq!(workers, [1, 2, 0, 1, 2, 0]);
    let mut places: Vec<u32> = spis.iter().map(|spi| spi_place(*spi)).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3, 4, 5], "low ones, so tables stay dense");
    sadb.release_spi(spis[0]);
    let again: Vec<u32> = (0..2)
        .map(|_| spi_place(sadb.allocate_spi(&mut rng)))
        .collect();
    assert_eq!(again[0], spi_place(spis[0]), "what was given back");
    assert_eq!(again[1], 8);

    let mut client = Sadb::for_workers(2, true);
    let first = (0..4).map(|_| spi_worker(client.allocate_spi(&mut rng), 2));
    assert_eq!(first.collect::<Vec<_>>(), [0; 4]);

    let mut spec = session(Producer::Ike, 1);
    spec.inbound.as_mut().expect("both").spi = spis[0];
    assert_eq!([1, 3].map(|workers| spec.worker(workers)), [0, 1]);
    spec.gateway = Some(spec.outside_remote);
    assert_eq!(spec.worker(3), 0, "gateways are watched by the first");
}

/// A peer may still have an SA of the last SPI, and packets of it may be on their way.
#[test]
fn an_spi_does_not_come_again_soon() {
    let mut rng = StdRng::seed_from_u64(5);
    for number in [0, 7] {
        let mut sadb = Sadb::new().with_number(number);
        let draws = if number == 0 { 4000 } else { 64 };
        let mut seen = HashSet::new();
        for _ in 0..draws {
            let spi = sadb.allocate_spi(&mut rng);
            assert!(seen.insert(spi), "{spi:08x} again after {}", seen.len());
            sadb.release_spi(spi);
        }
    }
}

/// An SA of an earlier run may still be somewhere, and an edge that is cut off have its keys.
#[test]
fn an_spi_of_the_last_runs_does_not_come_again() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut seen = HashSet::new();
    for run in 1..=100 {
        let mut sadb = Sadb::for_workers(1, false).with_run(run);
        for _ in 0..12 {
            let spi = sadb.allocate_spi(&mut rng);
            assert!(seen.insert(spi), "{spi:08x} again in run {run}");
            sadb.release_spi(spi);
        }
    }
}
