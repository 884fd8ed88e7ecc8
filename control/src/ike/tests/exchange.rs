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
