//! Authorities and edges in the configuration.

use super::super::{ChannelEnd, Connectivity, Distribution, Store};
use super::*;

const AUTHORITY: &str = r#"
name = "authority"
role = "authority"
identity = "vpn.example"
state = "kept"

[outside]
address = "192.0.2.100"

[channel]
listen = "10.0.0.1:4510"
cert = "authority.pem"
key = "authority.key"
ca = ["cluster.pem"]

[[channel.edge]]
number = 1
name = "Edge-1.example"

[[channel.edge]]
number = 7
name = "edge-7.example"

[repository]
key = "repository.key"

[pool]
networks = ["10.99.0.0/24"]

[[peer]]
identity = "client.example"
psk = "0123456789abcdef"
"#;

const EDGE: &str = r#"
name = "edge-1"
role = "gateway"
identity = "vpn.example"

[outside]
interface = "wan0"
address = "192.0.2.100"

[inside]
interface = "lan0"

[channel]
cert = "edge-1.pem"
key = "edge-1.key"
ca = ["cluster.pem"]

[[channel.authority]]
address = "10.0.0.1:4510"
name = "authority.example"

[[channel.authority]]
address = "[2001:db8::1]:4510"
name = "second.example"
"#;

#[test]
fn an_authority_has_edges_and_a_repository() {
    let config = read(AUTHORITY).unwrap();
    assert_eq!(
        (config.role, &config.warnings[..]),
        (Role::Authority, &[][..])
    );
    let channel = config.channel.unwrap();
    let ChannelEnd::Authority {
        listen,
        edges,
        distribution,
        number,
    } = channel.end
    else {
        panic!("an edge's end");
    };
    assert_eq!(number, None);
    assert_eq!(listen.to_string(), "10.0.0.1:4510");
    assert_eq!(distribution, Distribution::All);
    let edges: Vec<_> = edges
        .iter()
        .map(|e| (e.number.0, e.name.as_str()))
        .collect();
    assert_eq!(edges, [(1, "edge-1.example"), (7, "edge-7.example")]);
    let Store::Embedded(file) = config.repository.unwrap().store else {
        panic!("not a file");
    };
    assert!(file.ends_with("kept/repository"), "{}", file.display());
    let etcd = AUTHORITY.replace(
        "key = \"repository.key\"",
        "key = \"repository.key\"\netcd = [\"http://10.0.0.5:2379\"]\nprefix = \"/vpn\"",
    );
    let store = read(&etcd).unwrap().repository.unwrap().store;
    assert_eq!(
        store,
        Store::Etcd {
            endpoints: vec!["http://10.0.0.5:2379".to_owned()],
            prefix: "/vpn".to_owned(),
            tls: None,
            user: None,
        }
    );
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "not open to all\n").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&password, closed).unwrap();
    let with = format!(
        "etcd = [\"https://10.0.0.5:2379\"]\nca = \"etcd-ca.pem\"\ncert = \"me.pem\"\ncert_key = \"me.key\"\n\
         user = \"evergate\"\npassword_file = \"{}\"",
        password.display()
    );
    let text = |with: &str| {
        let key = "key = \"repository.key\"";
        AUTHORITY.replace(key, &format!("{key}\n{with}"))
    };
    let config = read(&text(&with)).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let Store::Etcd { tls, user, .. } = config.repository.unwrap().store else {
        panic!("a file");
    };
    let tls = tls.unwrap();
    assert!(tls.ca.ends_with("etcd-ca.pem") && tls.identity.is_some() && tls.name.is_none());
    let user = user.unwrap();
    assert_eq!(
        (&user.name[..], &user.password[..]),
        ("evergate", "not open to all")
    );
    for (from, to, said) in [
        ("https:", "http:", "expected https://"),
        ("ca = \"etcd-ca.pem\"\n", "", "`ca` is missing"),
        ("cert_key = \"me.key\"\n", "", "`cert` and `cert_key`"),
        ("user = \"evergate\"\n", "", "`user` and `password_file`"),
        ("/password\"", "/nothing\"", "cannot read"),
    ] {
        let problems = read(&text(&with.replace(from, to)))
            .unwrap_err()
            .to_string();
        assert!(problems.contains(said), "{problems}");
    }
}

#[test]
fn an_edge_knows_authorities_and_no_clients() {
    let config = read(EDGE).unwrap();
    assert_eq!(
        (config.role, &config.warnings[..]),
        (Role::Gateway, &[][..])
    );
    let ChannelEnd::Edge { authorities, .. } = config.channel.unwrap().end else {
        panic!("an authority's end");
    };
    let names: Vec<_> = authorities.iter().map(|at| at.name.as_str()).collect();
    assert_eq!(names, ["authority.example", "second.example"]);
}

