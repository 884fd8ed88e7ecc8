//! Sealing and opening against each other, with every library, and against every kind of damage.

use std::ops::Range;

use proptest::prelude::*;

use super::rewrite::{fold, sum};
use super::*;

/// An IPv4 packet of `len` bytes (20 or more) from 10.99.0.7 to 10.0.0.1, TTL 64, UDP.
pub(super) fn v4_packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).expect("64 KiB").to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 99, 0, 7, 10, 0, 0, 1]);
    let checksum = !fold(sum(&packet[..20]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    fill(&mut packet[20..]);
    packet
}

/// An IPv6 packet of `len` bytes (40 or more) from fd99::7 to fd00::1, hop limit 64, UDP.
pub(super) fn v6_packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[..4].copy_from_slice(&[0x60, 0x0A, 0xBC, 0xDE]);
    packet[4..6].copy_from_slice(&u16::try_from(len - 40).expect("64 KiB").to_be_bytes());
    packet[6..8].copy_from_slice(&[17, 64]);
    packet[8..10].copy_from_slice(&[0xFD, 0x99]);
    packet[23] = 7;
    packet[24..26].copy_from_slice(&[0xFD, 0x00]);
    packet[39] = 1;
    fill(&mut packet[40..]);
    packet
}

fn fill(payload: &mut [u8]) {
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte = (at * 7) as u8;
    }
}

const SPI: u32 = 0x1234_5678;
const CIPHERS: [Cipher; 3] = [
    Cipher::Aes128Gcm,
    Cipher::Aes256Gcm,
    Cipher::ChaCha20Poly1305,
];

fn aead(backend: Backend, cipher: Cipher) -> Aead {
    let key: Vec<u8> = (0..cipher.key_len()).map(|at| at as u8 ^ 0x5A).collect();
    Aead::new(backend, cipher, &Key::new(&key).expect("a key")).expect("the right length")
}

fn sender(backend: Backend, cipher: Cipher, esn: bool, sequence: u64) -> OutboundSa {
    OutboundSa::new(
        SPI,
        aead(backend, cipher),
        Salt::from([1, 2, 3, 4]),
        esn,
        sequence,
    )
}

fn receiver(backend: Backend, cipher: Cipher, esn: bool, top: u64) -> InboundSa {
    let mut window = Window::new(1024).expect("an allowed size");
    window.resume(top);
    InboundSa::new(
        SPI,
        aead(backend, cipher),
        Salt::from([1, 2, 3, 4]),
        esn,
        window,
    )
}

pub(super) fn pair(esn: bool, sequence: u64) -> (OutboundSa, InboundSa) {
    let (backend, cipher) = (Backend::Ring, Cipher::Aes128Gcm);
    (
        sender(backend, cipher, esn, sequence),
        receiver(backend, cipher, esn, sequence),
    )
}

pub(super) fn seal(sa: &mut OutboundSa, packet: &[u8], next_header: u8) -> Vec<u8> {
    let mut buf = vec![0xEE; SEAL_HEADROOM + packet.len() + SEAL_TAILROOM];
    let inner = SEAL_HEADROOM..SEAL_HEADROOM + packet.len();
    buf[inner.clone()].copy_from_slice(packet);
    let esp = sa
        .seal(&mut buf, inner, next_header)
        .expect("room and numbers");
    assert_eq!(esp, 0..sealed_len(packet.len()));
    buf[esp].to_vec()
}

fn open(sa: &mut InboundSa, esp: &[u8]) -> Result<(Vec<u8>, Opened), Refused> {
    let mut buf = esp.to_vec();
    let opened = sa.open(&mut buf, 0..esp.len())?;
    Ok((buf[opened.inner.clone()].to_vec(), opened))
}

/// Seals `plaintext`, which includes a trailer of the caller's, as a faulty or hostile peer might.
fn seal_raw(plaintext: &[u8], sequence: u32) -> Vec<u8> {
    let mut esp = [SPI.to_be_bytes(), sequence.to_be_bytes(), [0; 4], [9; 4]].concat();
    let mut data = plaintext.to_vec();
    let nonce = [1, 2, 3, 4, 0, 0, 0, 0, 9, 9, 9, 9];
    let tag =
        aead(Backend::RustCrypto, Cipher::Aes128Gcm).seal_in_place(&nonce, &esp[..8], &mut data);
    esp.extend(data);
    esp.extend(tag.expect("a short packet"));
    esp
}

