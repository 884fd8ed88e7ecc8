//! Published vectors.

use super::super::crypto::{AeadKey, KeyPair, Prf, respond, sha256};
use super::super::keys::{IkeKeys, skeyseed};
use super::super::payload::header::Header;
use super::super::payload::notify::{Notify, kind};
use super::super::payload::{Payload, parse_chain, sk};
use super::super::proposal::IkeSuite;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// NIST's vectors for the IKEv2 key derivation of SP 800-135 (ACVP), SHA2-256.
struct Kdf {
    ni: Vec<u8>,
    nr: Vec<u8>,
    shared: Vec<u8>,
    new_shared: Vec<u8>,
    spi_i: u64,
    spi_r: u64,
    skeyseed: Vec<u8>,
    dkm: Vec<u8>,
    child: Vec<u8>,
    child_with_exchange: Vec<u8>,
    rekey: Vec<u8>,
}

fn kdf() -> Kdf {
    Kdf {
        ni: hex("3651fef5c9c35e93"),
        nr: hex("c09a8b90a3f04d59"),
        shared: hex(
            "d084a30166a50fb7325c3960874a839449ef9741c2f4f947d0201dd8c1269273d79509f37e3ca3eb
             4fa2fe2a28254e289cd3f34dad4eb4df1a07685a4b8a94fa61e2491f7598b3ce65547ff133b3f63d
             1ac4175eaa695033f3cedb026a6873a36455172a8540b8a5d23a0143bed0390ee49b168269d75fff
             ee9fb62be965993c",
        ),
        new_shared: hex(
            "52f00ab174c25d5b7139ae5ff4e8e9eddee5992d2e36adf8a559ffd90dab1442e4fbe429d320c0f3
             3552a17d1557fa41ea70e8fb916c4fa27ed52b5f8ebd8461afa78f1159159a64055ac5f6319e29c2
             8eae58cbc6847770f32c3fed1d04750484f854790f95e9ec01bc5bc461f24966462e359511329305
             038e94deb6dd42c2",
        ),
        spi_i: 0x8e5c_3ae5_0722_1684,
        spi_r: 0xb1f2_01bb_155c_3acd,
        skeyseed: hex("efaa7ab0eaa85a3d0be2100cd4b6fe00ff5025a9eafddb3ef518e9f0d3fe60e6"),
        dkm: hex(
            "462b9dd525d4fd71169174272779e704baf62c6231779ae9efe8c58b21916b42010164af2111ebd7
             62f6916ca9a6f0ee05c8b320e4ee27705521de2589adea1878f1a551738af7c88dc4f0bb0c096a3f
             7d1f1a670fc79f49f678d60d665bb3710c8657f03ba9f62b9a818d7a228968c506e237ae9502aa6d
             b395c61ea6a3e79504f86b7368bfb5423df79e48809bbccd49fd826d024f63d7c2a5566400a12e73
             6aa034510428f5ea008fe2fc16886fa388274ea6c2b4fcfc6141bf04f8207ef8afc224ea1059cb22
             0dc0b23ac0e4ccda495a4e131b1d56e223aba5a48e8ed1f5",
        ),
        child: hex(
            "23647677e7d403fa1e3006f19840aee18ad9fecc4215814c4131bdeba98433d8b0e31bfbbddf822a
             bcce5e06486aa388022b75e27e1e68aa5983028b65282c730c5d49ef7606770376cfdec41f7cc435
             d816029989bc353d3b67b9fd1168ddcb8978850da9b752aee6a30d0086d2c4d74ec0e03648a0dad3
             34faf5fe88084e67b0f3e8fee8b5e1bd3850db540f1fb8cffe23c9e92cda209373f354880c246c75
             3e2a0eca9cb73b9910a8531c4010e6768fa29f909e60af777fed6e739c3cfda03467e915d6f03fce
             9c41f5f9d578f8912d66a75457e79ee1d5bcc2be5c2f9bae",
        ),
        child_with_exchange: hex(
            "6a919387a5fa2835fe8a8237e4a14845bd2b9930db87eff7adf268f62186004902dba9aa942d0259
             a0edc4120b932a503865b57ba8fb88117ef5df7b26799cd8ba37aa5438108cb1a4fe117907c9d059
             7b708c3f11151fefd624d2317202b7c81430600e6fcbb6e1a8df2b4861ef2363d53de1be69057b0c
             f6634a7e7bfa97b3c2810623e2bd6757738777177036e9c3a39794456954bd41fc444a12507ab9ca
             c69a0540d13c29db8510f566a691691baa2d9569dacc990d56a454bb444bcbbe8751b0550a527881
             2fc5ab4f28990dd6d608538d7ddde24dc81bdaaca7751fde",
        ),
        rekey: hex("90722c42bd849e9b72d240fc254174270fa8295de6f0338dafc303a9ec104f12"),
    }
}

