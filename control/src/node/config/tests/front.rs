//! Fronts and encryption nodes in the configuration.

use super::*;

const FRONT: &str = r#"
name = "front-1"
role = "front"

[outside]
interface = "wan0"
address = "192.0.2.100"

[front]
address = "192.0.2.11"
key = "front.key"

[[front.node]]
number = 1
address = "192.0.2.1"

[[front.node]]
number = 62
address = "203.0.113.7"
by = "ip"
mtu = 1400
interface = "back0"
"#;

const NODE: &str = r#"
name = "node-1"
role = "gateway"
identity = "vpn.example"

[outside]
interface = "wan0"
address = "192.0.2.100"

[inside]
interface = "lan0"

[channel]
cert = "node-1.pem"
key = "node-1.key"
ca = ["cluster.pem"]

[[channel.authority]]
address = "10.0.0.1:4510"
name = "authority.example"

[behind]
address = "192.0.2.1"
key = "front.key"
fronts = ["192.0.2.11", "192.0.2.12"]
"#;

/// A gateway that is a front, and one of the nodes.
fn mixed() -> String {
    let (_, front) = FRONT.split_once("[front]").unwrap();
    let front = front.replacen(
        "address = \"192.0.2.11\"",
        "address = \"192.0.2.2\"\nnumber = 2",
        1,
    );
    NODE.replacen("\"192.0.2.1\"", "\"192.0.2.2\"", 1) + "\n[front]" + &front
}

#[test]
fn a_front_has_nodes_and_nothing_else() {
    let config = read(FRONT).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.role, Role::Front);
    assert_eq!(config.identity.to_string(), "front-1");
    let front = config.front.unwrap();
    assert_eq!(front.address.to_string(), "192.0.2.11");
    assert_eq!((front.number, front.tries), (None, 5));
    assert_eq!(front.heartbeat, Duration::from_millis(10));
    assert!(front.key.ends_with("front.key"));
    let nodes: Vec<_> = front
        .nodes
        .iter()
        .map(|n| (n.number, n.way, n.mtu))
        .collect();
    assert_eq!(front.nodes[1].interface.as_deref(), Some("back0"));
    assert_eq!(
        nodes,
        [
            (1, SteeredWay::Auto, None),
            (62, SteeredWay::Ip, Some(1400))
        ]
    );
    let timed = FRONT.replace("[front]", "[front]\nheartbeat = \"50ms\"\ntries = 3");
    let front = read(&timed).unwrap().front.unwrap();
    assert_eq!(
        (front.heartbeat, front.tries),
        (Duration::from_millis(50), 3)
    );
    let filtered =
        format!("{FRONT}\n[filter]\n[[filter.class]]\nname = \"staff\"\nrule = \"tunnel\"\n");
    assert!(read(&filtered).unwrap().filter.is_some());
}

#[test]
fn a_node_knows_the_fronts_before_it() {
    let config = read(NODE).unwrap();
    assert_eq!(config.warnings, []);
    let behind = config.behind.unwrap();
    assert_eq!(behind.address.to_string(), "192.0.2.1");
    assert_eq!(behind.fronts.len(), 2);
}

#[test]
fn a_gateway_may_be_a_front_and_a_node() {
    let config = read(&mixed()).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.front.unwrap().number, Some(2));
    assert!(config.behind.is_some());
}

#[test]
fn what_is_of_no_use_to_a_front_is_told() {
    let more = "\n[esp]\nworkers = 2\n[ike]\ntries = 3\n[inside]\ninterface = \"lan0\"\n";
    let warned = format!("{:?}", read(&format!("{FRONT}{more}")).unwrap().warnings);
    for table in ["[esp]", "[ike]", "[inside]"] {
        let said = format!("{table} has no effect on a front");
        assert!(warned.contains(&said), "{warned}");
    }
    let node = NODE.replace("role = \"gateway\"", "role = \"front\"");
    let found = problems(&node).join("\n");
    assert!(
        found.contains("`[front]` is missing: expected the encryption nodes"),
        "{found}"
    );
}

#[test]
fn what_can_not_work_is_told() {
    let mixed = mixed();
    for (text, from, to, said) in [
        (
            FRONT,
            "address = \"192.0.2.100\"\n",
            "",
            "`outside.address` is missing",
        ),
        (
            FRONT,
            "wan0\"",
            "wan0\"\nxdp = \"off\"",
            "found outside.xdp = \"off\"",
        ),
        (
            FRONT,
            "\"192.0.2.11\"",
            "\"192.0.2.100\"",
            "expected this node's own",
        ),
        (FRONT, "key = \"front.key\"\n", "", "`front.key` is missing"),
        (
            FRONT,
            "number = 62",
            "number = 1",
            "front.node.number: 1 is there twice",
        ),
        (
            FRONT,
            "number = 62",
            "number = 63",
            "front.node.number: found 63, expected 1 to 62",
        ),
        (
            FRONT,
            "\"203.0.113.7\"",
            "\"192.0.2.1\"",
            "front.node.address: 192.0.2.1 is there twice",
        ),
        (
            FRONT,
            "\"203.0.113.7\"",
            "\"2001:db8::7\"",
            "front.node.address: found 2001:db8::7, expected one of the same family as front.address",
        ),
        (
            FRONT,
            "[front]",
            "[front]\ntries = 1",
            "front.tries: found 1, expected 2 to 20",
        ),
        (
            FRONT,
            "[front]",
            "[front]\nheartbeat = \"1us\"",
            "front.heartbeat",
        ),
        (
            NODE,
            "[behind]",
            "[heartbeat]\naccept = \"plain\"\n[behind]",
            "heartbeat.accept",
        ),
        (NODE, "\"192.0.2.11\", ", "\"192.0.2.12\", ", "each once"),
        (
            NODE,
            "\"192.0.2.11\", ",
            "\"2001:db8::1\", ",
            "same family as behind.address",
        ),
        (
            NODE,
            "[\"192.0.2.11\", \"192.0.2.12\"]",
            "[]",
            "behind.fronts: found none",
        ),
        (
            NODE,
            "[behind]",
            "[steering]\nnumber = 1\naddress = \"192.0.2.1\"\n[behind]",
            "[steering]: found beside [front] or [behind]",
        ),
        (&mixed, "number = 2\n", "", "`front.number` is missing"),
        (
            &mixed,
            "number = 2\n",
            "number = 1\n",
            "front.node.number: 1 is there twice",
        ),
        (
            &mixed,
            "[behind]\naddress = \"192.0.2.2\"",
            "[behind]\naddress = \"192.0.2.3\"",
            "behind.address: found 192.0.2.3, expected 192.0.2.2 as in front.address",
        ),
        (
            &mixed,
            "fronts = [",
            "key = \"other.key\"\nfronts = [",
            "behind.key",
        ),
    ] {
        let text = match to.starts_with("key = ") {
            true => text.replacen("key = \"front.key\"\nfronts", "fronts", 1),
            false => text.to_owned(),
        };
        assert!(text.contains(from), "{from}");
        let found = problems(&text.replacen(from, to, 1)).join("\n");
        assert!(found.contains(said), "{said}: {found}");
    }
    let alone = NODE.split("[channel]").next().unwrap().to_owned()
        + "[behind]"
        + NODE.split("[behind]").nth(1).unwrap();
    let found = problems(&alone).join("\n");
    assert!(found.contains("[behind]: found no [channel]"), "{found}");
}