#[test]
fn every_size_comes_back_and_all_libraries_agree_byte_by_byte() {
    for (cipher, esn) in [(CIPHERS[0], false), (CIPHERS[1], true), (CIPHERS[2], true)] {
        let mut ring = sender(Backend::Ring, cipher, esn, 0);
        let mut others: Vec<_> = Backend::ALL
            .iter()
            .map(|&backend| {
                let sa = sender(backend, cipher, esn, 0);
                (backend, sa, receiver(backend, cipher, esn, 0))
            })
            .collect();
        for len in 1..=9000 {
            let (packet, next_header) = match len {
                0..20 => (vec![7; len], NEXT_DUMMY),
                20..40 => (v4_packet(len), NEXT_IPV4),
                _ if len % 2 == 0 => (v4_packet(len), NEXT_IPV4),
                _ => (v6_packet(len), NEXT_IPV6),
            };
            let esp = seal(&mut ring, &packet, next_header);
            // Without optimisation the pure Rust library is slow: few of the long packets.
            let slow_too = len <= 300 || len % 41 == 0;
            for (backend, sender, receiver) in &mut others {
                if *backend == Backend::RustCrypto && !slow_too {
                    continue;
                }
                sender.skip_to(ring.sequence() - 1);
                let same = seal(sender, &packet, next_header);
                assert!(esp == same, "{backend:?}, {len} bytes");
                let (back, opened) = open(receiver, &esp).expect("authentic");
                assert!(back == packet, "{backend:?}, {len} bytes");
                assert_eq!(opened.next_header, next_header);
                assert_eq!(opened.sequence, len as u64);
            }
        }
    }
}

#[test]
fn every_library_refuses_a_damaged_packet_and_leaves_nothing_of_it() {
    let each = |cipher| Backend::ALL.iter().map(move |&backend| (backend, cipher));
    for (backend, cipher) in CIPHERS.into_iter().flat_map(each) {
        let packet = v4_packet(100);
        let esp = seal(&mut sender(backend, cipher, true, 0), &packet, NEXT_IPV4);
        for at in 0..esp.len() {
            let mut damaged = esp.clone();
            damaged[at] ^= 1;
            let mut sa = receiver(backend, cipher, true, 0);
            let length = damaged.len();
            let refused = sa.open(&mut damaged, 0..length);
            // An IV, SPI or number of another packet; or the data, or the ICV.
            assert!(refused.is_err(), "{backend:?} {cipher:?}, byte {at}");
            let inner = &damaged[SEAL_HEADROOM..SEAL_HEADROOM + 100];
            let same = inner.iter().zip(&packet).filter(|(a, b)| a == b).count();
            assert!(same < 50, "{backend:?} {cipher:?}, byte {at}");
        }
    }
}

#[test]
fn an_sa_that_slept_goes_on_and_a_forged_packet_does_not_wake_it() {
    let (mut out, mut inb) = pair(true, 0);
    assert!(out.sleeps() && inb.sleeps(), "nothing to do yet");
    let packet = v4_packet(64);
    let first = seal(&mut out, &packet, NEXT_IPV4);
    let mut forged = first.clone();
    forged[40] ^= 1;
    assert_eq!(open(&mut inb, &forged).err(), Some(Refused::BadIcv));
    assert!(inb.sleeps());
    open(&mut inb, &first).expect("authentic");
    assert!(!out.sleeps() && !inb.sleeps());
    let late = seal(&mut out, &packet, NEXT_IPV4);
    open(&mut inb, &seal(&mut out, &packet, NEXT_IPV4)).expect("authentic");

    out.sleep();
    inb.sleep();
    assert_eq!(open(&mut inb, &first).err(), Some(Refused::Replayed));
    assert_eq!(open(&mut inb, &late).err(), Some(Refused::Replayed));
    assert!(inb.sleeps());
    let (back, opened) = open(&mut inb, &seal(&mut out, &packet, NEXT_IPV4)).expect("authentic");
    assert_eq!((back, opened.sequence), (packet, 4));
}

