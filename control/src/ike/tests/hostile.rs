//! Senders that mean harm, and bytes that mean nothing.

use super::super::payload::header::{HEADER, exchange};
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, delete, header, sk};
use super::*;
use proptest::prelude::*;

/// The four messages of a handshake, and the state just before each is received. With one group, so
/// that no change of the first message leads to a second, true one.
fn before(message: usize) -> (Pair, Transmit) {
    let mut pair = Pair::with(|a, b| {
        for s in [a, b] {
            s.ike_proposals[0].groups = vec![Group::X25519];
        }
    });
    let wish = pair.wish();
    pair.initiate(wish);
    let mut next = pair.a.take().remove(0);
    for _ in 0..message {
        next = pair.deliver(&next).remove(0);
    }
    (pair, next)
}

#[test]
fn truncated_at_every_length() {
    for message in 0..4 {
        let (mut pair, whole) = before(message);
        for length in 0..whole.data.len() {
            let mut cut = whole.clone();
            cut.data.truncate(length);
            pair.deliver(&cut);
            // With a length field that agrees, the payloads themselves are cut.
            if length >= HEADER {
                header::set_length(&mut cut.data);
                pair.deliver(&cut);
            }
        }
        pair.run();
        // The gateway is established as soon as it has sent the last message.
        assert!(pair.a.established().is_none());
        assert_eq!(pair.b.established().is_some(), message == 3);
        // Protected messages are not harmed by forgeries of them: the true one still gets through.
        if message > 1 {
            pair.deliver(&whole)
                .iter()
                .for_each(|t| drop(pair.deliver(t)));
            assert!(pair.a.established().is_some() && pair.b.established().is_some());
        }
    }
}

#[test]
fn an_intermediate_exchange_truncated_and_flipped() {
    for message in 2..6 {
        let (mut pair, whole) = intermediate::before(message);
        for length in (0..whole.data.len()).step_by(5) {
            let mut cut = whole.clone();
            cut.data.truncate(length);
            assert_eq!(pair.deliver(&cut), []);
            if length >= HEADER {
                header::set_length(&mut cut.data);
                assert_eq!(pair.deliver(&cut), []);
            }
        }
        // Every bit of the headers, and some of the rest.
        let bits = whole.data.len() * 8;
        for bit in (0..(HEADER + 4) * 8).chain(((HEADER + 4) * 8..bits).step_by(61)) {
            let mut t = whole.clone();
            t.data[bit / 8] ^= 1 << (bit % 8);
            let answers = pair.deliver(&t);
            // Another major version gets an answer, which is no reaction of any session.
            assert!(
                answers.is_empty() || (136..144).contains(&bit),
                "message {message}, bit {bit}"
            );
            assert!(pair.a.events.is_empty(), "message {message}, bit {bit}");
        }
        let mut wire = VecDeque::from([whole]);
        while let Some(t) = wire.pop_front() {
            wire.extend(pair.deliver(&t));
        }
        assert!(pair.a.established().is_some() && pair.b.established().is_some());
    }
}

#[test]
fn no_flipped_bit_establishes_anything_that_lasts() {
    // In the clear: AUTH covers every bit of both messages. The gateway's proof is the last to be
    // judged, so it may believe in a session for as long as the client takes to refuse it.
    for message in 0..2 {
        let length = before(message).1.data.len();
        // Every bit of the header, and some of the rest.
        for bit in (0..HEADER * 8).chain((HEADER * 8..length * 8).step_by(11)) {
            let (mut pair, mut t) = before(message);
            t.data[bit / 8] ^= 1 << (bit % 8);
            let out = pair.deliver(&t);
            let mut wire = VecDeque::from(out);
            while let Some(t) = wire.pop_front() {
                wire.extend(pair.deliver(&t));
            }
            assert!(
                pair.a.established().is_none(),
                "message {message}, bit {bit}"
            );
            let lasts = pair.b.established().is_some() && pair.b.closed().is_none();
            assert!(!lasts, "message {message}, bit {bit}");
        }
    }
    // Protected: nothing happens, whichever bit it is, and the true message gets through after all
    // of them.
    for message in 2..4 {
        let (mut pair, whole) = before(message);
        for bit in 0..whole.data.len() * 8 {
            let mut t = whole.clone();
            t.data[bit / 8] ^= 1 << (bit % 8);
            let answers = pair.deliver(&t);
            // Another major version gets an answer, which is no reaction of any session.
            assert!(
                answers.is_empty() || (136..144).contains(&bit),
                "message {message}, bit {bit}"
            );
            assert!(pair.a.events.is_empty(), "message {message}, bit {bit}");
            assert_eq!(pair.b.established().is_some(), message == 3);
        }
        pair.deliver(&whole)
            .iter()
            .for_each(|t| drop(pair.deliver(t)));
        assert!(pair.a.established().is_some() && pair.b.established().is_some());
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn any_bytes_as_a_datagram(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut pair = Pair::new();
        let (local, remote) = (pair.a.address, pair.b.address);
        pair.deliver(&Transmit { local, remote, data });
        prop_assert!(pair.b.events.is_empty());
    }

    #[test]
    fn any_bytes_after_a_good_header(
        first in prop_oneof![3 => 33u8..=48, 1 => any::<u8>()],
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut pair = Pair::new();
        let mut data = header_bytes(first, exchange::IKE_SA_INIT, 1, 0, true, false);
        data.extend_from_slice(&body);
        header::set_length(&mut data);
        let (local, remote) = (pair.a.address, pair.b.address);
        pair.deliver(&Transmit { local, remote, data });
        prop_assert!(pair.b.events.is_empty());
        prop_assert_eq!(pair.b.engine.stats().sas, 0);
    }
}

fn header_bytes(
    next: u8,
    exchange: u8,
    spi_i: u64,
    spi_r: u64,
    initiator: bool,
    response: bool,
) -> Vec<u8> {
    let version = header::VERSION;
    let header = header::Header {
        spi_i,
        spi_r,
        next,
        version,
        exchange,
        initiator,
        response,
        message_id: 0,
    };
    let mut data = Vec::new();
    header.write(&mut data);
    header::set_length(&mut data);
    data
}

#[test]
fn unprotected_messages_do_not_end_a_session() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    let second = pair.deliver(&first).remove(0);
    let third = pair.deliver(&second).remove(0);
    let fourth = pair.deliver(&third).remove(0);
    pair.deliver(&fourth);
    let spis = |at: usize| u64::from_be_bytes(third.data[at..at + 8].try_into().unwrap());
    let (spi_i, spi_r) = (spis(0), spis(8));
    let bad = vec![
        Payload::Notify(Notify::new(kind::INVALID_IKE_SPI, [])),
        Payload::Notify(Notify::new(kind::AUTHENTICATION_FAILED, [])),
        Payload::Notify(Notify::new(kind::INVALID_SYNTAX, [])),
        Payload::Delete(delete::Delete::Ike),
    ];
    for initiator in [true, false] {
        for exchange in exchange::IKE_SA_INIT..=exchange::INFORMATIONAL {
            for response in [true, false] {
                for message_id in 0..4 {
                    let header = header::Header {
                        spi_i,
                        spi_r,
                        next: 0,
                        version: header::VERSION,
                        exchange,
                        initiator,
                        response,
                        message_id,
                    };
                    let data = sk::write_plain(header, &bad).unwrap();
                    let (mut local, mut remote) = (pair.a.address, pair.b.address);
                    if !initiator {
                        std::mem::swap(&mut local, &mut remote);
                    }
                    assert_eq!(
                        pair.deliver(&Transmit {
                            local,
                            remote,
                            data
                        }),
                        []
                    );
                }
            }
        }
    }
    assert_eq!((pair.a.events.len(), pair.b.events.len()), (1, 1));
    assert!(pair.b.engine.stats().unprotected > 0);
    let a = pair.a.established().unwrap().0;
    pair.a.engine.check_liveness(pair.now, a);
    assert_eq!(pair.run(), 2);
    assert!(matches!(pair.a.events[..], [_, Event::Alive { .. }]));
}