fn plus(prf: Prf, key: &[u8], seed: &[&[u8]], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    prf.plus(key, seed, &mut out).unwrap();
    out
}

#[test]
fn key_derivation_of_sp_800_135() {
    let v = kdf();
    let prf = Prf::HmacSha256;
    assert_eq!(*skeyseed(prf, &v.ni, &v.nr, &v.shared), v.skeyseed);
    let [spi_i, spi_r] = [v.spi_i, v.spi_r].map(u64::to_be_bytes);
    let dkm = plus(
        prf,
        &v.skeyseed,
        &[&v.ni, &v.nr, &spi_i, &spi_r],
        v.dkm.len(),
    );
    assert_eq!(dkm, v.dkm);
    let sk_d = &v.dkm[..32];
    assert_eq!(plus(prf, sk_d, &[&v.ni, &v.nr], v.child.len()), v.child);
    let length = v.child_with_exchange.len();
    let child = plus(prf, sk_d, &[&v.new_shared, &v.ni, &v.nr], length);
    assert_eq!(child, v.child_with_exchange);
    // SKEYSEED of a rekeyed IKE SA (RFC 7296 section 2.18).
    assert_eq!(*prf.compute(sk_d, &[&v.new_shared, &v.ni, &v.nr]), v.rekey);
}

/// The same vector, cut into the keys that it makes.
#[test]
fn the_schedule_cuts_the_material_in_order() {
    let v = kdf();
    let suite = IkeSuite {
        cipher: IkeCipher::Aes256Gcm16,
        prf: Prf::HmacSha256,
        group: Group::X25519,
        additional: None,
    };
    let make = |initiator| {
        IkeKeys::derive(
            suite,
            &v.skeyseed,
            [&v.ni, &v.nr],
            [v.spi_i, v.spi_r],
            initiator,
        )
    };
    let (i, r) = (make(true), make(false));
    // SK_d 0..32, SK_ei 32..68, SK_er 68..104, SK_pi 104..136, SK_pr 136..168
    assert_eq!(*i.sk_p_local, v.dkm[104..136]);
    assert_eq!(*i.sk_p_remote, v.dkm[136..168]);
    assert_eq!(
        (&i.sk_p_local, &i.sk_p_remote),
        (&r.sk_p_remote, &r.sk_p_local)
    );
    for (ours, at) in [(&i.seal, 32), (&i.open, 68), (&r.seal, 68), (&r.open, 32)] {
        let theirs = AeadKey::new(suite.cipher, &v.dkm[at..at + 36]).unwrap();
        let (mut a, mut b) = (*b"text", *b"text");
        assert_eq!(
            ours.seal([1; 8], b"aad", &mut a),
            theirs.seal([1; 8], b"aad", &mut b)
        );
        assert_eq!(a, b);
    }
    let (to_responder, to_initiator) = i.child(EspCipher::Aes256Gcm, [&v.ni, &v.nr]);
    assert_eq!(
        (&to_responder.key[..], &to_responder.salt[..]),
        (&v.child[..32], &v.child[32..36])
    );
    assert_eq!(
        (&to_initiator.key[..], &to_initiator.salt[..]),
        (&v.child[36..68], &v.child[68..72])
    );
    let (to_responder, to_initiator) = r.child(EspCipher::Aes128Gcm, [&v.ni, &v.nr]);
    assert_eq!(
        (&to_responder.key[..], &to_responder.salt[..]),
        (&v.child[..16], &v.child[16..20])
    );
    assert_eq!(
        (&to_initiator.key[..], &to_initiator.salt[..]),
        (&v.child[20..36], &v.child[36..40])
    );
}

