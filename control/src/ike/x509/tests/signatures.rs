//! Private keys, and signatures in AUTH payloads.

use super::super::super::payload::auth::{
    Auth, DIGITAL_SIGNATURE, ECDSA_256, ECDSA_384, SHARED_KEY,
};
use super::super::signature::write_auth;
use super::*;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

const KEYS: [(Key, KeyKind); 5] = [
    (P256, KeyKind::EcdsaP256),
    (P384, KeyKind::EcdsaP384),
    (ED25519, KeyKind::Ed25519),
    (Key::File(RSA_2048), KeyKind::Rsa),
    (Key::File(RSA_3072), KeyKind::Rsa),
];

/// A key with its certificate's public key.
fn pair(key: Key) -> (PrivateKey, PublicKey) {
    let root = Authority::new("root");
    let (der, key) = root.sign(&params(&["client.example"]), key);
    let public = PublicKey::of(&Certificate::from_der(&der).unwrap()).unwrap();
    (private(&key), public)
}

#[test]
fn every_scheme_verifies_with_its_own_key_only() {
    let pairs = KEYS.map(|(key, _)| pair(key));
    for (signer, (private, _)) in pairs.iter().enumerate() {
        let mut schemes = 0;
        for scheme in Scheme::ALL {
            let Some(signature) = private.sign(scheme, b"octets") else {
                continue;
            };
            schemes += 1;
            let auth = write_auth(scheme, &signature);
            for (verifier, (_, public)) in pairs.iter().enumerate() {
                let verified = public.verify(&auth, b"octets");
                assert_eq!(
                    verified.is_ok(),
                    signer == verifier,
                    "{scheme:?} {verifier}"
                );
            }
            let (_, public) = &pairs[signer];
            assert_eq!(public.verify(&auth, b"octetz"), Err(Refused::Signature));
            // The same signature under the name of another algorithm.
            for other in Scheme::ALL.into_iter().filter(|other| *other != scheme) {
                let confused = write_auth(other, &signature);
                assert!(
                    public.verify(&confused, b"octets").is_err(),
                    "{scheme:?} {other:?}"
                );
            }
            for length in 0..auth.data.len() {
                let data = auth.data[..length].to_vec();
                let cut = Auth { data, ..auth };
                assert!(public.verify(&cut, b"octets").is_err(), "{length}");
            }
        }
        let expected = if pairs[signer].1.kind == KeyKind::Rsa {
            6
        } else {
            1
        };
        assert_eq!(schemes, expected);
    }
}

/// A signature of OpenSSL over "octets": libreswan takes SHA-512 for every curve.
#[test]
fn ecdsa_with_sha_512_is_verified() {
    for (pem, hex) in [
        (
            include_str!("keys/ec-p256-cert.pem"),
            "3045022100f9433b1f882571b0855b864b22f37e2a61b53497d4601c11522f0ed7edf370bf0220587e14f9\
             7253d9571341dbb6d102d20857005b8807684aeb063dc4dfef189c1c",
        ),
        (
            include_str!("keys/ec-p384-cert.pem"),
            "3066023100a04db598058f3a8a5d60358a2b71074e3af21efbe4484b0d968593a9334b13aaa7a260843501\
             84b9004bbea0d08cac5d023100c5d053ba36d86b2ee70cc06755f948642aa75b847c2879f85d6f0e1cddaf\
             88c38b246a489ed96455c9b9ee4d521723cf",
        ),
    ] {
        let signature: Vec<u8> = (0..hex.len() / 2)
            .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
            .collect();
        let der = certificate_from_pem(pem);
        let public = PublicKey::of(&Certificate::from_der(&der).unwrap()).unwrap();
        let auth = write_auth(Scheme::Ecdsa(Hash::Sha512), &signature);
        assert_eq!(public.verify(&auth, b"octets"), Ok(()));
        assert_eq!(public.verify(&auth, b"octetz"), Err(Refused::Signature));
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            let auth = write_auth(Scheme::Ecdsa(Hash::Sha512), &changed);
            assert!(public.verify(&auth, b"octets").is_err(), "{at}");
            let auth = write_auth(Scheme::Ecdsa(Hash::Sha512), &signature[..at]);
            assert!(public.verify(&auth, b"octets").is_err(), "{at}");
        }
        for other in [Hash::Sha256, Hash::Sha384] {
            let auth = write_auth(Scheme::Ecdsa(other), &signature);
            assert_eq!(public.verify(&auth, b"octets"), Err(Refused::Signature));
        }
    }
}

#[test]
fn the_peers_hashes_choose_the_way() {
    let only = |hash: Hash| Hashes::from_wire(&[0, hash as u8]);
    let verified = |key: Key, hashes: Hashes| {
        let (private, public) = pair(key);
        let auth = private.auth(hashes, b"octets")?;
        public.verify(&auth, b"octets").unwrap();
        Some((auth.method, auth.data.len()))
    };
    let method = |key, hashes| verified(key, hashes).map(|(method, _)| method);
    for (key, kind) in KEYS {
        assert_eq!(
            method(key, Hashes::ALL),
            Some(DIGITAL_SIGNATURE),
            "{kind:?}"
        );
    }
    assert_eq!(method(P256, only(Hash::Sha256)), Some(DIGITAL_SIGNATURE));
    assert_eq!(method(P256, only(Hash::Sha384)), None);
    assert_eq!(method(P384, only(Hash::Sha256)), None);
    assert_eq!(method(ED25519, only(Hash::Sha512)), None);
    assert_eq!(
        method(ED25519, only(Hash::Identity)),
        Some(DIGITAL_SIGNATURE)
    );
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        let rsa = method(Key::File(RSA_2048), only(hash));
        assert_eq!(rsa, Some(DIGITAL_SIGNATURE));
    }
    // A peer that does not know RFC 7427: r | s of fixed length.
    let none = Hashes::default();
    assert_eq!(verified(P256, none), Some((ECDSA_256, 64)));
    assert_eq!(verified(P384, none), Some((ECDSA_384, 96)));
    assert_eq!(verified(ED25519, none), None);
    assert_eq!(verified(Key::File(RSA_2048), none), None);
}