#[test]
fn the_packet_on_the_wire_is_laid_out_as_the_rfcs_say() {
    let (mut out, _) = pair(false, 6);
    let esp = seal(&mut out, &v4_packet(61), NEXT_IPV4);
    assert_eq!(
        esp[..16],
        [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 7]
    );
    let mut data = esp[16..].to_vec();
    let nonce = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut opened = aead(Backend::RustCrypto, Cipher::Aes128Gcm);
    assert_eq!(opened.open_in_place(&nonce, &esp[..8], &mut data), Ok(64));
    assert_eq!(data[61..64], [1, 1, 4], "padding, pad length, next header");
    assert_eq!((out.sequence(), out.bytes()), (7, 61));
}

#[test]
fn every_bit_flip_and_every_truncation_is_refused_and_moves_no_window() {
    for esn in [false, true] {
        let (mut out, mut inb) = pair(esn, 0);
        let esp = seal(&mut out, &v4_packet(45), NEXT_IPV4);
        for bit in 0..esp.len() * 8 {
            let mut bad = esp.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let refused = open(&mut inb, &bad).expect_err("damaged");
            match bit / 8 {
                0..4 => assert_eq!(refused, Refused::WrongSpi),
                4..8 => assert!(
                    matches!(refused, Refused::BadIcv | Refused::TooOld),
                    "{bit}"
                ),
                _ => assert_eq!(refused, Refused::BadIcv, "bit {bit}"),
            }
            assert_eq!(inb.sequence(), 0);
        }
        for len in 0..esp.len() {
            let refused = open(&mut inb, &esp[..len]).expect_err("cut");
            let expected = if len < 36 {
                Refused::TooShort
            } else {
                Refused::BadIcv
            };
            assert_eq!(refused, expected, "cut to {len}");
        }
        let mut longer = esp.clone();
        longer.push(0);
        assert_eq!(open(&mut inb, &longer).err(), Some(Refused::BadIcv));
        assert!(
            open(&mut inb, &esp).is_ok(),
            "the whole packet still passes"
        );
        assert_eq!(open(&mut inb, &esp).err(), Some(Refused::Replayed));
    }
}

#[test]
fn sequence_numbers_end_and_never_wrap() {
    let (mut out, _) = pair(false, u64::from(u32::MAX) - 1);
    assert_eq!(out.remaining(), 1);
    seal(&mut out, &v4_packet(40), NEXT_IPV4);
    let mut buf = [0; 100];
    for _ in 0..3 {
        assert_eq!(
            out.seal(&mut buf, 16..56, NEXT_IPV4),
            Err(Refused::SequenceExhausted)
        );
    }
    assert_eq!(buf, [0; 100], "nothing was written");
    let (mut out, _) = pair(true, u64::MAX - 1);
    seal(&mut out, &v4_packet(40), NEXT_IPV4);
    assert_eq!(
        out.seal(&mut buf, 16..56, NEXT_IPV4),
        Err(Refused::SequenceExhausted)
    );
    let (mut out, _) = pair(true, u64::from(u32::MAX));
    seal(&mut out, &v4_packet(40), NEXT_IPV4);
    assert_eq!(out.sequence(), 1 << 32);
}

#[test]
fn nobody_sends_past_the_end_of_a_lease() {
    let (mut out, mut inb) = pair(true, 0);
    out.set_limit(2);
    assert_eq!(out.remaining(), 2);
    seal(&mut out, &v4_packet(40), NEXT_IPV4);
    seal(&mut out, &v4_packet(40), NEXT_IPV4);
    let mut buf = [0; 100];
    assert_eq!(
        out.seal(&mut buf, 16..56, NEXT_IPV4),
        Err(Refused::LeaseExhausted)
    );
    assert_eq!((out.sequence(), out.remaining()), (2, 0));
    out.skip_to(1000);
    out.skip_to(500);
    assert_eq!(
        out.seal(&mut buf, 16..56, NEXT_IPV4),
        Err(Refused::LeaseExhausted)
    );
    out.set_limit(1010);
    let esp = seal(&mut out, &v4_packet(40), NEXT_IPV4);
    assert_eq!(open(&mut inb, &esp).expect("authentic").1.sequence, 1001);
}

