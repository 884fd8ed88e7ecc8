//! Sessions of peers that prove themselves by certificates.

use std::sync::Arc;

use super::super::payload::notify::kind;
use super::super::payload::{Payload, header::HEADER, parse_chain};
use super::*;
use x509::tests::{Authority, DAY, ED25519, Key, NOW, P256, P384, RSA_2048, params, private};
use x509::{Own, Refused, Trust};

const KEYS: [Key; 4] = [P256, P384, ED25519, Key::File(RSA_2048)];

fn certificates() -> Methods {
    Methods {
        local: Proof::Certificate,
        remote: Proof::Certificate,
    }
}

/// Client and gateway, each with a certificate of its own and trust in the CA.
pub(super) fn pair(root: &Authority, client: Own, gateway: Own) -> Pair {
    let trust = Arc::new(root.trust());
    let mut pair = Pair::with(|a, b| {
        for (settings, own) in [(a, client), (b, gateway)] {
            settings.x509 = X509 {
                own: Some(Arc::new(own)),
                trust: Arc::clone(&trust),
            };
        }
    });
    pair.b.owner.auth = [(id("client.example"), certificates())].into();
    pair
}

pub(super) fn usual() -> (Authority, Pair) {
    let root = Authority::new("root");
    let (client, gateway) = (
        root.own("client.example", P256),
        root.own("gw.example", P256),
    );
    let pair = pair(&root, client, gateway);
    (root, pair)
}

pub(super) fn wish(pair: &Pair) -> Initiate {
    Initiate {
        auth: certificates(),
        ..pair.wish()
    }
}

/// Runs a session that does not come about; yields what each side says of it.
fn refused(mut pair: Pair) -> (Failure, Option<Failure>) {
    let wish = wish(&pair);
    pair.initiate(wish);
    pair.run();
    assert!(pair.a.established().is_none() && pair.a.engine.stats().established == 0);
    pair.pass(Duration::from_secs(60));
    assert_eq!(
        (pair.a.engine.stats().sas, pair.b.engine.stats().sas),
        (0, 0)
    );
    let closed = pair.b.closed().cloned();
    let told = pair
        .b
        .failure()
        .cloned()
        .or(closed.map(|reason| match reason {
            CloseReason::Error(failure) => failure,
            other => panic!("{other:?}"),
        }));
    (pair.a.failure().unwrap().clone(), told)
}

#[test]
fn every_key_in_both_roles() {
    let root = Authority::new("root");
    for client in KEYS {
        for gateway in KEYS {
            let (client, gateway) = (
                root.own("client.example", client),
                root.own("gw.example", gateway),
            );
            let mut pair = pair(&root, client, gateway);
            let wish = wish(&pair);
            pair.initiate(wish);
            // HDR(A,0), SAi1, KEi, Ni, N(SIGNATURE_HASH_ALGORITHMS), … -->
            // <-- HDR(A,B), SAr1, KEr, Nr, N(SIGNATURE_HASH_ALGORITHMS), …, CERTREQ
            // HDR(A,B), SK {IDi, CERT, CERTREQ, IDr, AUTH, …} -->
            // <-- HDR(A,B), SK {IDr, CERT, AUTH, …}
            // The longest keys make a message that goes in two parts.
            assert!(matches!(pair.run(), 4 | 5));
            let (a, b) = (pair.a.established().unwrap(), pair.b.established().unwrap());
            assert_mirrored(a.1, b.1);
        }
    }
}

#[test]
fn each_side_proves_itself_its_own_way() {
    let key = || Proof::Psk(psk("secret"));
    for (ours, theirs) in [
        (key(), Proof::Certificate),
        (Proof::Certificate, key()),
        (Proof::Certificate, Proof::Certificate),
    ] {
        let (_, mut pair) = usual();
        let wish = Initiate {
            auth: Methods {
                local: ours.clone(),
                remote: theirs.clone(),
            },
            ..pair.wish()
        };
        let methods = Methods {
            local: theirs,
            remote: ours,
        };
        pair.b.owner.auth = [(id("client.example"), methods)].into();
        pair.initiate(wish);
        assert_eq!(pair.run(), 4);
        assert!(pair.a.established().is_some() && pair.b.established().is_some());
    }
}