#[test]
fn errors_from_elsewhere_do_not_stop_the_first_exchange() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    let spi_i = u64::from_be_bytes(first.data[..8].try_into().unwrap());
    let mut header = header::Header::parse(&first.data).unwrap();
    header.initiator = false;
    header.response = true;
    let notify = Payload::Notify(Notify::new(kind::NO_PROPOSAL_CHOSEN, []));
    let data = sk::write_plain(header, &[notify]).unwrap();
    // Another address; and the right one, but another SPI.
    let local = "203.0.113.66:500".parse().unwrap();
    pair.deliver(&Transmit {
        local,
        remote: pair.a.address,
        data: data.clone(),
    });
    let mut other = data;
    other[..8].copy_from_slice(&(spi_i ^ 1).to_be_bytes());
    pair.deliver(&Transmit {
        local: pair.b.address,
        remote: pair.a.address,
        data: other,
    });
    assert!(pair.a.events.is_empty());
    for t in pair.deliver(&first) {
        for t in pair.deliver(&t) {
            for t in pair.deliver(&t) {
                pair.deliver(&t);
            }
        }
    }
    assert!(pair.a.established().is_some());
}

#[test]
fn other_versions_are_told_which_one_is_spoken() {
    let mut pair = Pair::new();
    let (local, remote) = (pair.a.address, pair.b.address);
    let mut data = header_bytes(0, exchange::IKE_SA_INIT, 7, 0, true, false);
    data[17] = 0x30;
    // HDR (version 3) --> <-- HDR(version 2), N(INVALID_MAJOR_VERSION)
    let answer = pair.deliver(&Transmit {
        local,
        remote,
        data: data.clone(),
    });
    assert_eq!(
        (answer.len(), answer[0].data[17], answer[0].data.len()),
        (1, 0x20, 36)
    );
    data[17] = 0x10;
    assert_eq!(
        pair.deliver(&Transmit {
            local,
            remote,
            data: data.clone()
        }),
        []
    );
    data[17] = 0x30;
    data[19] |= 0x20;
    assert_eq!(
        pair.deliver(&Transmit {
            local,
            remote,
            data
        }),
        []
    );
    assert_eq!(pair.b.engine.stats().bad_version, 3);
}

#[test]
fn a_low_order_public_value_is_refused() {
    let (mut pair, mut t) = before(0);
    // The Key Exchange payload follows the proposal; its 32 bytes of public value become zero.
    let at = t.data.windows(4).position(|w| w == [0, 31, 0, 0]).unwrap() + 4;
    t.data[at..at + 32].fill(0);
    let answer = pair.deliver(&t);
    assert_eq!(pair.b.engine.stats().sas, 0);
    let body = payload::parse_chain(answer[0].data[16], &answer[0].data[HEADER..]).unwrap();
    assert_eq!(
        body,
        [Payload::Notify(Notify::new(kind::INVALID_SYNTAX, []))]
    );
}

#[test]
fn a_first_message_beyond_measure_is_dropped() {
    let mut pair = Pair::with(|a, _| a.vendor_ids = vec![vec![0; 4000]]);
    let wish = pair.wish();
    pair.initiate(wish);
    let first = pair.a.take();
    assert_eq!(pair.deliver(&first[0]), []);
    let stats = pair.b.engine.stats();
    assert_eq!((stats.sas, stats.malformed), (0, 1));
}
