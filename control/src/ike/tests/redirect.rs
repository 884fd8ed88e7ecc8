//! REDIRECT (RFC 5685), with the wire above each step.

use super::super::payload::header::HEADER;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, parse_chain, sk};
use super::*;
use payload::header::Header;

fn elsewhere() -> GatewayIdentity {
    GatewayIdentity::Address([192, 0, 2, 2].into())
}

/// A wish of a client that follows.
fn wish(pair: &Pair) -> Initiate {
    Initiate {
        follows_redirects: true,
        ..pair.wish()
    }
}

/// The notifications of a message in the clear.
fn notifies(message: &[u8]) -> Vec<Notify> {
    let header = Header::parse(message).unwrap();
    let payloads = parse_chain(header.next, &message[HEADER..]).unwrap();
    let all = payloads.into_iter().filter_map(|p| match p {
        Payload::Notify(n) => Some(n),
        _ => None,
    });
    all.collect()
}

fn has(message: &[u8], kind: u16) -> bool {
    notifies(message).iter().any(|n| n.kind == kind)
}

#[test]
fn a_stranger_is_redirected_and_nothing_is_kept() {
    let mut pair = Pair::new();
    for to in [
        elsewhere(),
        GatewayIdentity::Address("2001:db8::2".parse().unwrap()),
        GatewayIdentity::Fqdn("gw2.example".into()),
    ] {
        pair.b.owner.admission = [Admission::Redirect(to.clone()), Admission::Take];
        let wish = wish(&pair);
        pair.initiate(wish);
        // HDR(A,0), SAi1, KEi, Ni, N(REDIRECT_SUPPORTED) -->
        // <-- HDR(A,0), N(REDIRECT, to, Ni)
        assert_eq!(pair.run(), 2);
        assert_eq!(pair.a.failure(), Some(&Failure::Redirected(to)));
        assert_eq!((pair.b.engine.stats().sas, pair.b.events.len()), (0, 0));
        pair.a.events.clear();
    }
    assert_eq!(pair.b.engine.stats().redirected, 3);
}

#[test]
fn a_redirected_client_says_where_it_comes_from() {
    let mut pair = Pair::new();
    let from = Some([192, 0, 2, 9].into());
    let wish = Initiate {
        redirected_from: from,
        ..wish(&pair)
    };
    pair.initiate(wish);
    // HDR(A,0), SAi1, KEi, Ni, N(REDIRECTED_FROM, 192.0.2.9) -->
    let first = pair.a.take();
    assert!(has(&first[0].data, kind::REDIRECTED_FROM));
    assert!(!has(&first[0].data, kind::REDIRECT_SUPPORTED));
    let answer = pair.deliver(&first[0]);
    assert_eq!(pair.b.owner.sent_from, from);
    for t in answer {
        for t in pair.deliver(&t) {
            pair.deliver(&t);
        }
    }
    // It stands for REDIRECT_SUPPORTED.
    let (id, _) = pair.b.established().unwrap();
    assert!(pair.b.engine.redirect(pair.now, id, elsewhere()));
}

#[test]
fn a_forged_redirect_counts_for_nothing() {
    let mut pair = Pair::new();
    let wish = wish(&pair);
    pair.initiate(wish);
    let first = pair.a.take().remove(0);
    let request = Header::parse(&first.data).unwrap();
    let forged = |nonce: &[u8]| {
        let header = Header {
            initiator: false,
            response: true,
            ..request
        };
        let data = elsewhere().to_wire(nonce);
        let notify = Payload::Notify(Notify::new(kind::REDIRECT, data));
        Transmit {
            local: first.remote,
            remote: first.local,
            data: sk::write_plain(header, &[notify]).unwrap(),
        }
    };
    // <-- HDR(A,0), N(REDIRECT, elsewhere), with no nonce, and with another one
    for nonce in [&[][..], &[7; 32]] {
        assert!(pair.deliver(&forged(nonce)).is_empty());
        assert!(pair.a.events.is_empty());
    }
    assert_eq!(pair.a.engine.stats().stale_response, 2);
    // The true answer still counts.
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
fn whoever_does_not_follow_is_refused() {
    for admission in [Admission::Redirect(elsewhere()), Admission::Refuse] {
        let mut pair = Pair::new();
        pair.b.owner.admission = [admission, Admission::Take];
        let wish = pair.wish();
        pair.initiate(wish);
        let first = pair.a.take().remove(0);
        assert!(!has(&first.data, kind::REDIRECT_SUPPORTED));
        // HDR(A,0), SAi1, KEi, Ni -->
        // <-- HDR(A,0), N(TEMPORARY_FAILURE)
        for t in pair.deliver(&first) {
            pair.deliver(&t);
        }
        assert_eq!(pair.a.failure(), Some(&Failure::TemporaryFailure));
        let stats = pair.b.engine.stats();
        assert_eq!((stats.sas, stats.turned_away), (0, 1));
    }
}

#[test]
fn a_client_is_redirected_once_it_is_known() {
    let mut pair = Pair::new();
    pair.b.owner.admission = [Admission::Take, Admission::Redirect(elsewhere())];
    let wish = wish(&pair);
    pair.initiate(wish);
    // HDR(A,0), … -->  <-- HDR(A,B), …
    // HDR, SK {IDi, AUTH, SAi2, TSi, TSr} -->
    // <-- HDR, SK {IDr, AUTH, N(REDIRECT, elsewhere)}
    // HDR, SK {D} -->  <-- HDR, SK {}
    assert_eq!(pair.run(), 6);
    let failed = Failure::Redirected(elsewhere());
    assert_eq!(pair.a.failure(), Some(&failed));
    assert_eq!(pair.b.failure(), Some(&failed));
    // No SPI is left promised, and no inner address was assigned.
    let freed = |e: &Event| {
        matches!(
            e,
            Event::Failed {
                spi_in: Some(_),
                ..
            }
        )
    };
    assert!(pair.a.events.iter().any(freed));
    assert_eq!(pair.b.owner.asked, None);
    pair.pass(Duration::from_secs(20));
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.engine.stats().sas, 0);
    }
}