#[test]
fn one_way_does_not_stand_for_another() {
    // The client proves itself by the key, which the gateway takes from nobody with a certificate.
    let (_, mut pair) = usual();
    let key = Methods::from(psk("secret"));
    pair.initiate(Initiate {
        auth: key.clone(),
        ..pair.wish()
    });
    pair.run();
    assert_eq!(pair.a.failure(), Some(&Failure::AuthenticationFailed));
    // And the other way round.
    let (_, mut pair) = usual();
    pair.b.owner.auth = [(id("client.example"), key)].into();
    let wish = wish(&pair);
    pair.initiate(wish);
    pair.run();
    assert_eq!(pair.b.failure(), Some(&Failure::AuthenticationFailed));
    // The gateway must show a certificate, and has a key only.
    let (_, mut pair) = usual();
    let methods = Methods {
        local: Proof::Psk(psk("secret")),
        remote: Proof::Certificate,
    };
    pair.b.owner.auth = [(id("client.example"), methods)].into();
    let (failure, _) = refused(pair);
    assert_eq!(failure, Failure::PeerNotAuthenticated);
}

#[test]
fn a_peer_that_knows_no_digital_signatures_gets_the_old_methods() {
    let (root, mut pair) = usual();
    // The client trusts nobody, and so announces nothing; the gateway proves itself by the key.
    let own = Some(Arc::new(root.own("client.example", P256)));
    let trust = Arc::new(Trust::default());
    pair.a.engine.set_x509(X509 { own, trust });
    let mut auth = certificates();
    auth.remote = Proof::Psk(psk("secret"));
    let methods = Methods {
        local: Proof::Psk(psk("secret")),
        remote: Proof::Certificate,
    };
    pair.b.owner.auth = [(id("client.example"), methods)].into();
    pair.initiate(Initiate {
        auth,
        ..pair.wish()
    });
    assert_eq!(pair.run(), 4);
    assert!(pair.b.established().is_some());
    // Towards the client the gateway signs by RFC 4754, which the client, that trusts nobody, does
    // not believe.
    pair.b.owner.auth = [(id("client.example"), certificates())].into();
    pair.a.events.clear();
    let wish = wish(&pair);
    pair.initiate(wish);
    pair.run();
    assert_eq!(
        pair.a.failure(),
        Some(&Failure::Certificate(Refused::NoTrust))
    );
}

#[test]
fn names_must_match_the_wish_and_the_certificate() {
    // The gateway says that it is gw.example, and its certificate says otherwise.
    let root = Authority::new("root");
    let named = |gateway| {
        let (client, gateway) = (root.own("client.example", P256), root.own(gateway, P256));
        pair(&root, client, gateway)
    };
    let (failure, told) = refused(named("other.example"));
    assert_eq!(
        failure,
        Failure::Certificate(Refused::Name(id("gw.example")))
    );
    assert_eq!(told, Some(Failure::AuthenticationFailed));
    // It is what it says, and somebody else was asked for.
    let mut pair = named("gw.example");
    let mut wish = wish(&pair);
    wish.remote_id = Some(id("better.example"));
    pair.initiate(wish);
    pair.run();
    let (found, expected) = (id("gw.example"), id("better.example"));
    let wrong = Failure::WrongIdentity { found, expected };
    assert_eq!(pair.a.failure(), Some(&wrong));
    // A client with another's certificate.
    let (client, gateway) = (
        root.own("mallory.example", P256),
        root.own("gw.example", P256),
    );
    let (failure, told) = refused(self::pair(&root, client, gateway));
    assert_eq!(failure, Failure::AuthenticationFailed);
    let refused = Refused::Name(id("client.example"));
    assert_eq!(told, Some(Failure::Certificate(refused)));
}

#[test]
fn distinguished_names_are_identities_too() {
    let root = Authority::new("root");
    let name = "CN=client.example,O=Example";
    let (client, gateway) = (
        root.own("client.example", P256),
        root.own("gw.example", P256),
    );
    let mut pair = pair(&root, client, gateway);
    pair.a = {
        let mut settings = pair.a.engine.settings().clone();
        settings.local_id = id(name);
        Node::new(settings, "198.51.100.7:500", 1)
    };
    pair.b.owner.auth = [(id(name), certificates())].into();
    let wish = wish(&pair);
    pair.initiate(wish);
    assert_eq!(pair.run(), 4);
    let Some(Event::Established { peer, .. }) = pair.b.events.first() else {
        panic!("{:?}", pair.b.events)
    };
    assert_eq!(peer.to_string(), name);
}