#[test]
fn a_few_edges_can_be_chosen() {
    let chosen = |flag: &str| {
        let text = AUTHORITY.replacen("[channel]", "[channel]\ndistribution = \"chosen\"", 1);
        text.replacen("[[channel.edge]]", &format!("[[channel.edge]]\n{flag}"), 1)
    };
    let config = read(&chosen("chosen = true")).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let ChannelEnd::Authority {
        edges,
        distribution,
        ..
    } = config.channel.unwrap().end
    else {
        panic!("an edge's end");
    };
    let flags: Vec<_> = edges.iter().map(|edge| edge.chosen).collect();
    assert_eq!(
        (distribution, &flags[..]),
        (Distribution::Chosen, &[true, false][..])
    );
    for text in [
        chosen(""),
        AUTHORITY.replacen("[[channel.edge]]", "[[channel.edge]]\nchosen = true", 1),
    ] {
        let warned = format!("{:?}", read(&text).unwrap().warnings);
        assert!(warned.contains("chosen"), "{warned}");
    }
}

#[test]
fn several_authorities_have_numbers() {
    let number = |text: &str| text.replacen("[channel]", "[channel]\nnumber = 62", 1);
    let config = read(&number(AUTHORITY)).unwrap();
    assert_eq!(config.number(), Some(62));
    assert_eq!(read(AUTHORITY).unwrap().number(), None);
    let mut each = 0..;
    let mut edge = String::new();
    for part in EDGE.split_inclusive("[[channel.authority]]\n") {
        edge.push_str(part);
        if part.ends_with("[[channel.authority]]\n") {
            edge.push_str(&format!("number = {}\n", each.next().unwrap() / 2 + 1));
        }
    }
    let config = read(&edge).unwrap();
    assert_eq!(config.number(), None, "it issues no SPIs");
    let ChannelEnd::Edge { authorities, .. } = config.channel.unwrap().end else {
        panic!("an authority's end");
    };
    let numbers: Vec<_> = authorities.iter().map(|at| at.number).collect();
    assert_eq!(numbers, [Some(1), Some(1)]);
    for (text, said) in [
        (
            edge.replacen("number = 1\n", "", 1),
            "expected with all or none",
        ),
        (edge.replacen("number = 1\n", "number = 63\n", 1), "63"),
    ] {
        let problems = read(&text).unwrap_err().to_string();
        assert!(problems.contains(said), "{problems}");
    }
    let config = read(&number(EDGE)).unwrap();
    let warned = format!("{:?}", config.warnings);
    assert!(warned.contains("channel.number"), "{warned}");
}

