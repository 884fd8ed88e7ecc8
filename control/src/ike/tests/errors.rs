//! Errors that a peer tells, and that we tell strangers (RFC 7296 section 2.21), with the wire above
//! each step. `A` is the client.

use super::life::say;
use super::session::Session;
use super::*;
use crate::ike::payload::Payload;
use crate::ike::payload::header::exchange;
use crate::ike::payload::notify::{Notify, kind};

/// Changes an answer of the gateway into a notification.
fn becomes(s: &Session, answer: &mut Transmit, kind: u16, data: &[u8]) {
    let engine = &s.pair.b.engine;
    let changed = engine.tamper(&answer.data, |first, plain| {
        *first = payload::kind::NOTIFY;
        let [high, low] = kind.to_be_bytes();
        *plain = vec![0, 0, 0, 8 + data.len() as u8, 0, 0, high, low];
        plain.extend_from_slice(data);
    });
    answer.data = changed.unwrap();
}

#[test]
fn who_can_not_read_us_has_given_the_session_up() {
    // A: HDR, SK {…} -->                             <-- B: HDR, SK {N(INVALID_SYNTAX)}
    let asks: [fn(&mut Session) -> Vec<Transmit>; 5] = [
        |s| s.a_rekeys_child(),
        |s| s.a_rekeys_ike(),
        |s| {
            let (a, now) = (s.ids().0, s.pair.now);
            let node = &mut s.pair.a;
            node.engine.add_child(now, a, &[], &[], &mut node.owner);
            node.take()
        },
        |s| {
            let (a, spi) = (s.ids().0, s.a.only().spi_in);
            s.pair.a.engine.delete_child(s.pair.now, a, spi);
            s.pair.a.take()
        },
        |s| {
            let a = s.ids().0;
            s.pair.a.engine.check_liveness(s.pair.now, a);
            s.pair.a.take()
        },
    ];
    for (number, ask) in asks.into_iter().enumerate() {
        let mut s = Session::new(|_, _| {});
        let request = ask(&mut s);
        let mut answer = s.pair.deliver(&request[0]).remove(0);
        becomes(&s, &mut answer, kind::INVALID_SYNTAX, &[]);
        assert!(s.pair.deliver(&answer).is_empty(), "without a DELETE");
        s.a.follow(&mut s.pair.a);
        let reason = CloseReason::Error(Failure::InvalidSyntax);
        assert_eq!(s.a.closed, Some(reason), "{number}");
        s.a.assert_no_leak(&s.pair.a, s.first[0]);
        assert_eq!(s.pair.a.engine.stats().sas, 0);
    }
}

#[test]
fn what_closes_keeps_its_reason() {
    // A: HDR, SK {D(IKE)} -->                        <-- B: HDR, SK {N(INVALID_SYNTAX)}
    let mut s = Session::new(|_, _| {});
    let a = s.ids().0;
    s.pair.a.engine.close(s.pair.now, a);
    let request = s.pair.a.take();
    let mut answer = s.pair.deliver(&request[0]).remove(0);
    becomes(&s, &mut answer, kind::INVALID_SYNTAX, &[]);
    s.pair.deliver(&answer);
    s.a.follow(&mut s.pair.a);
    assert_eq!(s.a.closed, Some(CloseReason::Local));
}

#[test]
fn what_was_wrong_with_our_answer_ends_the_session() {
    // A: HDR, SK {N(…)} -->                          <-- B: HDR, SK {}
    for (kind, data, expected) in [
        (
            kind::AUTHENTICATION_FAILED,
            &[][..],
            Failure::AuthenticationFailed,
        ),
        (kind::INVALID_SYNTAX, &[], Failure::InvalidSyntax),
        (
            kind::UNSUPPORTED_CRITICAL_PAYLOAD,
            &[77],
            Failure::UnsupportedCriticalPayload(77),
        ),
    ] {
        let mut s = Session::new(|_, _| {});
        let a = s.ids().0;
        let notify = Payload::Notify(Notify::new(kind, data));
        let answer = say(&mut s.pair, a, exchange::INFORMATIONAL, vec![notify]);
        assert_eq!(answer, Some(Vec::new()));
        s.b.follow(&mut s.pair.b);
        assert_eq!(s.b.closed, Some(CloseReason::Error(expected)));
    }
}

#[test]
fn another_group_is_asked_for_once() {
    // A: HDR, SK {…, KEi(31)} -->        <-- B: HDR, SK {N(INVALID_KE_PAYLOAD, 19)}
    // A: HDR, SK {…, KEi(19)} -->        <-- B: HDR, SK {N(INVALID_KE_PAYLOAD, 31)}, and so on
    for child in [true, false] {
        let mut s = Session::new(|a, _| a.child_groups = vec![Group::X25519, Group::P256]);
        let request = match child {
            true => s.a_rekeys_child(),
            false => s.a_rekeys_ike(),
        };
        let mut answer = s.pair.deliver(&request[0]).remove(0);
        becomes(&s, &mut answer, kind::INVALID_KE_PAYLOAD, &[0, 19]);
        let again = s.pair.deliver(&answer);
        assert_eq!(again.len(), 1);
        let mut answer = s.pair.deliver(&again[0]).remove(0);
        becomes(&s, &mut answer, kind::INVALID_KE_PAYLOAD, &[0, 31]);
        assert!(s.pair.deliver(&answer).is_empty(), "{child}");
        assert_eq!(s.pair.a.engine.stats().rekeyings_failed, 1);
        s.a.follow(&mut s.pair.a);
        assert_eq!(s.a.closed, None, "it tries again later");
    }
}

#[test]
fn strangers_hear_few_complaints() {
    // HDR(version 3) -->                             <-- HDR, N(INVALID_MAJOR_VERSION)
    // HDR, SA of 3 bytes -->                         <-- HDR, N(INVALID_SYNTAX)
    for (next, version, exchange) in [(0, 0x30, 37), (33, 0x20, 34)] {
        let mut pair = Pair::new();
        let mut data = vec![0; 31];
        data[16..28].copy_from_slice(&[next, version, exchange, 0x08, 0, 0, 0, 0, 0, 0, 0, 31]);
        let mut answered = 0;
        for spi in 1..=500_u64 {
            data[..8].copy_from_slice(&spi.to_be_bytes());
            let t = Transmit {
                local: "203.0.113.66:500".parse().unwrap(),
                remote: pair.b.address,
                data: data.clone(),
            };
            answered += pair.b.receive(pair.now, &t).len();
        }
        assert_eq!(answered, 200);
        assert_eq!(pair.b.engine.stats().complaints_withheld, 300);
        // A true handshake is not among them.
        pair.up();
    }
}