#[test]
fn time_decides() {
    for (time, expected) in [
        (NOW + 2 * DAY, Refused::Expired(NOW + DAY)),
        (NOW - 2 * DAY, Refused::NotYetValid(NOW - DAY)),
    ] {
        let (_, mut pair) = usual();
        pair.b.owner.unix_time = time;
        let (failure, told) = refused(pair);
        assert_eq!(failure, Failure::AuthenticationFailed);
        assert_eq!(told, Some(Failure::Certificate(expected)));
    }
}

#[test]
fn what_is_revoked_meanwhile_gets_no_new_session() {
    let root = Authority::new("root");
    let mut revocable = params(&["client.example"]);
    revocable.serial_number = Some(42u64.into());
    let (der, key) = root.sign(&revocable, P256);
    let client = Own::new(vec![der], private(&key)).unwrap();
    let mut pair = pair(&root, client, root.own("gw.example", P256));
    let wished = wish(&pair);
    pair.initiate(wished);
    assert_eq!(pair.run(), 4);
    assert!(pair.b.established().is_some());
    pair.a.events.clear();
    pair.b.events.clear();
    let crls = [root.crl(&[42], 9)];
    let trust = Trust::new(std::slice::from_ref(&root.der), &crls).unwrap();
    let own = pair.b.engine.settings().x509.own.clone();
    let trust = Arc::new(trust);
    pair.b.engine.set_x509(X509 { own, trust });
    let wished = wish(&pair);
    pair.initiate(wished);
    pair.run();
    let told = Failure::Certificate(Refused::Revoked);
    assert_eq!(pair.b.failure(), Some(&told));
    // The session that there was goes on.
    assert_eq!(pair.b.closed(), None);
}

#[test]
fn without_a_certificate_a_wish_fails_at_once() {
    let (root, mut pair) = usual();
    let trust = Arc::new(root.trust());
    pair.a.engine.set_x509(X509 { own: None, trust });
    let wished = wish(&pair);
    pair.initiate(wished);
    assert_eq!(pair.run(), 2);
    assert!(matches!(pair.a.failure(), Some(Failure::NoProof(_))));
    assert_eq!(pair.a.engine.stats().sas, 0);
    // A gateway without one refuses.
    let (root, mut pair) = usual();
    let trust = Arc::new(root.trust());
    pair.b.engine.set_x509(X509 { own: None, trust });
    let (failure, told) = refused(pair);
    assert_eq!(failure, Failure::AuthenticationFailed);
    assert!(matches!(told, Some(Failure::NoProof(_))));
}

#[test]
fn requests_name_the_authorities() {
    let (root, mut pair) = usual();
    let wished = wish(&pair);
    pair.initiate(wished);
    let first = pair.a.take().remove(0);
    let second = pair.deliver(&first).remove(0);
    let payloads = parse_chain(second.data[16], &second.data[HEADER..]).unwrap();
    let request = payloads.iter().find_map(|p| match p {
        Payload::CertReq(request) => Some(request),
        _ => None,
    });
    let authorities: Vec<u8> = root.trust().authorities().flatten().collect();
    assert_eq!(request.unwrap().authorities, authorities);
    assert_eq!(authorities.len(), 20);
    let announced = |p: &Payload| match p {
        Payload::Notify(n) => n.kind == kind::SIGNATURE_HASH_ALGORITHMS,
        _ => false,
    };
    assert!(payloads.iter().any(announced));
}

/// Two CAs are trusted; one of them is not to vouch for this client.
#[test]
fn only_some_cas_may_vouch_for_a_peer() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    for (vouching, expected) in [(&root, true), (&other, false)] {
        let client = vouching.own("client.example", P256);
        let mut pair = pair(&root, client, root.own("gw.example", P256));
        let both = Trust::new(&[root.der.clone(), other.der.clone()], &[]).unwrap();
        pair.b.engine.set_x509(X509 {
            own: Some(Arc::new(root.own("gw.example", P256))),
            trust: Arc::new(both),
        });
        let methods = Methods {
            local: Proof::Certificate,
            remote: Proof::CertificateOf(root.trust().ids()),
        };
        pair.b.owner.auth = [(id("client.example"), methods)].into();
        if expected {
            let wish = wish(&pair);
            pair.initiate(wish);
            assert_eq!(pair.run(), 4);
            assert!(pair.b.established().is_some());
            continue;
        }
        let told = Failure::Certificate(Refused::OtherAuthority);
        assert_eq!(refused(pair), (Failure::AuthenticationFailed, Some(told)));
    }
}
