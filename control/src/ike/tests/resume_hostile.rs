//! Tickets that were changed, cut, stolen, or played again, and floods of them.

use super::resume::{earn, pair, pair_with, resume, resumed};
use super::*;
use crate::ike::payload::header::Header;
use crate::ike::payload::notify::{Notify, kind};
use crate::ike::payload::{Payload, parse_chain, sk};

/// Who has recorded a first message and plays it again gets an answer, a half-open slot for a while,
/// and nothing else: it lacks SK_d. The true client is not harmed.
#[test]
fn a_replayed_first_message_neither_gains_nor_spoils_anything() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    let wish = pair.wish();
    pair.a
        .engine
        .resume(pair.now, wish, earned.clone(), &mut pair.a.owner);
    let first = pair.a.take().remove(0);
    let mut replayed = first.clone();
    replayed.local = "203.0.113.66:500".parse().unwrap();
    let answers = pair.b.receive(pair.now, &replayed);
    assert_eq!(answers.len(), 1);
    assert_eq!(pair.b.engine.stats().half_open, 1);
    // The client's own.
    let answer = pair.deliver(&first);
    let auth = pair.deliver(&answer[0]);
    // The thief has the client's IKE_AUTH too, and sends it in its own session: another SPI.
    let mut stolen = auth[0].clone();
    stolen.data[8..16].copy_from_slice(&answers[0].data[8..16]);
    stolen.local = replayed.local;
    assert!(pair.b.receive(pair.now, &stolen).is_empty());
    assert_eq!(pair.b.engine.stats().bad_tag, 1);
    let done = pair.deliver(&auth[0]);
    pair.deliver(&done[0]);
    assert!(resumed(&pair).0);
    // Long after: used.
    pair.pass(Duration::from_secs(20));
    let mut late = first;
    late.local = "203.0.113.67:500".parse().unwrap();
    let answers = pair.b.receive(pair.now, &late);
    assert!(nacks(&answers[0].data));
    assert_eq!(pair.b.engine.stats().half_open, 0);
}

fn nacks(datagram: &[u8]) -> bool {
    let header = Header::parse(datagram).unwrap();
    let payloads = parse_chain(header.next, &datagram[28..]).unwrap();
    payloads == [Payload::Notify(Notify::new(kind::TICKET_NACK, []))]
}

/// A first message with that ticket, as a stranger would send it.
fn message(ticket: &[u8], spi: u64) -> Vec<u8> {
    let header = Header {
        spi_i: spi,
        spi_r: 0,
        next: 0,
        version: 0x20,
        exchange: 38,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let payloads = [
        Payload::Nonce(vec![5; 32]),
        Payload::Notify(Notify::new(kind::TICKET_OPAQUE, ticket)),
    ];
    sk::write_plain(header, &payloads).unwrap()
}

fn send(pair: &mut Pair, data: Vec<u8>) -> Vec<Transmit> {
    let t = Transmit {
        local: "203.0.113.66:500".parse().unwrap(),
        remote: pair.b.address,
        data,
    };
    pair.b.receive(pair.now, &t)
}

#[test]
fn a_ticket_with_any_byte_changed_or_cut_anywhere_is_refused() {
    let mut pair = pair();
    let earned = earn(&mut pair).opaque;
    let mut spi = 1000;
    let mut refused = |pair: &mut Pair, ticket: &[u8]| {
        spi += 1;
        let before = pair.b.engine.stats();
        let answers = send(pair, message(ticket, spi));
        let after = pair.b.engine.stats();
        assert!(nacks(&answers[0].data));
        assert_eq!(after.tickets_refused, before.tickets_refused + 1);
        assert_eq!((after.sas, after.half_open), (before.sas, 0));
    };
    for at in 0..earned.len() {
        for bit in [0x01, 0x80] {
            let mut changed = earned.clone();
            changed[at] ^= bit;
            refused(&mut pair, &changed);
        }
    }
    for length in 0..earned.len() {
        refused(&mut pair, &earned[..length]);
    }
    let longer = [&earned[..], &[0]].concat();
    refused(&mut pair, &longer);
    refused(&mut pair, &[0; 3000]);
    refused(&mut pair, &[1; 3000]);
    // Without a nonce, or a ticket.
    for payloads in [
        vec![Payload::Nonce(vec![5; 32])],
        vec![Payload::Notify(Notify::new(
            kind::TICKET_OPAQUE,
            &earned[..],
        ))],
    ] {
        let header = Header::parse(&message(&earned, 9)).unwrap();
        let answers = send(&mut pair, sk::write_plain(header, &payloads).unwrap());
        let header = Header::parse(&answers[0].data).unwrap();
        let said = parse_chain(header.next, &answers[0].data[28..]).unwrap();
        assert_eq!(
            said,
            [Payload::Notify(Notify::new(kind::INVALID_SYNTAX, []))]
        );
    }
    // Longer than any first message: not even an answer.
    assert!(send(&mut pair, message(&[1; 5000], 10)).is_empty());
    // The true one is still good.
    assert_eq!(send(&mut pair, message(&earned, 11)).len(), 1);
    assert_eq!(pair.b.engine.stats().half_open, 1);
}

#[test]
fn nothing_is_kept_before_the_cookie_is_back() {
    let mut pair = pair_with(|_, b| b.cookie_threshold = 0);
    let earned = earn(&mut pair);
    // First a cookie, then the answer.
    assert_eq!(resume(&mut pair, earned.clone()), 6);
    assert!(resumed(&pair).0);
    let sas = pair.b.engine.stats().sas;
    for spi in 1..100 {
        send(&mut pair, message(&earned.opaque, spi));
    }
    let stats = pair.b.engine.stats();
    assert_eq!((stats.sas, stats.half_open), (sas, 0));
    assert_eq!(stats.cookies_sent, 2 + 99);
}

#[test]
fn a_ticket_shows_nothing_of_itself() {
    let mut pair = pair();
    let earned = earn(&mut pair);
    let shown = format!("{earned:?}");
    assert_eq!(
        shown,
        format!("Ticket({} bytes, of gw.example)", earned.opaque.len())
    );
    let held = earned.opaque.windows(14).any(|w| w == b"client.example");
    assert!(!held, "the identity is sealed");
}
