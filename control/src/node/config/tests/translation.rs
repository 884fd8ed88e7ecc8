//! The relay of IKE by address translation in the configuration.

use super::super::{ChannelEnd, Negotiation};
use super::*;

const AUTHORITY: &str = r#"
name = "authority"
role = "authority"
identity = "vpn.example"

[outside]
address = "192.0.2.100"

[channel]
listen = "10.0.0.1:4510"
cert = "authority.pem"
key = "authority.key"
ca = ["cluster.pem"]

[[channel.edge]]
number = 1
name = "edge-1.example"
translated = "10.0.0.21"

[[channel.edge]]
number = 2
name = "edge-2.example"
translated = "10.0.0.22"

[[channel.edge]]
number = 3
name = "edge-3.example"

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
negotiation = "translation"
cert = "edge-1.pem"
key = "edge-1.key"
ca = ["cluster.pem"]

[[channel.authority]]
address = "10.0.0.1:4510"
name = "authority.example"
translated = "10.0.0.21"

[[channel.authority]]
address = "10.0.0.2:4510"
name = "second.example"
translated = "10.0.0.31"
"#;

#[test]
fn addresses_stand_for_edges() {
    let config = read(AUTHORITY).unwrap();
    assert_eq!(config.warnings, []);
    let ChannelEnd::Authority { edges, .. } = config.channel.unwrap().end else {
        panic!("an edge's end");
    };
    let stands = edges
        .iter()
        .map(|edge| edge.translated.map(|ip| ip.to_string()));
    let stands: Vec<_> = stands.collect();
    let expected = ["10.0.0.21", "10.0.0.22"].map(|text| Some(text.to_owned()));
    assert_eq!(stands, [&expected[..], &[None]].concat());
}

#[test]
fn an_edge_says_by_which_interface_answers_come() {
    let own = EDGE.replace("cert =", "interface = \"up0\"\ncert =");
    let instead = own.replace(
        "interface = \"lan0\"",
        "interface = \"lan0\"\nxdp = \"off\"",
    );
    for (text, expected) in [(EDGE, "lan0"), (&own, "up0"), (&instead, "up0")] {
        let config = read(text).unwrap();
        assert_eq!(config.warnings, []);
        let ChannelEnd::Edge {
            authorities,
            negotiation,
            interface,
            ..
        } = config.channel.unwrap().end
        else {
            panic!("an authority's end");
        };
        assert_eq!(negotiation, Negotiation::Translation);
        assert_eq!(interface, expected);
        let stands = authorities.iter().filter_map(|at| at.translated);
        let stands: Vec<_> = stands.map(|ip| ip.to_string()).collect();
        assert_eq!(stands, ["10.0.0.21", "10.0.0.31"]);
    }
    let text = EDGE.replace("negotiation = \"translation\"", "");
    let text = text.lines().filter(|line| !line.starts_with("translated"));
    let config = read(&text.collect::<Vec<_>>().join("\n")).unwrap();
    let end = config.channel.unwrap().end;
    assert!(matches!(
        end,
        ChannelEnd::Edge {
            negotiation: Negotiation::Channel,
            ..
        }
    ));
}

#[test]
fn what_can_not_be_translated_is_told() {
    for (text, from, to, said) in [
        (
            EDGE,
            "negotiation = \"translation\"",
            "negotiation = \"nat\"",
            "channel.negotiation: found `nat`",
        ),
        (
            EDGE,
            "translated = \"10.0.0.31\"",
            "",
            "`channel.authority.translated` is missing",
        ),
        (
            EDGE,
            "translated = \"10.0.0.31\"",
            "translated = \"2001:db8::31\"",
            "channel.authority.translated: found 2001:db8::31, expected one of the same family as 192.0.2.100",
        ),
        (
            EDGE,
            "translated = \"10.0.0.31\"",
            "translated = \"192.0.2.100\"",
            "channel.authority.translated: found the address that the edges share",
        ),
        (
            EDGE,
            "translated = \"10.0.0.31\"",
            "translated = \"224.0.0.1\"",
            "a multicast address",
        ),
        (
            EDGE,
            "interface = \"wan0\"",
            "interface = \"wan0\"\nxdp = \"off\"",
            "found \"translation\" and outside.xdp = \"off\"",
        ),
        (
            EDGE,
            "interface = \"lan0\"",
            "interface = \"lan0\"\nxdp = \"off\"",
            "found \"translation\" and inside.xdp = \"off\", but answers come by `lan0`",
        ),
        (
            EDGE,
            "cert =",
            "interface = \"wan0\"\ncert =",
            "channel.interface: found `wan0`, which is the outside interface",
        ),
        (
            AUTHORITY,
            "translated = \"10.0.0.22\"",
            "translated = \"10.0.0.21\"",
            "channel.edge.translated: 10.0.0.21 is there twice",
        ),
        (
            AUTHORITY,
            "translated = \"10.0.0.22\"",
            "translated = \"10.0.0\"",
            "channel.edge.translated: found `10.0.0`",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let problems = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(problems.contains(said), "{said}: {problems}");
    }
    let more = (0..7).map(|n| {
        format!(
            "\n[[channel.authority]]\naddress = \"10.0.1.{n}:4510\"\nname = \"a\"\ntranslated = \"10.0.1.{n}\"\n"
        )
    });
    let problems = read(&(EDGE.to_owned() + &more.collect::<String>())).unwrap_err();
    let said =
        "found 9 [[channel.authority]] with negotiation = \"translation\", expected at most 8";
    assert!(problems.to_string().contains(said), "{problems}");
}

#[test]
fn what_is_not_translated_has_no_effect() {
    let text = EDGE.replace("negotiation = \"translation\"", "interface = \"up0\"");
    let warnings = read(&text).unwrap().warnings;
    let said: Vec<_> = warnings
        .iter()
        .map(|warning| warning.text.as_str())
        .collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("channel.interface has no effect without negotiation"));
    assert!(said[1].starts_with("channel.authority.translated has no effect without negotiation"));
    let text = AUTHORITY.replace("listen", "negotiation = \"translation\"\nlisten");
    let warnings = read(&text).unwrap().warnings;
    assert!(
        warnings[0]
            .text
            .contains("channel.negotiation has no effect on an authority")
    );
}