#[test]
fn only_a_gateway_that_has_proven_itself_redirects_in_ike_auth() {
    let mut pair = Pair::new();
    pair.b.owner.admission = [Admission::Take, Admission::Redirect(elsewhere())];
    let wish = Initiate {
        remote_id: Some(id("another.example")),
        ..wish(&pair)
    };
    pair.initiate(wish);
    pair.run();
    assert!(matches!(
        pair.a.failure(),
        Some(Failure::WrongIdentity { .. })
    ));
}

#[test]
fn a_session_is_redirected_and_stays_until_it_is_closed() {
    let mut pair = Pair::new();
    let wish = wish(&pair);
    let (a, b) = pair.up_by(wish);
    // Also after its IKE SA has been replaced.
    for round in 0..2 {
        assert!(pair.b.engine.redirect(pair.now, b, elsewhere()));
        // <-- HDR, SK {N(REDIRECT, elsewhere)}
        // HDR, SK {} -->
        assert_eq!(pair.run(), 2, "round {round}");
        match &pair.a.events[..] {
            [Event::Redirected { id, to }] => assert_eq!((*id, to), (a, &elsewhere())),
            other => panic!("{other:?}"),
        }
        pair.a.events.clear();
        pair.a.engine.rekey_ike(pair.now, a);
        pair.wait();
        pair.run();
        pair.a.events.clear();
    }
    assert!(pair.a.engine.is_established(a) && pair.b.engine.is_established(b));
    pair.a.engine.close(pair.now, a);
    pair.run();
    assert_eq!(pair.b.closed(), Some(&CloseReason::PeerDeleted));
}

#[test]
fn nobody_is_redirected_who_has_not_said_that_it_follows() {
    let mut pair = Pair::new();
    let (a, b) = pair.up();
    assert!(!pair.b.engine.redirect(pair.now, b, elsewhere()));
    assert_eq!(pair.run(), 0);
    // A gateway without manners sends it all the same.
    let task = task::redirect::Redirect { to: elsewhere() };
    pair.b.engine.start(pair.now, b, Box::new(task));
    assert_eq!(pair.run(), 2);
    assert!(pair.a.events.is_empty() && pair.a.engine.is_established(a));
    assert_eq!(pair.a.engine.stats().unexpected, 1);
}

#[test]
fn a_responder_may_follow_too() {
    // Section 8: either peer, if both say so.
    let mut pair = Pair::with(|_, b| b.follows_redirects = true);
    pair.up();
    let mut pair = Pair::with(|_, b| b.follows_redirects = true);
    let wish = wish(&pair);
    let (a, b) = pair.up_by(wish);
    assert!(pair.a.engine.redirect(pair.now, a, elsewhere()));
    pair.run();
    assert!(matches!(&pair.b.events[..], [Event::Redirected { id, .. }] if *id == b));
}

#[test]
fn a_malformed_redirect_is_counted() {
    let mut pair = Pair::new();
    let wish = wish(&pair);
    let (a, b) = pair.up_by(wish);
    let to = GatewayIdentity::Fqdn("with space".into());
    assert!(pair.b.engine.redirect(pair.now, b, to));
    pair.run();
    assert!(pair.a.events.is_empty() && pair.a.engine.is_established(a));
    assert_eq!(pair.a.engine.stats().malformed, 1);
}
