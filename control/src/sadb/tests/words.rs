use proptest::prelude::*;

use super::*;

const KEY: &str = "0x00112233445566778899aabbccddeeff01020304";

#[test]
fn a_receiver_in_words() {
    let text = format!(
        "in spi 0x1000 local 192.0.2.1 remote 198.51.100.7 cipher aes-128-gcm key {KEY} \
         sel 10.99.0.7 10.0.0.0/8,fd00::/8"
    );
    let spec: SessionSpec = text.parse().expect("valid");
    assert_eq!(spec.outbound, None);
    let sa = spec.inbound.as_ref().expect("in");
    assert_eq!(
        (sa.spi, sa.cipher, sa.esn),
        (0x1000, Cipher::Aes128Gcm, true)
    );
    assert_eq!(
        (sa.key.expose()[15], sa.salt.expose()),
        (0xFF, &[1, 2, 3, 4])
    );
    assert_eq!(*spec.remote_inner, nets(&["10.99.0.7/32"]));
    assert_eq!(*spec.local_inner, nets(&["10.0.0.0/8", "fd00::/8"]));
    assert_eq!(
        (&*spec.peer, spec.origin),
        ("198.51.100.7", Producer::Manual)
    );
    let hidden = spec.words(Secrets::Hidden).join(" ");
    assert!(
        hidden.contains("key hidden") && !hidden.contains("0011"),
        "{hidden}"
    );
}

#[test]
fn errors_name_the_word_and_what_was_expected() {
    let good = "in spi 0x1000 local 192.0.2.1 remote 198.51.100.7 cipher aes-128-gcm key KEY \
                sel 10.99.0.7 10.0.0.0/8";
    let cases = [
        (
            "in spi",
            "in spy",
            "word 2: expected in, out, spi, cipher, key, esn, window, seq, sel,",
        ),
        (
            "0x1000",
            "ox1000",
            "word 3: expected an SPI such as 0x1000, found `ox1000`",
        ),
        (
            "0x1000",
            "0x+100",
            "word 3: expected an SPI such as 0x1000, found `0x+100`",
        ),
        (
            "0x1000",
            "0x10",
            "an SPI from 0x100 to 0xfffffffe was expected, found 0x10",
        ),
        (
            "in spi",
            "spi",
            "word 1: `spi` belongs to a direction, expected `in` or `out` before",
        ),
        (
            "192.0.2.1",
            "wan0",
            "word 5: expected an IP address, found `wan0`",
        ),
        (
            "aes-128-gcm",
            "des",
            "word 9: expected aes-256-gcm, aes-128-gcm or chacha20-poly1305, found `des`",
        ),
        (
            "aes-128-gcm",
            "aes-256-gcm",
            "a key for aes-256-gcm has 32 bytes, found 16",
        ),
        (
            "aes-128-gcm",
            "chacha20-poly1305",
            "a key for chacha20-poly1305 has 32 bytes, found 16",
        ),
        (
            "KEY",
            "0x00",
            "word 11: expected 20 (16 of key and 4 of salt) or 36 (32 and 4) bytes",
        ),
        (
            "KEY",
            "secret",
            "word 11: expected pairs of hexadecimal digits",
        ),
        (
            "key KEY",
            "key KEY key KEY",
            "word 12: `key` was given before",
        ),
        (
            "key KEY",
            "KEY",
            "word 10: expected in, out, spi, cipher, key",
        ),
        ("key KEY", "", "`in` needs `key`, which was not found"),
        (
            "10.99.0.7 10.0.0.0/8",
            "10.99.0.7",
            "after `sel`: expected destination prefixes",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/33",
            "word 14: expected destination prefixes",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.1/8",
            "found 10.0.0.1/8; 10.0.0.0/8 is the network",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/8 esn maybe",
            "word 16: expected on or off, found `maybe`",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/8 encap tcp 1 2",
            "word 16: expected udp, found `tcp`",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/8 encap udp 70000 2",
            "expected our UDP port, found `70000`",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/8 hbkey 00",
            "word 16: expected 16 bytes in hexadecimal, found 1",
        ),
        ("local 192.0.2.1", "", "`sa add` needs `local`"),
        (
            "10.0.0.0/8",
            "10.0.0.0/8 in",
            "word 15: `in` was given before",
        ),
    ];
    good.replace("KEY", KEY)
        .parse::<SessionSpec>()
        .expect("valid");
    for (from, to, expected) in cases {
        let text = good.replacen(from, to, 1).replace("KEY", KEY);
        let error = text.parse::<SessionSpec>().expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "{error:?} does not say {expected:?}"
        );
        assert!(!error.contains("8899"), "{error:?} shows a key");
    }
    let nothing = "".parse::<SessionSpec>().expect_err("empty").to_string();
    assert_eq!(nothing, "`sa add` needs `in` or `out`, which was not found");
}

