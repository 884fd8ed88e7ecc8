//! The packet filter in the configuration.

use super::*;
use crate::dataplane::Rule;

const EDGE: &str = r#"
name = "edge"
role = "gateway"
identity = "edge.example"

[outside]
interface = "wan0"
address = "192.0.2.100"

[inside]
interface = "lan0"

[[peer]]
identity = "client.example"
psk = "0123456789abcdef"
inner = ["10.99.0.7"]

[filter]
default = "guests"

[[filter.class]]
name = "guests"
rule = "plain"
direct = ["203.0.113.0/24", "2001:db8:5::/48"]

[[filter.class]]
name = "staff"
rule = "tunnel"

[[filter.user]]
address = "198.51.100.7"
class = "staff"
"#;

#[test]
fn classes_and_users() {
    let config = read(EDGE).unwrap();
    assert_eq!(config.warnings, []);
    let filter = config.filter.unwrap();
    assert_eq!(filter.default.as_deref(), Some("guests"));
    let guests = &filter.classes["guests"];
    assert_eq!((guests.rule, guests.direct.len()), (Rule::Plain, 2));
    let staff = &filter.classes["staff"];
    assert_eq!((staff.rule, staff.direct.len()), (Rule::Tunnel, 0));
    let users: Vec<_> = filter.users.into_iter().collect();
    assert_eq!(
        users,
        [("198.51.100.7".parse().unwrap(), "staff".to_owned())]
    );
}

#[test]
fn what_is_wrong_with_a_filter_is_told() {
    let cases = [
        (
            "default = \"guests\"",
            "default = \"guest\"",
            "filter.default: found `guest`, expected one of the classes: guests, staff",
        ),
        (
            "class = \"staff\"",
            "class = \"stuff\"",
            "filter.user.class: found `stuff`",
        ),
        ("class = \"staff\"", "", "`filter.user.class` is missing"),
        (
            "\"198.51.100.7\"",
            "\"198.51.100\"",
            "filter.user.address: found `198.51.100`",
        ),
        (
            "rule = \"plain\"",
            "rule = \"open\"",
            "filter.class.rule: found `open`",
        ),
        ("rule = \"plain\"", "", "`filter.class.rule` is missing"),
        (
            "rule = \"plain\"",
            "rule = \"tunnel\"",
            "filter.class.direct: found networks, expected none",
        ),
        (
            "203.0.113.0/24",
            "203.0.113.7/24",
            "filter.class.direct: found 203.0.113.7/24, expected 203.0.113.0/24",
        ),
        (
            "203.0.113.0/24",
            "203.0.113.0",
            "filter.class.direct: found `203.0.113.0`",
        ),
        (
            "name = \"staff\"",
            "name = \"guests\"",
            "filter.class.name: found `guests`, expected one that no other",
        ),
        (
            "address = \"192.0.2.100\"",
            "address = \"192.0.2.100\"\nxdp = \"off\"",
            "[filter]: found outside.xdp = \"off\"",
        ),
    ];
    for (from, to, said) in cases {
        assert!(EDGE.contains(from), "{from}");
        let error = read(&EDGE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let user = "[[filter.user]]\naddress = \"198.51.100.7\"\nclass = \"guests\"\n";
    let error = read(&format!("{EDGE}\n{user}")).unwrap_err().to_string();
    assert!(error.contains("198.51.100.7 is there twice"), "{error}");
    let more: String = (0..62)
        .map(|n| format!("[[filter.class]]\nname = \"c{n}\"\nrule = \"tunnel\"\n"))
        .collect();
    let error = read(&format!("{EDGE}\n{more}")).unwrap_err().to_string();
    assert!(error.contains("found 64, expected at most 63"), "{error}");
    let empty = EDGE.replace("direct = [\"203.0.113.0/24\", \"2001:db8:5::/48\"]", "");
    let warnings = read(&empty).unwrap().warnings;
    assert!(
        format!("{warnings:?}").contains("reach nothing"),
        "{warnings:?}"
    );
}
