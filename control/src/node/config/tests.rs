//! Each message of the configuration, where it points, and that no key is in it.

mod certificates;
mod channel;
mod drain;
mod filter;
mod front;
mod secrets;
mod steering;
mod tickets;
mod translation;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::ike::{EspCipher, Group, IkeCipher, Prf};

const CLIENT: &str = r#"name = "client-1"
role = "client"
identity = "client-1.example"
policy = "policy.conf"

[outside]
interface = "wan0"

[inside]
interface = "evergate0"

[[peer]]
identity = "gw-a.example"
psk = "correct horse battery staple"
outside = "192.0.2.1"
"#;

const GATEWAY: &str = r#"name = "gw-a"
role = "gateway"
identity = "gw-a.example"
socket = "/run/evergate/gw-a.sock"

[outside]
interface = "wan0"
address = "192.0.2.1"
xdp = "native"

[inside]
interface = "lan0"
xdp = "generic"

[heartbeat]
accept = "both"
strangers = true
dead_man = "1.5s"

[esp]
proposals = ["aes128gcm16-esn-noesn"]
backend = "rust-crypto"
replay_window = 8192
workers = 3
[ike]
retransmit = "500ms"
tries = 7
liveness = "2 min"

[pool]
networks = ["10.99.0.0/24", "2001:db8:99::/64"]

[[peer]]
identity = "client-1.example"
psk = "0x00112233445566778899aabbccddeeff"
outside = "198.51.100.7"
inner = ["10.99.0.7", "2001:db8:99::7"]

[[peer]]
identity = "someone@example.org"
psk = "correct horse battery staple"
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/evergate/node.toml"), text)
}

/// The problems, each without the name of the file.
fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Err(ConfigError::Invalid { problems, .. }) => {
            problems.iter().map(ToString::to_string).collect()
        }
        Err(other) => panic!("{other}"),
        Ok(config) => panic!("accepted: {config:?}"),
    }
}

