//! Proofs by certificate that are not what they should be.

use super::super::payload::cert::Cert;
use super::super::payload::{self, Payload, parse_chain, write_chain};
use super::certificates::{pair, usual, wish};
use super::*;
use x509::Refused;
use x509::tests::{Authority, P256, P384, params};

#[test]
fn a_hash_that_was_not_announced_is_not_used() {
    let root = Authority::new("root");
    let (client, gateway) = (
        root.own("client.example", P384),
        root.own("gw.example", P256),
    );
    let mut pair = pair(&root, client, gateway);
    let wished = wish(&pair);
    pair.initiate(wished);
    let first = pair.a.take().remove(0);
    let mut second = pair.deliver(&first).remove(0);
    // On the way 2, 3, 4, 5 becomes SHA-256 alone.
    let all = [0, 2, 0, 3, 0, 4, 0, 5];
    let at = second.data.windows(8).position(|w| w == all).unwrap();
    second.data[at..at + 8].copy_from_slice(&[0, 2, 0, 2, 0, 2, 0, 2]);
    assert_eq!(pair.deliver(&second), []);
    assert!(matches!(pair.a.failure(), Some(Failure::NoProof(_))));
}

/// What a client with keys and no manners puts into IKE_AUTH, and what is said of it.
#[test]
fn tampered_proofs_are_refused() {
    type Change = fn(&Authority, &mut Vec<Payload>);
    let cases: [(&str, Change, Failure); 9] = [
        (
            "another signature",
            |_, payloads| each_auth(payloads, |auth| *auth.data.last_mut().unwrap() ^= 1),
            Failure::Certificate(Refused::Signature),
        ),
        (
            "another algorithm",
            |_, payloads| {
                // ecdsa-with-SHA256 becomes ecdsa-with-SHA384.
                each_auth(payloads, |auth| auth.data[12] = 3);
            },
            Failure::Certificate(Refused::Signature),
        ),
        (
            "SHA-1",
            |_, payloads| each_auth(payloads, |auth| auth.method = 1),
            Failure::Certificate(Refused::Algorithm),
        ),
        (
            "a length beyond the end",
            |_, payloads| each_auth(payloads, |auth| auth.data[0] = 255),
            Failure::Certificate(Refused::Algorithm),
        ),
        (
            "no certificate",
            |_, payloads| payloads.retain(|p| !matches!(p, Payload::Cert(_))),
            Failure::Certificate(Refused::Missing),
        ),
        (
            "another key's certificate of the same name",
            |root, payloads| {
                let (der, _) = root.sign(&params(&["client.example"]), P256);
                each_cert(payloads, |cert| cert.data.clone_from(&der));
            },
            Failure::Certificate(Refused::Signature),
        ),
        (
            "another encoding",
            |_, payloads| each_cert(payloads, |cert| cert.encoding = 1),
            Failure::Certificate(Refused::Missing),
        ),
        (
            "a flood of certificates",
            |_, payloads| {
                let more = payloads.iter().find(|p| matches!(p, Payload::Cert(_)));
                let more = more.unwrap().clone();
                payloads.splice(1..1, vec![more; 100]);
            },
            Failure::Certificate(Refused::TooMany {
                found: 101,
                most: 8,
            }),
        ),
        (
            "a certificate of nonsense",
            |_, payloads| payloads.insert(1, Payload::Cert(Cert::x509([0x30, 0x80]))),
            Failure::Certificate(Refused::Unreadable),
        ),
    ];
    for (what, change, expected) in cases {
        let (root, mut pair) = usual();
        let wished = wish(&pair);
        pair.initiate(wished);
        let first = pair.a.take().remove(0);
        let second = pair.deliver(&first).remove(0);
        let mut third = pair.deliver(&second).remove(0);
        let tampered = pair.a.engine.tamper(&third.data, |first, plain| {
            let mut payloads = parse_chain(*first, plain).unwrap();
            change(&root, &mut payloads);
            plain.clear();
            *first = write_chain(&payloads, plain).unwrap();
        });
        third.data = tampered.unwrap();
        pair.deliver(&third);
        assert_eq!(pair.b.failure(), Some(&expected), "{what}");
        assert_eq!(pair.b.engine.stats().authentication_failed, 1, "{what}");
    }
}

fn each_auth(payloads: &mut [Payload], change: impl Fn(&mut payload::auth::Auth)) {
    for payload in payloads {
        if let Payload::Auth(auth) = payload {
            change(auth);
        }
    }
}

fn each_cert(payloads: &mut [Payload], change: impl Fn(&mut Cert)) {
    for payload in payloads {
        if let Payload::Cert(cert) = payload {
            change(cert);
        }
    }
}

/// The signature is of this exchange: one of another is of no use.
#[test]
fn a_proof_does_not_serve_twice() {
    let (_, mut pair) = usual();
    let mut proofs = Vec::new();
    for _ in 0..2 {
        let wished = wish(&pair);
        pair.initiate(wished);
        let first = pair.a.take().remove(0);
        let second = pair.deliver(&first).remove(0);
        proofs.push(pair.deliver(&second).remove(0));
    }
    let mut stolen = Vec::new();
    pair.a.engine.tamper(&proofs[0].data, |first, plain| {
        stolen = parse_chain(*first, plain).unwrap();
    });
    let mut message = proofs[1].clone();
    let tampered = pair.a.engine.tamper(&message.data, |first, plain| {
        plain.clear();
        *first = write_chain(&stolen, plain).unwrap();
    });
    message.data = tampered.unwrap();
    pair.deliver(&message);
    let told = Failure::Certificate(Refused::Signature);
    assert_eq!(pair.b.failure(), Some(&told));
}