#[test]
fn what_is_wrong_with_a_channel_is_told() {
    for (text, from, to, said) in [
        (
            AUTHORITY,
            "address = \"192.0.2.100\"",
            "",
            "`outside.address` is missing",
        ),
        (
            AUTHORITY,
            "listen = \"10.0.0.1:4510\"",
            "listen = \"10.0.0.1\"",
            "channel.listen: found `10.0.0.1`",
        ),
        (
            AUTHORITY,
            "number = 7",
            "number = 1",
            "channel.edge.number: 1 is there twice",
        ),
        (
            AUTHORITY,
            "number = 7",
            "number = 0",
            "channel.edge.number: found 0, expected 1 to 65535",
        ),
        (
            AUTHORITY,
            "name = \"edge-7.example\"",
            "name = \"edge-1.example\"",
            "`edge-1.example` is there twice",
        ),
        (
            AUTHORITY,
            "name = \"edge-7.example\"",
            "name = \"edge 7\"",
            "channel.edge.name: found `edge 7`",
        ),
        (
            AUTHORITY,
            "[repository]\nkey = \"repository.key\"",
            "",
            "`[repository]` is missing",
        ),
        (
            AUTHORITY,
            "key = \"repository.key\"",
            "file = \"x\"",
            "`repository.key` is missing",
        ),
        (
            AUTHORITY,
            "key = \"repository.key\"",
            "key = \"k\"\nfile = \"x\"\netcd = [\"y\"]",
            "found beside `etcd`",
        ),
        (
            AUTHORITY,
            "ca = [\"cluster.pem\"]",
            "",
            "channel.ca: found none",
        ),
        (
            AUTHORITY,
            "listen",
            "distribution = \"some\"\nlisten",
            "channel.distribution: found `some`",
        ),
        (
            EDGE,
            "address = \"192.0.2.100\"",
            "",
            "`outside.address` is missing: expected the address that the edges share",
        ),
        (
            EDGE,
            "name = \"second.example\"",
            "",
            "`channel.authority.name` is missing",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let problems = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(problems.contains(said), "{said}: {problems}");
    }
    let (no_authority, _) = EDGE.split_once("[[channel.authority]]").unwrap();
    let problems = read(no_authority).unwrap_err().to_string();
    assert!(problems.contains("no [[channel.authority]]"), "{problems}");
}

#[test]
fn what_has_no_effect_is_told() {
    let text = EDGE.replace("[channel]", "[repository]\nkey = \"k\"\n\n[channel]");
    let warnings = read(&text).unwrap().warnings;
    assert!(
        warnings[0]
            .text
            .contains("[repository] has no effect on a gateway")
    );
    let text = AUTHORITY.replace("[channel]", "[inside]\ninterface = \"lan0\"\n\n[channel]");
    let warnings = read(&text).unwrap().warnings;
    assert!(
        warnings[0]
            .text
            .contains("[inside] has no effect on an authority")
    );
}

#[test]
fn edges_may_speak_to_each_other() {
    let table =
        "[connectivity]\nlisten = \"10.0.0.11:4511\"\n\n[channel]\nnegotiation = \"messages\"";
    let config = read(&EDGE.replace("[channel]", table)).unwrap();
    let expected = Connectivity {
        listen: "10.0.0.11:4511".parse().unwrap(),
        patience: Duration::from_millis(5),
    };
    assert_eq!(config.connectivity, Some(expected));
    assert!(config.channel.unwrap().by_messages());
    let config = read(EDGE).unwrap();
    assert_eq!(config.connectivity, None);
    assert!(!config.channel.unwrap().by_messages());
    let table = "[connectivity]\nlisten = \"[2001:db8::1]:4511\"\npatience = \"20ms\"\n\n[channel]";
    let config = read(&AUTHORITY.replace("[channel]", table)).unwrap();
    let patience = config.connectivity.map(|c| c.patience);
    assert_eq!(patience, Some(Duration::from_millis(20)));
}

#[test]
fn what_is_wrong_with_connectivity_is_told() {
    let (without_channel, _) = EDGE.split_once("[channel]").unwrap();
    let listen = "[connectivity]\nlisten = \"10.0.0.11:4511\"\n";
    for (text, said) in [
        (
            EDGE.replace("[channel]", "[channel]\nnegotiation = \"messages\""),
            "channel.negotiation: found `messages` without [connectivity]",
        ),
        (
            EDGE.replace("[channel]", "[channel]\nnegotiation = \"pigeon\""),
            "channel.negotiation: found `pigeon`",
        ),
        (
            format!("{without_channel}{listen}"),
            "[connectivity]: found without [channel]",
        ),
        (
            EDGE.replace("[channel]", "[connectivity]\n[channel]"),
            "`connectivity.listen` is missing",
        ),
        (
            EDGE.replace(
                "[channel]",
                "[connectivity]\nlisten = \"10.0.0.11\"\n[channel]",
            ),
            "connectivity.listen: found `10.0.0.11`",
        ),
        (
            EDGE.replace(
                "[channel]",
                "[connectivity]\nlisten = \"0.0.0.0:4511\"\n[channel]",
            ),
            "connectivity.listen: found `0.0.0.0:4511`",
        ),
        (
            EDGE.replace(
                "[channel]",
                &format!("{listen}patience = \"60ms\"\n[channel]"),
            ),
            "connectivity.patience: found 60ms, expected 1ms to 50ms",
        ),
    ] {
        let problems = read(&text).unwrap_err().to_string();
        assert!(problems.contains(said), "{said}: {problems}");
    }
    for (key, said) in [
        (
            "negotiation = \"channel\"",
            "channel.negotiation has no effect on an authority",
        ),
        (
            "notary = false",
            "channel.notary has no effect on an authority",
        ),
    ] {
        let text = AUTHORITY.replace("[channel]", &format!("[channel]\n{key}"));
        let warnings = read(&text).unwrap().warnings;
        assert!(
            warnings.iter().any(|warning| warning.text.contains(said)),
            "{warnings:?}"
        );
    }
}

#[test]
fn an_edge_can_do_without_a_notary() {
    for (key, expected) in [
        ("", true),
        ("notary = true", true),
        ("notary = false", false),
    ] {
        let text = EDGE.replace("[channel]", &format!("[channel]\n{key}"));
        let config = read(&text).unwrap();
        assert_eq!(config.warnings, []);
        let end = config.channel.unwrap().end;
        assert!(
            matches!(end, ChannelEnd::Edge { notary, .. } if notary == expected),
            "{key}: {end:?}"
        );
    }
    let said = read(&EDGE.replace("[channel]", "[channel]\nnotary = \"no\""));
    let said = said.unwrap_err().to_string();
    assert!(
        said.contains("notary") && said.contains("boolean"),
        "{said}"
    );
}