#[test]
fn every_key_is_read() {
    let ike = "[ike]\nfragment_size = 576\nproposals = [\n  \"aes256gcm16-prfsha256-x25519\",\n  \
               \"chacha20poly1305-prfsha384-ecp384-ke1_mlkem768\",\n]\n";
    let config = read(&GATEWAY.replace("[ike]\n", ike)).unwrap();
    assert_eq!(config.name, "gw-a");
    assert_eq!(config.role, Role::Gateway);
    assert_eq!(config.identity, Identity::Fqdn("gw-a.example".into()));
    assert_eq!(config.socket, Path::new("/run/evergate/gw-a.sock"));
    assert_eq!(config.policy, None);
    let outside = Outside {
        interface: "wan0".into(),
        address: Some("192.0.2.1".parse().unwrap()),
        xdp: XdpMode::Native,
        path_mtu: PathMtu::Probe,
    };
    assert_eq!(config.outside, outside);
    let inside = Inside {
        interface: "lan0".into(),
        mtu: None,
        xdp: XdpMode::Generic,
    };
    assert_eq!(config.inside, inside);
    let heartbeat = Heartbeat {
        accept: HeartbeatForm::Both,
        strangers: true,
        dead_man: Duration::from_millis(1500),
    };
    assert_eq!(config.heartbeat, heartbeat);
    let esp = Esp {
        proposals: vec![EspProposal {
            ciphers: vec![EspCipher::Aes128Gcm],
            esn: vec![true, false],
            groups: Vec::new(),
        }],
        backend: Backend::RustCrypto,
        replay_window: 8192,
        workers: 3,
        busy_poll: Duration::ZERO,
    };
    assert_eq!(config.esp, esp);
    let ike = Ike {
        proposals: vec![
            IkeProposal {
                ciphers: vec![IkeCipher::Aes256Gcm16],
                prfs: vec![Prf::HmacSha256],
                groups: vec![Group::X25519],
                additional: Vec::new(),
            },
            IkeProposal {
                ciphers: vec![IkeCipher::ChaCha20Poly1305],
                prfs: vec![Prf::HmacSha384],
                groups: vec![Group::P384],
                additional: vec![Some(Group::MlKem768)],
            },
        ],
        fragment_size: 576,
        retransmit: Duration::from_millis(500),
        tries: 7,
        liveness: Duration::from_secs(120),
        guard: 1_000,
        threads: None,
        encap: Encap::Auto,
        mobike: true,
        keep_alive: Duration::from_secs(20),
        rekey_child: Duration::from_secs(3600),
        rekey_ike: Duration::from_secs(4 * 3600),
        rekey_jitter: 10,
        reauth: None,
        ticket_keys: Vec::new(),
        rekey_bytes: 1 << 38,
        rekey_packets: 1 << 31,
    };
    assert_eq!(config.ike, ike);
    let through_nat = "tries = 7\nencap = \"always\"\nmobike = false\nkeep_alive = \"5s\"";
    let ike = read(&GATEWAY.replace("tries = 7", through_nat))
        .unwrap()
        .ike;
    assert_eq!((ike.encap, ike.keep_alive.as_secs()), (Encap::Always, 5));
    assert!(!ike.mobike);
    let life = "tries = 7\nreauth = \"8h\"";
    let ike = read(&GATEWAY.replace("tries = 7", life)).unwrap().ike;
    assert_eq!(ike.reauth, Some(Duration::from_secs(8 * 3600)));
    assert_eq!(config.pool.len(), 2);
    let [first, second] = &config.peers[..] else {
        panic!()
    };
    assert_eq!(
        first.psk.as_ref().unwrap().as_bytes()[..3],
        [0x00, 0x11, 0x22]
    );
    assert_eq!(first.psk.as_ref().unwrap().as_bytes().len(), 16);
    assert_eq!(first.inner.len(), 2);
    assert_eq!(
        second.identity,
        Identity::Email("someone@example.org".into())
    );
    assert_eq!(
        second.psk.as_ref().unwrap().as_bytes(),
        b"correct horse battery staple"
    );
    assert_eq!(config.warnings, []);
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = read(CLIENT).unwrap();
    assert_eq!(config.socket, Path::new("/run/evergate/client-1.sock"));
    assert_eq!(
        config.policy.as_deref(),
        Some(Path::new("/etc/evergate/policy.conf"))
    );
    assert_eq!(config.outside.address, None);
    assert_eq!(config.outside.xdp, XdpMode::Auto);
    assert_eq!(config.inside.mtu, None);
    assert_eq!(config.heartbeat.accept, HeartbeatForm::Keyed);
    assert!(!config.heartbeat.strangers);
    assert_eq!(config.heartbeat.dead_man, Duration::from_millis(50));
    assert_eq!(config.esp.backend, Backend::default());
    let shown = |proposals: &[EspProposal]| proposals[0].to_string();
    assert_eq!(
        shown(&config.esp.proposals),
        "aes256gcm16-aes128gcm16-chacha20poly1305-esn-noesn"
    );
    assert_eq!(
        config.ike.proposals[0].to_string(),
        "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384"
    );
    assert_eq!(
        (config.esp.proposals.len(), config.ike.proposals.len()),
        (1, 1)
    );
    assert_eq!(config.ike.fragment_size, 1280);
    assert_eq!(config.esp.replay_window, 4096);
    assert_eq!(config.ike.retransmit, Duration::from_millis(200));
    assert_eq!(
        (config.ike.tries, config.ike.liveness, config.ike.guard),
        (4, Duration::from_secs(30), 1_000)
    );
    assert_eq!(config.warnings, []);
}

