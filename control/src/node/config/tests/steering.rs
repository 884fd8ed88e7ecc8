//! Gateways that share one outside address.

use super::*;

const TABLE: &str = r#"[steering]
number = 1
address = "192.0.2.11"

[[steering.gateway]]
number = 2
address = "192.0.2.12"

[[steering.gateway]]
number = 62
address = "203.0.113.7"
by = "ip"
mtu = 1400
"#;

fn with(table: &str) -> String {
    GATEWAY.replace("[pool]\n", &format!("{table}\n[pool]\n"))
}

#[test]
fn a_gateway_knows_the_others() {
    let steering = read(&with(TABLE)).unwrap().steering.unwrap();
    assert_eq!(steering.number, 1);
    assert_eq!(steering.address.to_string(), "192.0.2.11");
    let [near, far] = &steering.gateways[..] else {
        panic!("{steering:?}")
    };
    assert_eq!(
        (near.number, near.way, near.mtu),
        (2, SteeredWay::Auto, None)
    );
    assert_eq!(
        (far.number, far.way, far.mtu),
        (62, SteeredWay::Ip, Some(1400))
    );
    assert_eq!(read(GATEWAY).unwrap().steering, None);
}

#[test]
fn what_can_not_work_is_told() {
    for (old, new, said) in [
        ("number = 1\n", "number = 0\n", "found 0, expected 1 to 62"),
        ("number = 62", "number = 63", "found 63, expected 1 to 62"),
        ("number = 2\n", "number = 1\n", "1 is there twice"),
        ("number = 1\n", "", "`steering.number` is missing"),
        (
            "address = \"192.0.2.11\"",
            "address = \"192.0.2.1\"",
            "the address that the gateways share",
        ),
        (
            "address = \"192.0.2.12\"",
            "address = \"192.0.2.11\"",
            "192.0.2.11 is there twice",
        ),
        (
            "address = \"192.0.2.12\"",
            "",
            "`steering.gateway.address` is missing",
        ),
        ("203.0.113.7", "2001:db8::7", "of the same family"),
        ("203.0.113.7", "224.0.0.1", "a multicast address"),
        (
            "by = \"ip\"",
            "by = \"gre\"",
            "expected one of `auto`, `ip`",
        ),
        ("mtu = 1400", "mtu = 100", "expected 576 to 9000"),
    ] {
        let table = TABLE.replace(old, new);
        assert_ne!(table, TABLE, "{old}");
        let found = problems(&with(&table));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{said}: {found:?}"
        );
    }
    let off = with(TABLE).replace("xdp = \"native\"", "xdp = \"off\"");
    assert!(problems(&off)[0].contains("outside.xdp"));
    let none = with(TABLE).replace("address = \"192.0.2.1\"\n", "");
    assert!(problems(&none)[0].contains("`outside.address` is missing"));
}

#[test]
fn what_has_no_effect_is_told() {
    let client = format!("{CLIENT}\n{TABLE}");
    let config = read(&client).unwrap();
    assert_eq!(config.steering, None);
    let expected = "[steering] has no effect on a client";
    assert!(config.warnings[0].text.starts_with(expected));
    let alone = with("[steering]\nnumber = 1\naddress = \"192.0.2.11\"\n");
    let warnings = read(&alone).unwrap().warnings;
    assert!(warnings.iter().any(|w| w.text.contains("no other gateway")));
}