#[test]
fn nobody_accepts_past_the_end_of_a_lease() {
    let (mut out, mut inb) = pair(true, 0);
    let packets = [(); 3].map(|()| seal(&mut out, &v4_packet(40), NEXT_IPV4));
    inb.set_limit(2);
    let refused = Err(Refused::LeaseExhausted);
    assert_eq!(open(&mut inb, &packets[2]), refused);
    assert_eq!(open(&mut inb, &packets[1]).expect("new").1.sequence, 2);
    assert_eq!((inb.sequence(), inb.missing()), (2, 0b10));
    inb.set_limit(3);
    open(&mut inb, &packets[2]).expect("not marked as seen");
    assert_eq!(open(&mut inb, &packets[1]), Err(Refused::Replayed));
}

#[test]
fn too_little_room_uses_up_no_sequence_number() {
    let (mut out, _) = pair(false, 0);
    let mut buf = v4_packet(200);
    let before = buf.clone();
    for inner in [
        15..100,
        16..200,
        16..183,
        Range {
            start: 100,
            end: 99,
        },
        0..0,
        300..400,
        16..usize::MAX,
    ] {
        let refused = out.seal(&mut buf, inner.clone(), NEXT_IPV4);
        assert_eq!(refused, Err(Refused::NoRoom), "{inner:?}");
    }
    assert_eq!(
        out.seal_dummy(&mut buf, 190, usize::MAX),
        Err(Refused::NoRoom)
    );
    assert_eq!((buf == before, out.sequence()), (true, 0));
    // 182 bytes of room: 162 + 2 of trailer needs no padding and ends with the buffer.
    assert_eq!(out.seal(&mut buf, 20..182, NEXT_IPV4), Ok(4..200));
}

#[test]
fn a_dummy_is_authentic_counted_and_no_packet() {
    let (mut out, mut inb) = pair(true, 0);
    for len in [0, 1, 64] {
        let mut buf = [0xEE; 128];
        let esp = out.seal_dummy(&mut buf, 16, len).expect("room");
        let opened = inb.open(&mut buf, esp).expect("authentic");
        assert!(opened.is_dummy());
    }
    assert_eq!((inb.packets(), inb.bytes()), (3, 0));
}

#[test]
fn faulty_trailers_of_an_authentic_peer_are_refused() {
    let packet = v4_packet(42);
    let with = |tail: &[u8]| [&packet, tail].concat();
    let most: Vec<u8> = (1..=255).collect();
    let cases: Vec<(Vec<u8>, Option<Refused>)> = vec![
        (with(&[0, 4]), None),
        (with(&[1, 2, 3, 4, 4, 4]), None),
        (with(&[&most[..], &[255, 4, 0]].concat()[..257]), None),
        (with(&[1, 2, 4, 3, 4, 4]), Some(Refused::BadPadding)),
        (with(&[0, 0, 2, 4]), Some(Refused::BadPadding)),
        (with(&[45, 4]), Some(Refused::BadPadding)),
        (with(&[255, 4]), Some(Refused::BadPadding)),
        (vec![1, 2, 3, 3, 4], Some(Refused::InnerMalformed)),
        (with(&[0, 6]), Some(Refused::BadNextHeader)),
        (with(&[0, 0]), Some(Refused::BadNextHeader)),
        (with(&[0, 41]), Some(Refused::InnerMalformed)),
        // Traffic flow confidentiality: anything between the inner packet and the padding.
        (
            with(
                &[0xAA; 20]
                    .iter()
                    .copied()
                    .chain([1, 1, 4])
                    .collect::<Vec<_>>(),
            ),
            None,
        ),
        (
            [&packet[..41], &[0, 4]].concat(),
            Some(Refused::InnerMalformed),
        ),
    ];
    let (_, mut inb) = pair(false, 0);
    for (sequence, (plaintext, expected)) in (1..).zip(cases) {
        let esp = seal_raw(&plaintext, sequence);
        match open(&mut inb, &esp) {
            Ok((inner, opened)) => {
                assert_eq!(expected, None, "{plaintext:?}");
                assert_eq!((inner == packet, opened.next_header), (true, NEXT_IPV4));
            }
            Err(refused) => assert_eq!(Some(refused), expected, "{plaintext:?}"),
        }
        // It was authentic: its number is used up whatever it held.
        assert_eq!(inb.sequence(), u64::from(sequence));
        assert_eq!(open(&mut inb, &esp).err(), Some(Refused::Replayed));
    }
}