/// One change to a good file, and the message that it gets.
#[test]
fn each_mistake_is_told_at_its_place() {
    #[rustfmt::skip]
    let client: &[(&str, &str, &str)] = &[
        ("name = \"client-1\"\n", "", "1:1: `name` is missing: expected the node's name, such as \"gw-a\""),
        ("\"client-1\"", "\"a b\"", "1:8: name: found `a b`, expected 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit"),
        ("\"client-1\"", "7", "1:8: name: found integer `7`, expected a string"),
        ("role = \"client\"", "role = \"cleint\"", "2:8: role: found `cleint`, expected one of `client`, `gateway`, `authority`, `front`; did you mean `client`?"),
        ("role = \"client\"\n", "", "1:1: `role` is missing: expected \"client\", \"gateway\", \"authority\" or \"front\""),
        ("client-1.example", "client 1", "3:12: identity: found `client 1`, expected a host name, an e-mail address, an IP address or a distinguished name"),
        ("client-1.example", "10.0.0.256", "3:12: identity: found `10.0.0.256`, expected a host name, an e-mail address, an IP address or a distinguished name"),
        ("policy = \"policy.conf\"\n", "", "1:1: `policy` is missing: expected the policy file of this client, such as \"policy.conf\""),
        ("[outside]\n", "[outsdie]\n", "6:2: found unknown key `outsdie`, expected one of `name`, `role`, `identity`, `socket`, `state`, `policy`, `privileges`, `local`, `outside`, `inside`, `heartbeat`, `esp`, `ike`, `drain`, `steering`, `front`, `behind`, `channel`, `connectivity`, `filter`, `repository`, `pool`, `peer`, `eap_user`; did you mean `outside`?"),
        ("interface = \"wan0\"", "intreface = \"wan0\"", "7:1: found unknown key `intreface`, expected one of `interface`, `address`, `xdp`, `path_mtu`; did you mean `interface`?"),
        ("interface = \"wan0\"", "", "6:1: `outside.interface` is missing: expected the interface toward the untrusted network"),
        ("[outside]\ninterface = \"wan0\"\n", "", "1:1: `[outside]` is missing: expected the interface toward the untrusted network"),
        ("wan0", "a-very-long-name", "7:13: outside.interface: found `a-very-long-name` of 16 bytes, expected the name of an interface: 1 to 15 bytes"),
        ("wan0", "wan/0", "7:13: outside.interface: found `wan/0`, expected the name of an interface, without blanks, `/`, `:` and `%`"),
        ("wan0\"", "wan0\"\naddress = \"192.0.2.300\"", "8:11: outside.address: found `192.0.2.300`, expected an IP address such as 192.0.2.1 or 2001:db8::1"),
        ("wan0\"", "wan0\"\naddress = \"224.0.0.1\"", "8:11: outside.address: found 224.0.0.1, a multicast address; expected a host's address"),
        ("wan0\"", "wan0\"\naddress = \"::ffff:192.0.2.1\"", "8:11: outside.address: found ::ffff:192.0.2.1, an IPv4 address in IPv6 notation; expected a host's address"),
        ("wan0\"", "wan0\"\npath_mtu = \"guess\"", "8:12: outside.path_mtu: found `guess`, expected one of `probe`, `follow`, `off`"),
        ("wan0\"", "wan0\"\nxdp = \"driver\"", "8:7: outside.xdp: found `driver`, expected one of `auto`, `native`, `generic`, `off`"),
        ("evergate0", "wan0", "10:13: inside.interface: found `wan0`, which is the outside interface too; expected another one"),
        ("evergate0\"", "evergate0\"\nmtu = 100", "11:7: inside.mtu: found 100, expected 576 to 3400"),
        ("evergate0\"", "evergate0\"\nmtu = \"1400\"", "11:7: mtu: found string \"1400\", expected a whole number"),
        ("[[peer]]", "[pool]\nnetworks = [\"10.9.0.0/24\"]\n[[peer]]", "12:1: [pool]: found on a client, expected only on a gateway, which hands out inner addresses"),
        ("outside = \"192.0.2.1\"\n", "", "1:1: no [[peer]] with `outside`: expected one for each gateway of the policy, with its identity, psk and outside address"),
        ("outside = \"192.0.2.1\"", "outside = \"192.0.2.1\"\ninner = [\"10.0.0.1\"]", "16:10: peer.inner: found on a client, expected only on a gateway; a gateway tells its clients their inner addresses"),
        ("gw-a.example", "client-1.example", "13:12: peer.identity: found client-1.example, which is this node's own"),
        ("identity = \"gw-a.example\"\n", "", "12:1: `peer.identity` is missing: expected the peer's IKE identity, such as \"client-1.example\""),
        ("psk = \"correct horse battery staple\"\n", "", "12:1: the pre-shared key of gw-a.example is missing: expected `psk` or `psk_file`"),
        ("correct horse battery staple", "", "14:7: psk of gw-a.example: found 0 bytes, expected at least 8, better 16 or more random ones"),
        ("correct horse battery staple", "0x0011", "14:7: psk of gw-a.example: found 2 bytes, expected at least 8, better 16 or more random ones"),
        ("correct horse battery staple", "0x001122334455667", "14:7: psk of gw-a.example: a key that starts with 0x must go on with an even number of hexadecimal digits"),
        ("psk = \"correct horse battery staple\"", "psk = 1122334455667788", "14:7: psk: found a number, expected a key or password in quotes"),
        ("psk =", "psk_file = \"/nonexistent/key\"\npsk =", "14:12: psk_file: gw-a.example has a psk too; expected one of the two"),
        ("psk = \"correct horse battery staple\"", "psk_file = \"/nonexistent/key\"", "14:12: psk_file of gw-a.example: cannot read /nonexistent/key: No such file or directory (os error 2)"),
        ("psk =", "psk-file =", "14:1: found unknown key `psk-file`, expected one of `identity`, `auth`, `auth_own`, `ca`, `psk`, `psk_file`, `outside`, `redirects`, `class`, `inner`; did you mean `psk_file`?"),
    ];
    #[rustfmt::skip]
    let gateway: &[(&str, &str, &str)] = &[
        ("socket =", "policy = \"p\"\nsocket =", "4:10: policy: found on a gateway, expected only on a client; others follow their clients' policies"),
        ("/run/evergate/gw-a.sock", "", "4:10: socket: found an empty path, expected one such as \"/run/evergate/gw-a.sock\""),
        ("\"both\"", "\"kayed\"", "16:10: heartbeat.accept: found `kayed`, expected one of `keyed`, `plain`, `both`; did you mean `keyed`?"),
        ("strangers = true", "strangers = \"yes\"", "17:13: strangers: found string \"yes\", expected a boolean"),
        ("\"1.5s\"", "50", "18:12: dead_man: found integer `50`, expected a duration with a unit, such as \"50ms\" or \"1.5s\""),
        ("\"1.5s\"", "\"50\"", "18:12: heartbeat.dead_man: found `50`, expected a duration with a unit, such as \"50ms\" or \"1.5s\""),
        ("\"1.5s\"", "\"9ms\"", "18:12: heartbeat.dead_man: found 9ms, expected 10ms to 10s"),
        ("aes128gcm16-", "aes128gcm-", "21:14: esp.proposals: `aes128gcm-esn-noesn`: found `aes128gcm`, expected one of `aes256gcm16`, `aes128gcm16`, `chacha20poly1305`, `esn`, `noesn`, `x25519`, `curve25519`, `ecp256`, `ecp384`; did you mean `aes128gcm16`?"),
        ("aes128gcm16-", "", "21:14: esp.proposals: `esn-noesn`: found no cipher, expected one of `aes256gcm16`, `aes128gcm16`, `chacha20poly1305`"),
        ("-esn-noesn", "-esn-esn", "21:14: esp.proposals: `aes128gcm16-esn-esn`: found `esn` twice, expected it once"),
        ("[\"aes128gcm16-esn-noesn\"]", "[]", "21:13: esp.proposals: found 0 proposals, expected 1 to 16"),
        ("[\"aes128gcm16-esn-noesn\"]", "\"aes128gcm16\"", "21:13: proposals: found string \"aes128gcm16\", expected a sequence"),
        ("proposals =", "cipher =", "21:1: found unknown key `cipher`, expected one of `proposals`, `backend`, `replay_window`, `workers`, `busy_poll`"),
        ("tries = 7", "proposals = [\"aes256gcm16-prfsha256\"]", "27:14: ike.proposals: `aes256gcm16-prfsha256`: found no key exchange method, expected one of `x25519`, `curve25519`, `ecp256`, `ecp384`"),
        ("tries = 7", "fragment_size = 500", "27:17: ike.fragment_size: found 500, expected 576 to 65535"),
        ("workers = 3", "busy_poll = \"20ms\"", "24:13: esp.busy_poll: found 20ms, expected 1us to 10ms"),
        ("workers = 3", "workers = 65", "24:11: esp.workers: found 65, expected 1 to 64"),
        ("8192", "100", "23:17: esp.replay_window: found 100, expected 1024 to 131072"),
        ("8192", "5000", "23:17: esp.replay_window: found 5000, expected a power of two such as 4096 or 8192"),
        ("\"500ms\"", "\"2 weeks\"", "26:14: ike.retransmit: found `2 weeks`, expected a duration with a unit, such as \"50ms\" or \"1.5s\""),
        ("tries = 7", "tries = 0", "27:9: ike.tries: found 0, expected 1 to 20"),
        ("tries = 7", "tries = 7\ntries = 8", "28:1: duplicate key"),
        ("\"2 min\"", "\"0s\"", "28:12: ike.liveness: found 0s, expected 1s to 24h"),
        ("liveness = \"2 min\"", "rekey_child = \"0.5s\"", "28:15: ike.rekey_child: found 0.5s, expected 1s to 720h"),
        ("liveness = \"2 min\"", "rekey_ike = \"31d\"", "28:13: ike.rekey_ike: found 31d, expected 1s to 720h"),
        ("liveness = \"2 min\"", "rekey_jitter = 51", "28:16: ike.rekey_jitter: found 51, expected 0 to 50"),
        ("liveness = \"2 min\"", "rekey_bytes = 1000", "28:15: ike.rekey_bytes: found 1000, expected 1000000 to 9223372036854775807"),
        ("liveness = \"2 min\"", "rekey_packets = 4294967296", "28:17: ike.rekey_packets: found 4294967296, expected 1000 to 2147483648"),
        ("10.99.0.0/24", "10.99.0.1/24", "31:13: pool.networks: found 10.99.0.1/24, an address inside a network; did you mean 10.99.0.0/24?"),
        ("10.99.0.0/24", "10.99.0.0", "31:13: pool.networks: found `10.99.0.0`, expected a network such as 10.99.0.0/24 or 2001:db8:99::/64"),
        ("10.99.0.0/24", "10.99.0.7/32", "31:13: pool.networks: found 10.99.0.7/32, expected a prefix length of 8 to 30"),
        ("10.99.0.0/24", "224.0.0.0/24", "31:13: pool.networks: found 224.0.0.0/24, which clients can not have; expected private networks"),
        ("2001:db8:99::/64", "10.0.0.0/8", "31:29: pool.networks: found 10.0.0.0/8, which overlaps 10.99.0.0/24"),
        ("\"10.99.0.0/24\", \"2001:db8:99::/64\"", "", "30:1: pool.networks: found none, expected networks such as [\"10.99.0.0/24\"]"),
        ("10.99.0.0/24", "192.0.2.0/24", "8:11: outside.address: found 192.0.2.1, which lies in the pool 192.0.2.0/24; inner and outside addresses must not mix"),
        ("198.51.100.7", "192.0.2.1", "36:11: peer.outside: found 192.0.2.1, which is this node's own"),
        ("198.51.100.7", "10.99.0.8", "36:11: peer.outside: found 10.99.0.8, which lies in the pool 10.99.0.0/24; inner and outside addresses must not mix"),
        ("\"10.99.0.7\"", "\"10.99.0.255\"", "37:10: peer.inner: found 10.99.0.255, the network or broadcast address of the pool 10.99.0.0/24"),
        ("2001:db8:99::7", "10.99.0.7", "37:23: peer.inner: found 10.99.0.7 again; line 37 has it already"),
        ("someone@example.org", "Client-1.example", "40:12: peer.identity: found client-1.example again; line 34 has it already"),
        ("someone@example.org", "some one@example.org", "40:12: peer.identity: found `some one@example.org`, expected a host name, an e-mail address, an IP address or a distinguished name"),
        ("[pool]\nnetworks = [\"10.99.0.0/24\", \"2001:db8:99::/64\"]\n", "", "37:1: someone@example.org can get no inner address: expected a [pool] or `inner` of this peer"),
    ];
    for (base, cases) in [(CLIENT, client), (GATEWAY, gateway)] {
        for (from, to, expected) in cases {
            assert!(base.contains(from), "{from}");
            let found = problems(&base.replacen(from, to, 1));
            assert_eq!(found, [*expected], "{from} -> {to}");
        }
    }
}