#[test]
fn json_takes_keys_and_never_gives_them() {
    let json = r#"{"outside_local": "192.0.2.1", "outside_remote": "198.51.100.7",
        "remote_inner": ["10.99.0.7/32"], "local_inner": ["10.0.0.0/8"],
        "heartbeat_key": "ab0102030405060708090a0b0c0d0eab",
        "inbound": {"spi": 4096, "cipher": "aes-128-gcm", "salt": "0xcdcdcdcd",
                    "key": "0xef112233445566778899aabbccddeeef"}}"#;
    let spec: SessionSpec = serde_json::from_str(json).expect("valid");
    spec.check().expect("valid");
    let sa = spec.inbound.as_ref().expect("in");
    assert_eq!(
        (sa.esn, sa.replay_window, sa.sequence),
        (true, Window::DEFAULT, 0)
    );
    assert_eq!(
        spec.heartbeat_key.as_ref().expect("there").expose()[0],
        0xAB
    );
    let out = serde_json::to_string(&spec).expect("serialises");
    let shown = format!("{out} {spec:?} {:?}", spec.words(Secrets::Hidden));
    for secret in ["ab01", "cdcd", "ef11", "171, 1", "205, 205", "239, 17"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(out.contains(r#""spi":4096"#) && out.contains(r#""cipher":"aes-128-gcm""#));
    let missing = json.replace(r#""salt": "0xcdcdcdcd","#, "");
    let error = serde_json::from_str::<SessionSpec>(&missing).expect_err("no salt");
    assert!(
        error.to_string().contains("missing field `salt`"),
        "{error}"
    );
}

fn any_address(v6: bool) -> BoxedStrategy<IpAddr> {
    match v6 {
        false => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        true => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    }
}

fn any_nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = any::<bool>()
        .prop_flat_map(any_address)
        .prop_flat_map(|address| {
            let most = if address.is_ipv4() { 32_u8 } else { 128 };
            (0..=most).prop_map(move |len| IpNet::new(address, len).expect("a prefix").trunc())
        });
    prop::collection::vec(net, 1..4)
}

fn any_sa() -> impl Strategy<Value = SaSpec> {
    let key = prop::sample::select(Cipher::ALL.to_vec()).prop_flat_map(|cipher| {
        (
            Just(cipher),
            prop::collection::vec(any::<u8>(), cipher.key_len()),
        )
    });
    (
        LOWEST_SPI..=HIGHEST_SPI,
        key,
        any::<[u8; 4]>(),
        any::<bool>(),
        10_u32..18,
        any::<u32>(),
    )
        .prop_map(|(spi, (cipher, key), salt, esn, window, sequence)| SaSpec {
            spi,
            cipher,
            key: Key::new(&key).expect("16 or 32 bytes"),
            salt: salt.into(),
            esn,
            replay_window: 1 << window,
            sequence: sequence.into(),
        })
}

prop_compose! {
    fn any_session()(v6 in any::<bool>())(
        outside_local in any_address(v6),
        outside_remote in any_address(v6),
        encap in prop::option::of((1_u16.., 1_u16..)),
        sas in (prop::option::of(any_sa()), prop::option::of(any_sa())),
        remote_inner in any_nets(),
        local_inner in any_nets(),
        heartbeat_key in prop::option::of(any::<[u8; 16]>()),
        gateway in prop::option::of(any_address(v6)),
        peer in "[a-z@. ]{0,20}",
    ) -> SessionSpec {
        SessionSpec {
            lane: 0,
            own_port: false,
            shared: false,
            id: SessionId::NONE,
            encap: encap.map(|(local_port, remote_port)| UdpEncap { local_port, remote_port }),
            roams: false,
            inbound: sas.0,
            outbound: sas.1,
            heartbeat_key: heartbeat_key.map(Into::into),
            initiator: false,
            origin: Producer::Manual,
            peer: peer.into(), outside_local, outside_remote, gateway,
            remote_inner: remote_inner.into(), local_inner: local_inner.into(),
        }
    }
}

proptest! {
    #[test]
    fn words_round_trip(spec in any_session()) {
        prop_assume!(spec.check().is_ok());
        let back = SessionSpec::from_words(spec.words(Secrets::Shown));
        prop_assert_eq!(back, Ok(spec));
    }

    #[test]
    fn any_words_are_read_or_refused(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "in", "out", "spi", "key", "sel", "local", "remote", "encap", "udp", "peer",
                    "seq", "0x1000", "10.0.0.1", "4500", KEY, "esn", "on", "window", "hbkey",
                ]).prop_map(str::to_owned),
                any::<String>(),
            ],
            0..30,
        ),
    ) {
        if let Err(error) = SessionSpec::from_words(&words) {
            prop_assert!(!error.to_string().contains("8899"));
        }
    }
}