#[test]
fn the_low_half_wraps_both_ways() {
    let edge = 1_u64 << 32;
    let (mut out, mut inb) = pair(true, edge - 600);
    let packets: Vec<_> = (0..1200)
        .map(|_| seal(&mut out, &v4_packet(40), NEXT_IPV4))
        .collect();
    // Forward over the edge, in pieces of 100 that come in reverse.
    for piece in packets.chunks(100) {
        for esp in piece.iter().rev() {
            open(&mut inb, esp).expect("in the window");
        }
    }
    assert_eq!(inb.sequence(), edge + 600);
    for esp in &packets[500..] {
        assert_eq!(open(&mut inb, esp).err(), Some(Refused::Replayed));
    }
    // Back over the edge: the window stands above it, late packets come from below.
    let (mut out, mut inb) = pair(true, edge - 600);
    let packets: Vec<_> = (0..1200)
        .map(|_| seal(&mut out, &v4_packet(40), NEXT_IPV4))
        .collect();
    let mut window = Window::new(1024).expect("an allowed size");
    window.resume(edge - 600);
    open(&mut inb, &packets[999]).expect("new");
    assert_eq!(inb.sequence(), edge + 400);
    for (at, esp) in packets.iter().enumerate().take(999).skip(1) {
        let opened = open(&mut inb, esp).expect("late, but in the window").1;
        assert_eq!(opened.sequence, edge - 599 + at as u64);
    }
}

#[test]
fn a_sender_without_the_right_half_is_not_believed() {
    // Same low half, another high half: with ESN the high half is authenticated.
    let (mut out, mut inb) = (pair(true, 5 << 32).0, pair(true, 6 << 32).1);
    let esp = seal(&mut out, &v4_packet(40), NEXT_IPV4);
    assert_eq!(open(&mut inb, &esp).err(), Some(Refused::BadIcv));
    // ESN on one side only.
    let (mut out, mut inb) = (pair(true, 0).0, pair(false, 0).1);
    let esp = seal(&mut out, &v4_packet(40), NEXT_IPV4);
    assert_eq!(open(&mut inb, &esp).err(), Some(Refused::BadIcv));
}

#[test]
fn nothing_secret_is_printed() {
    let (out, inb) = pair(true, 41);
    assert_eq!(
        format!("{out:?}"),
        "OutboundSa(spi 0x12345678, sequence 41)"
    );
    assert_eq!(format!("{inb:?}"), "InboundSa(spi 0x12345678, sequence 41)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_order_with_copies_delivers_each_packet_at_most_once(
        order in prop::collection::vec(0_usize..64, 0..300),
        esn in any::<bool>(),
        start in prop_oneof![Just(0_u64), Just((1 << 32) - 70)],
    ) {
        let (mut out, mut inb) = pair(esn, start);
        let packets: Vec<_> = (0..64).map(|_| seal(&mut out, &v4_packet(40), NEXT_IPV4)).collect();
        let mut seen = [false; 64];
        for at in order {
            let opened = open(&mut inb, &packets[at]);
            prop_assert_eq!(opened.is_ok(), !seen[at]);
            seen[at] = true;
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_move_the_window(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        from in 0_usize..220,
        to in 0_usize..220,
        with_spi in any::<bool>(),
    ) {
        let (_, mut inb) = pair(true, 0);
        let mut bytes = bytes;
        if let (true, Some(spi)) = (with_spi, bytes.get_mut(from..from + 4)) {
            spi.copy_from_slice(&SPI.to_be_bytes());
        }
        prop_assert!(inb.open(&mut bytes, from..to).is_err());
        prop_assert_eq!(inb.sequence(), 0);
    }

    #[test]
    fn an_authentic_peer_can_say_anything(
        plaintext in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..5, Just(0x45)], 4..200),
    ) {
        let (_, mut inb) = pair(false, 0);
        let esp = seal_raw(&plaintext, 1);
        if let Ok((_, opened)) = open(&mut inb, &esp) {
            prop_assert!(opened.inner.start == 16 && opened.inner.end <= 16 + plaintext.len());
        }
        prop_assert_eq!(inb.sequence(), 1);
    }
}