#[test]
fn the_backends_of_this_build_are_named() {
    let names: Vec<_> = Backend::NAMES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), Backend::ALL.len());
    let found = problems(&GATEWAY.replace("\"rust-crypto\"", "\"openssl\""));
    let expected = format!(
        "22:11: esp.backend: found `openssl`, expected one of `{}`",
        names.join("`, `")
    );
    assert_eq!(found, [expected]);
}

#[test]
fn all_mistakes_at_once_in_order() {
    let text = GATEWAY
        .replace("\"native\"", "\"fast\"")
        .replace("tries = 7", "tries = 70");
    let error = read(&text.replace("8192", "1")).unwrap_err().to_string();
    assert_eq!(
        error,
        "/etc/evergate/node.toml:9:7: outside.xdp: found `fast`, expected one of `auto`, \
         `native`, `generic`, `off`\n\
         /etc/evergate/node.toml:23:17: esp.replay_window: found 1, expected 1024 to 131072\n\
         /etc/evergate/node.toml:27:9: ike.tries: found 70, expected 1 to 20"
    );
}

#[test]
fn what_is_odd_but_allowed_is_a_warning() {
    let warnings = |text: &str| -> Vec<String> {
        read(text)
            .unwrap()
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let client = CLIENT.replace("evergate0\"", "evergate0\"\nxdp = \"auto\"\n[heartbeat]");
    assert_eq!(
        warnings(&client),
        [
            "11:7: inside.xdp has no effect on a client: its inside is a TUN device",
            "12:1: [heartbeat] has no effect on a client: only gateways reflect heartbeats (a \
             client's own are set in its policy)",
        ]
    );
    // Standby gateways get no heartbeats: a client asks them by IKE.
    let client = CLIENT.replace("evergate0\"", "evergate0\"\n[ike]\nliveness = \"5s\"");
    assert_eq!(warnings(&client), [""; 0]);
    let unguarded = CLIENT.replace("evergate0\"", "evergate0\"\n[ike]\nguard = 0");
    assert_eq!(read(&unguarded).unwrap().ike.guard, 0);
    let short = warnings(&CLIENT.replace("correct horse battery staple", "12345678"));
    assert!(
        short[0].starts_with("14:7: psk of gw-a.example has only 8 bytes"),
        "{short:?}"
    );
    let lonely = &GATEWAY[..GATEWAY.find("[[peer]]").unwrap()];
    let lonely = warnings(lonely);
    assert!(
        lonely[0].contains("no [[peer]]: no client can authenticate"),
        "{lonely:?}"
    );
}

#[test]
fn a_long_name_is_told_that_its_socket_is_too_long() {
    let deep = format!("/{}/a.sock", "d".repeat(110));
    let found = problems(&GATEWAY.replace("/run/evergate/gw-a.sock", &deep));
    assert_eq!(
        found,
        [format!(
            "4:10: socket: found {deep} of 118 bytes, expected at most 107"
        )]
    );
}

#[test]
fn the_manual_s_examples_are_good() {
    let manual = include_str!("../../../../docs/configuration.md");
    let examples: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    // Eight whole files; the third of all needs files, which `certificates` has; the proposals belong into
    // either.
    let [
        client,
        gateway,
        _,
        authority,
        edge,
        translating,
        front,
        proposals,
        sharing,
        filter,
    ] = examples[..]
    else {
        panic!("{} examples", examples.len());
    };
    for (example, role) in [
        (client, Role::Client),
        (gateway, Role::Gateway),
        (sharing, Role::Gateway),
        (authority, Role::Authority),
        (edge, Role::Gateway),
        (translating, Role::Gateway),
        (front, Role::Front),
        (filter, Role::Gateway),
    ] {
        let config = read(example).unwrap();
        assert_eq!((config.role, config.warnings), (role, vec![]));
        if role == Role::Front {
            continue;
        }
        let config = read(&format!("{example}\n{proposals}")).unwrap();
        assert_eq!((config.ike.proposals.len(), config.warnings), (2, vec![]));
    }
}
