//! How a session comes about, with the wire above each step.

use super::*;

#[test]
fn a_client_gets_a_session_and_an_address() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    pair.initiate(wish);
    // HDR(A,0), SAi1, KEi, Ni, N(NATD_S), N(NATD_D), V -->
    let first = pair.a.take();
    // <-- HDR(A,B), SAr1, KEr, Nr, N(NATD_S), N(NATD_D), V, V
    let second = pair.deliver(&first[0]);
    assert_eq!(pair.b.engine.stats().half_open, 1);
    // HDR(A,B), SK {IDi, IDr, AUTH, CP(CFG_REQUEST), SAi2, TSi, TSr} -->
    let third = pair.deliver(&second[0]);
    assert!(pair.a.events.is_empty() && pair.b.events.is_empty());
    // <-- HDR(A,B), SK {IDr, AUTH, CP(CFG_REPLY), SAr2, TSi, TSr}
    let fourth = pair.deliver(&third[0]);
    assert_eq!(pair.deliver(&fourth[0]), []);
    assert_eq!(
        [first.len(), second.len(), third.len(), fourth.len()],
        [1; 4]
    );

    let [
        Event::Established {
            initiator,
            peer,
            assigned,
            child,
            vendor_ids,
            exporter,
            nat,
            ..
        },
    ] = &pair.a.events[..]
    else {
        panic!("{:?}", pair.a.events)
    };
    assert!(*initiator);
    assert_eq!(peer, &id("gw.example"));
    assert_eq!(assigned, &[IpAddr::from([10, 99, 0, 7])]);
    assert_eq!(vendor_ids, &[b"test gateway".to_vec(), b"another".to_vec()]);
    assert_eq!(
        nat,
        &Nat {
            detected: true,
            local: false,
            remote: false,
            forced: false
        }
    );
    assert_eq!(child.cipher, EspCipher::Aes256Gcm);
    assert_eq!((child.key_in.len(), child.key_out.len()), (32, 32));
    assert!(child.esn);
    assert_eq!(child.local_ts, [TrafficSelector::host([10, 99, 0, 7])]);
    assert_eq!(
        child.remote_ts,
        [TrafficSelector::range([10, 0, 0, 1], [10, 0, 0, 3])]
    );
    let mut ours = [0; 100];
    exporter.derive(b"label", b"context", &mut ours);

    let [
        Event::Established {
            initiator,
            peer,
            assigned,
            child: other,
            exporter,
            ..
        },
    ] = &pair.b.events[..]
    else {
        panic!("{:?}", pair.b.events)
    };
    assert!(!*initiator);
    assert_eq!(peer, &id("client.example"));
    assert_eq!(assigned, &[IpAddr::from([10, 99, 0, 7])]);
    assert_eq!(
        pair.b.owner.asked,
        Some((id("client.example"), vec![], true, false))
    );
    assert_mirrored(child, other);
    let mut theirs = [0; 100];
    exporter.derive(b"label", b"context", &mut theirs);
    assert_eq!(ours, theirs);
    exporter.derive(b"other", b"context", &mut theirs);
    assert_ne!(ours, theirs);
    exporter.derive(b"labe", b"lcontext", &mut theirs);
    assert_ne!(ours, theirs);

    assert_eq!(pair.b.engine.stats().half_open, 0);
    assert_eq!(
        (pair.a.engine.next_timeout(), pair.b.engine.next_timeout()),
        (None, None)
    );
}

#[test]
fn both_families_and_a_wished_address() {
    let mut pair = Pair::new();
    let wished = "10.99.0.42".parse().unwrap();
    let request = AddressRequest {
        v4: Some(Some(wished)),
        v6: Some(None),
    };
    let wish = Initiate {
        request_addresses: Some(request),
        remote_ts: Vec::new(),
        ..pair.wish()
    };
    pair.initiate(wish);
    assert_eq!(pair.run(), 4);
    let requested = vec![IpAddr::V4(wished)];
    assert_eq!(
        pair.b.owner.asked,
        Some((id("client.example"), requested, true, true))
    );
    let (_, child) = pair.a.established().unwrap();
    let hosts =
        ["10.99.0.7", "fd00::7"].map(|a| TrafficSelector::host(a.parse::<IpAddr>().unwrap()));
    assert_eq!(child.local_ts, hosts);
    assert_eq!(child.remote_ts, pair.b.owner.local_ts);
}

#[test]
fn without_an_address_request_none_is_assigned() {
    let mut pair = Pair::new();
    let local_ts = vec![TrafficSelector::host([172, 16, 0, 1])];
    let wish = Initiate {
        request_addresses: None,
        local_ts: local_ts.clone(),
        ..pair.wish()
    };
    pair.initiate(wish);
    assert_eq!(pair.run(), 4);
    assert_eq!(pair.b.owner.asked, None);
    assert_eq!(pair.a.established().unwrap().1.local_ts, local_ts);
}