#[test]
fn other_methods_are_refused() {
    for (key, _) in KEYS {
        let (private, public) = pair(key);
        let auth = private.auth(Hashes::ALL, b"octets").unwrap();
        for method in [0, 1, SHARED_KEY, 3, ECDSA_256, ECDSA_384, 11, 12, 13, 255] {
            let auth = Auth {
                method,
                ..auth.clone()
            };
            assert!(public.verify(&auth, b"octets").is_err(), "{method}");
        }
    }
}

#[test]
fn hashes_are_read_as_they_are_written() {
    assert_eq!(Hashes::ALL.to_wire(), [0, 2, 0, 3, 0, 4, 0, 5]);
    assert_eq!(Hashes::from_wire(&Hashes::ALL.to_wire()), Hashes::ALL);
    // SHA-1, unknown numbers and half a number count for nothing.
    assert!(Hashes::from_wire(&[0, 1, 0, 6, 1, 2, 0]).is_empty());
    assert_eq!(Hashes::from_wire(&[0, 1, 0, 3, 9]).to_wire(), [0, 3]);
}

/// The encodings of RFC 7427 appendix A and RFC 8420 appendix A.
#[test]
fn algorithms_are_named_as_the_rfc_names_them() {
    for (scheme, hex) in [
        (
            Scheme::RsaPkcs1(Hash::Sha256),
            "300d06092a864886f70d01010b0500",
        ),
        (
            Scheme::RsaPkcs1(Hash::Sha384),
            "300d06092a864886f70d01010c0500",
        ),
        (
            Scheme::RsaPkcs1(Hash::Sha512),
            "300d06092a864886f70d01010d0500",
        ),
        (Scheme::Ecdsa(Hash::Sha256), "300a06082a8648ce3d040302"),
        (Scheme::Ecdsa(Hash::Sha384), "300a06082a8648ce3d040303"),
        (Scheme::Ed25519, "300506032b6570"),
        (
            Scheme::RsaPss(Hash::Sha256),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886\
             f70d010108300d06096086480165030402010500a203020120",
        ),
    ] {
        let shown: String = scheme.to_der().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, hex);
    }
    for scheme in Scheme::ALL {
        assert_eq!(Scheme::from_der(&scheme.to_der()), Some(scheme));
        for length in 0..scheme.to_der().len() {
            assert_eq!(Scheme::from_der(&scheme.to_der()[..length]), None);
        }
    }
    // Without NULL parameters.
    let absent = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
    assert_eq!(
        Scheme::from_der(absent),
        Some(Scheme::RsaPkcs1(Hash::Sha256))
    );
    // SHA-1: sha1WithRSAEncryption, ecdsa-with-SHA1, RSASSA-PSS with its defaults.
    for weak in [
        &b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00"[..],
        b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01",
        b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x00",
    ] {
        assert_eq!(Scheme::from_der(weak), None);
    }
}

#[test]
fn private_keys_are_read_in_every_format() {
    for (pem, kind) in [
        (RSA_2048, KeyKind::Rsa),
        (include_str!("keys/rsa-2048-pkcs1.pem"), KeyKind::Rsa),
        (include_str!("keys/ec-p256-sec1.pem"), KeyKind::EcdsaP256),
        (include_str!("keys/ec-p384-sec1.pem"), KeyKind::EcdsaP384),
        (include_str!("keys/ed25519.pem"), KeyKind::Ed25519),
    ] {
        let key = from_pem(pem).unwrap();
        assert_eq!(key.kind(), kind);
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("PrivateKey({kind:?}, not shown)"));
    }
    assert!(from_pem(include_str!("keys/ec-p521.pem")).is_err());
    let der = [0x30; 40];
    for encoding in [KeyEncoding::Pkcs8, KeyEncoding::Pkcs1, KeyEncoding::Sec1] {
        assert!(PrivateKey::from_der(encoding, &der).is_err());
        assert!(PrivateKey::from_der(encoding, &[]).is_err());
    }
}

#[test]
fn what_is_shown_must_be_of_use() {
    let root = Authority::new("root");
    let middle = root.below("middle", |_| {});
    let (der, key) = middle.sign(&params(&["gw.example"]), P256);
    // The CA that everybody has is not sent.
    let chain = vec![der.clone(), middle.der.clone(), root.der.clone()];
    let own = Own::new(chain, private(&key)).unwrap();
    assert_eq!(own.payloads().count(), 2);
    assert_eq!(own.validity(), (NOW - DAY, NOW + DAY));
    let said = |chain: Vec<Vec<u8>>, key| Own::new(chain, key).unwrap_err().to_string();
    assert_eq!(
        said(vec![der.clone()], private(&P256.pair())),
        "the private key does not belong to the first certificate, which is of \
         CN=gw.example,O=Example"
    );
    assert_eq!(
        said(vec![der.clone(), vec![1, 2]], private(&key)),
        "certificate 2 can not be read"
    );
    assert_eq!(
        said(Vec::new(), private(&key)),
        "found no certificate, expected at least the node's own"
    );
    let mut params = params(&["gw.example"]);
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let (der, key) = root.sign(&params, P256);
    assert_eq!(
        said(vec![der], private(&key)),
        "its certificate is not for authentication by signature (key usage)"
    );
}
