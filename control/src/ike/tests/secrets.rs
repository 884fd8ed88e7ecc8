//! Keys are wiped and never shown.

use super::super::auth::Signed;
use super::super::crypto::{AeadKey, KeyPair};
use super::super::keys::{IkeKeys, skeyseed};
use super::super::payload::id::Id;
use super::super::proposal::IkeSuite;
use super::*;

#[test]
fn keys_are_never_shown() {
    let mut pair = Pair::new();
    let wish = pair.wish();
    let shown = format!("{wish:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("115, 101, 99"),
        "{shown}"
    );
    pair.initiate(wish);
    pair.run();
    let (_, child) = pair.a.established().unwrap();
    let shown = format!(
        "{:?} {:?} {:?}",
        pair.a.events, pair.a.engine, pair.b.engine
    );
    let plain = format!("{:?}", &child.key_in[..4]);
    let plain = plain.trim_matches(['[', ']']);
    assert!(!shown.contains(plain) && !shown.contains("key_"), "{shown}");
}

#[test]
fn no_type_that_holds_a_key_shows_it() {
    const BYTE: u8 = 0xe7;
    let key = [BYTE; 36];
    let id = Id::new(id("gw.example"));
    let signed = Signed {
        message: b"message",
        nonce: b"nonce",
        id: &id,
        sk_p: &key,
        int_auth: key.to_vec(),
    };
    let suite = IkeSuite {
        cipher: IkeCipher::Aes256Gcm16,
        prf: Prf::HmacSha256,
        group: Group::X25519,
        additional: None,
    };
    let seed = skeyseed(suite.prf, b"ni", b"nr", &key);
    let keys = IkeKeys::derive(suite, &seed, [b"ni", b"nr"], [1, 2], true);
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        Psk::new(key.to_vec()),
        Secret::new(&key),
        AeadKey::new(IkeCipher::Aes256Gcm16, &key),
        KeyPair::from_bytes(Group::X25519, &[BYTE; 32]),
        KeyPair::from_bytes(Group::MlKem768, &[BYTE; 64]),
        signed,
    );
    for one in [format!("{BYTE}"), format!("{BYTE:x}"), format!("{BYTE:X}")] {
        assert!(!shown.contains(&one), "{shown}");
    }
    assert_eq!(format!("{seed:?}"), "Secret(32 bytes)");
    assert_eq!(format!("{:?}", keys.exporter()), "Exporter(…)");
    let shown = format!("{keys:?}");
    assert!(shown.len() < 60, "{shown}");
}

#[test]
fn what_holds_a_key_is_wiped() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<Secret>();
    wiped::<x25519_dalek::StaticSecret>();
    wiped::<x25519_dalek::SharedSecret>();
    wiped::<p256::SecretKey>();
    wiped::<p384::SecretKey>();
    wiped::<ml_kem::ml_kem_768::DecapsulationKey>();
    // Of which HMAC is made, and keeps nothing besides.
    wiped::<sha2::Sha256>();
    wiped::<sha2::Sha384>();
    wiped::<sha2::Sha512>();
    wiped::<aes_gcm::Aes256Gcm>();
    wiped::<chacha20poly1305::ChaCha20Poly1305>();
    assert!(std::mem::needs_drop::<Child>());
}