#[test]
fn every_algorithm_is_spoken() {
    use IkeCipher::{Aes128Gcm16, Aes256Gcm16};
    for cipher in [Aes128Gcm16, Aes256Gcm16] {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            for group in [Group::X25519, Group::P256] {
                for (esp, esn) in [(EspCipher::Aes128Gcm, true), (EspCipher::Aes256Gcm, false)] {
                    let mut pair = Pair::with(|a, b| {
                        for s in [a, b] {
                            s.ike_proposals[0].ciphers = vec![cipher];
                            s.ike_proposals[0].prfs = vec![prf];
                            s.ike_proposals[0].groups = vec![group];
                            s.esp_proposals = vec![EspProposal {
                                ciphers: vec![esp],
                                esn: vec![esn],
                            }];
                        }
                    });
                    pair.up();
                }
            }
        }
    }
}

#[test]
fn the_responder_prefers() {
    let mut pair = Pair::with(|_, b| {
        b.ike_proposals[0].ciphers.reverse();
        b.esp_proposals[0].ciphers.reverse();
        b.esp_proposals[0].esn = vec![false, true];
    });
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    let (_, child) = pair.a.established().unwrap();
    assert_eq!((child.cipher, child.esn), (EspCipher::Aes128Gcm, false));
    assert_mirrored(child, pair.b.established().unwrap().1);
}

#[test]
fn another_group_is_asked_for() {
    let mut pair = Pair::with(|a, b| {
        a.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
        b.ike_proposals[0].groups = vec![Group::P256];
    });
    let wish = pair.wish();
    pair.initiate(wish);
    // HDR(A,0), SAi1, KEi(31), Ni --> <-- HDR(A,0), N(INVALID_KE_PAYLOAD, 19)
    // HDR(A,0), SAi1, KEi(19), Ni --> and on as usual
    assert_eq!(pair.run(), 6);
    assert_mirrored(
        pair.a.established().unwrap().1,
        pair.b.established().unwrap().1,
    );
    assert_eq!(pair.b.engine.stats().sas, 1);
}

#[test]
fn a_cookie_is_returned_before_state_is_made() {
    let mut pair = Pair::with(|a, b| {
        b.cookie_threshold = 0;
        a.ike_proposals[0].groups = vec![Group::X25519, Group::P256];
        b.ike_proposals[0].groups = vec![Group::P256];
    });
    let wish = pair.wish();
    pair.initiate(wish);
    // HDR(A,0), SAi1, KEi, Ni --> <-- HDR(A,0), N(COOKIE)
    let first = pair.a.take();
    let cookie = pair.deliver(&first[0]);
    assert_eq!(pair.b.engine.stats().sas, 0);
    assert_eq!(pair.b.engine.stats().cookies_sent, 1);
    // HDR(A,0), N(COOKIE), SAi1, KEi(31), Ni --> <-- HDR(A,0), N(INVALID_KE_PAYLOAD, 19)
    let second = pair.deliver(&cookie[0]);
    // The cookie doubled on its way changes nothing.
    assert_eq!(pair.deliver(&cookie[0]), []);
    let other = pair.deliver(&second[0]);
    assert_eq!(pair.b.engine.stats().sas, 0);
    // HDR(A,0), N(COOKIE), SAi1, KEi(19), Ni --> and on as usual
    let third = pair.deliver(&other[0]);
    assert_eq!(pair.deliver(&other[0]), []);
    let answer = pair.deliver(&third[0]);
    let auth = pair.deliver(&answer[0]);
    let last = pair.deliver(&auth[0]);
    pair.deliver(&last[0]);
    assert_mirrored(
        pair.a.established().unwrap().1,
        pair.b.established().unwrap().1,
    );
    assert_eq!(pair.b.engine.stats().cookies_wrong, 0);
}

#[test]
fn initial_contact_replaces_what_is_left() {
    let mut pair = Pair::new();
    let (a, old) = pair.up();
    // The client forgets everything, and starts anew.
    pair.a.engine.forget(a);
    let wish = Initiate {
        initial_contact: true,
        ..pair.wish()
    };
    pair.initiate(wish);
    pair.run();
    let [
        Event::Closed {
            id: closed, reason, ..
        },
        Event::Established { id: new, .. },
    ] = &pair.b.events[..]
    else {
        panic!("{:?}", pair.b.events)
    };
    assert_eq!((closed, reason), (&old, &CloseReason::Replaced));
    assert_ne!(new, &old);
    assert_eq!(pair.b.engine.stats().sas, 1);
    // Without it, sessions stand side by side.
    pair.b.events.clear();
    let wish = pair.wish();
    pair.initiate(wish);
    pair.run();
    assert_eq!(pair.b.engine.stats().sas, 2);
    assert_eq!(pair.b.closed(), None);
}