#[test]
fn prf_plus_has_a_limit() {
    let prf = Prf::HmacSha256;
    assert_eq!(plus(prf, b"k", &[b"s"], 255 * 32).len(), 8160);
    assert!(prf.plus(b"k", &[b"s"], &mut [0; 255 * 32 + 1]).is_err());
}

/// HMAC-SHA-2, RFC 4231 test case 2.
#[test]
fn prfs_of_rfc_4231() {
    for (prf, expected) in [
        (
            Prf::HmacSha256,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            Prf::HmacSha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e
             8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HmacSha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        let out = prf.compute(b"Jefe", &[b"what do ya ", b"want for nothing?"]);
        assert_eq!(*out, hex(expected));
    }
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_of_rfc_7748() {
    agreement(
        Group::X25519,
        [
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ],
        [
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ],
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    );
}

/// RFC 5903 section 8.1.
#[test]
fn p256_of_rfc_5903() {
    agreement(
        Group::P256,
        [
            "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
            "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
        ],
        [
            "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180
             5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
            "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
             56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        ],
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    );
}

/// RFC 5903 section 8.2.
#[test]
fn p384_of_rfc_5903() {
    agreement(
        Group::P384,
        [
            "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655
             e35b538041e649ee3faef896783ab194",
            "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942
             e0308312916b8ed2960e4bd55a7448fc",
        ],
        [
            "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6
             de3ac808acb4bdb4c88732aee95f41aa
             9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38e
             eb9fcff3c2c947dae69b4c634573a81c",
            "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d
             0d1ac43a0336def96fda41d0774a3571
             dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1ff
             f83fa40142209dff5eaad96db9e6386c",
        ],
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4
         d603135569b9e9d09cf5d4a270f59746",
    );
}

/// The first vector of NIST's for key generation (ACVP, ML-KEM-768), its long public value as a hash.
#[test]
fn ml_kem_768_of_nist() {
    let seed = hex(
        "e34a701c4c87582f42264ee422d3c684d97611f2523efe0c998af05056d693dc
         a85768f3486bd32a01bf9a8f21ea938e648eae4e5448c34c3eb88820b159eedd",
    );
    let pair = KeyPair::from_bytes(Group::MlKem768, &seed).unwrap();
    assert_eq!(pair.public().len(), 1184);
    let hash = hex("7799c9d8eef172aa78c073514f2f039c240de8c5cb61bca82ba0bc46041ce279");
    assert_eq!(sha256(&[pair.public()]).to_vec(), hash);
    let mut rng = StdRng::seed_from_u64(7);
    let (ciphertext, shared) = respond(Group::MlKem768, pair.public(), &mut rng).unwrap();
    assert_eq!((ciphertext.len(), shared.len()), (1088, 32));
    assert_eq!(pair.agree(&ciphertext).unwrap(), shared);
    // Each time another secret; a false ciphertext agrees on nothing that the peer knows.
    let (again, other) = respond(Group::MlKem768, pair.public(), &mut rng).unwrap();
    assert!(again != ciphertext && other != shared);
    let mut changed = ciphertext.clone();
    changed[100] ^= 1;
    assert_ne!(pair.agree(&changed).unwrap(), shared);
    assert!(pair.agree(&ciphertext[1..]).is_none());
    // A coefficient of 4095, where 3328 is the highest.
    let mut bad = pair.public().to_vec();
    (bad[0], bad[1]) = (0xff, 0xff);
    for public in [&bad[..], &pair.public()[1..], &[]] {
        assert!(respond(Group::MlKem768, public, &mut rng).is_none());
    }
}

#[test]
fn every_group_agrees_both_ways() {
    let mut rng = StdRng::seed_from_u64(8);
    for group in Group::ALL {
        let pair = KeyPair::generate(group, &mut rng);
        assert_eq!(pair.group(), group);
        assert_eq!(Group::from_number(group.number()), Some(group));
        let (public, shared) = respond(group, pair.public(), &mut rng).unwrap();
        assert_eq!(pair.agree(&public).unwrap(), shared);
    }
}

fn agreement(group: Group, secrets: [&str; 2], publics: [&str; 2], shared: &str) {
    let [i, r] = secrets.map(|secret| KeyPair::from_bytes(group, &hex(secret)).unwrap());
    assert_eq!([i.public(), r.public()], publics.map(hex));
    for (ours, theirs) in [(&i, &r), (&r, &i)] {
        assert_eq!(ours.agree(theirs.public()).unwrap().to_vec(), hex(shared));
    }
}

#[test]
fn bad_public_values_agree_on_nothing() {
    let pair = |group| KeyPair::generate(group, &mut StdRng::seed_from_u64(9));
    let x25519 = pair(Group::X25519);
    // Too short, too long; of small order: 0, 1, and p.
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    let one: Vec<u8> = [1].into_iter().chain([0; 31]).collect();
    for public in [&[9; 31][..], &[9; 33], &[0; 32], &one, &p] {
        assert!(x25519.agree(public).is_none(), "{public:?}");
    }
    let p256 = pair(Group::P256);
    let mut off_the_curve = p256.public().to_vec();
    off_the_curve[63] ^= 1;
    for public in [&p256.public()[..63], &[0; 64], &off_the_curve, &[0; 65]] {
        assert!(p256.agree(public).is_none(), "{public:?}");
    }
    let p384 = pair(Group::P384);
    let mut off_the_curve = p384.public().to_vec();
    off_the_curve[95] ^= 1;
    for public in [&p384.public()[..95], &[0; 96], &off_the_curve, &[0; 97]] {
        assert!(p384.agree(public).is_none(), "{public:?}");
    }
    for group in [Group::P256, Group::P384] {
        assert!(KeyPair::from_bytes(group, &[0; 32]).is_none());
        assert!(KeyPair::from_bytes(group, &[0; 48]).is_none());
    }
}

/// RFC 7634 appendix B: a whole message with a notification inside.
#[test]
fn chacha20_poly1305_of_rfc_7634() {
    let material: Vec<u8> = (0x80..0xa4).collect();
    let key = AeadKey::new(IkeCipher::ChaCha20Poly1305, &material).unwrap();
    let message = hex(
        "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d7 2e202500 00000009 00000045 29000029
         1011121314151617 610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2",
    );
    let header = Header::parse(&message).unwrap();
    let (first, plain) = sk::open(&header, &message, &key).unwrap();
    let set_window_size = Notify {
        protocol: 0,
        spi: Vec::new(),
        kind: kind::STATUS + 1,
        data: vec![0, 0, 0, 10],
    };
    let payloads = vec![Payload::Notify(set_window_size)];
    assert_eq!(parse_chain(first, &plain), Ok(payloads.clone()));
    let iv = 0x1011_1213_1415_1617;
    assert_eq!(sk::write_sealed(header, &payloads, &key, iv), Ok(message));
}

/// AES-GCM test cases 4 and 16 of McGrew and Viega, the nonce split into salt and IV.
#[test]
fn aes_gcm_of_the_specification() {
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let half = "feffe9928665731c6d6a8f9467308308";
    for (cipher, key, sealed, tag) in [
        (
            IkeCipher::Aes128Gcm16,
            hex(half),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            IkeCipher::Aes256Gcm16,
            hex(&half.repeat(2)),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ] {
        let key = AeadKey::new(cipher, &[&key[..], &hex("cafebabe")].concat()).unwrap();
        let iv = 0xface_dbad_deca_f888_u64.to_be_bytes();
        let mut text = plain.clone();
        let made = key.seal(iv, &aad, &mut text);
        assert_eq!((&text, made.to_vec()), (&hex(sealed), hex(tag)));
        assert!(key.open(iv, &aad, &mut text, &made));
        assert_eq!(text, plain);
        assert!(!key.open(iv, &aad, &mut text, &made));
    }
}
