//! What a gateway does with its clients before maintenance.

use std::time::Duration;

use super::*;
use crate::ike::GatewayIdentity;

fn with(table: &str) -> String {
    GATEWAY.replace("[pool]\n", &format!("{table}\n[pool]\n"))
}

#[test]
fn a_gateway_names_others_by_address_or_name() {
    let text = "[drain]\ngateways = [\"192.0.2.2\", \"2001:db8::2\", \"gw-c.example\"]\npatience = \"5 min\"";
    let drain = read(&with(text)).unwrap().drain;
    let address = |text: &str| GatewayIdentity::Address(text.parse().unwrap());
    let expected = [
        address("192.0.2.2"),
        address("2001:db8::2"),
        GatewayIdentity::Fqdn("gw-c.example".into()),
    ];
    assert_eq!(drain.gateways, expected);
    assert_eq!(drain.patience, Duration::from_secs(300));
    let drain = read(GATEWAY).unwrap().drain;
    assert_eq!(drain.patience, Duration::from_secs(60));
    assert_eq!(drain.gateways, []);
}

#[test]
fn what_is_nowhere_to_go_is_told() {
    for (table, said) in [
        ("gateways = [\"a@b.example\"]", "found `a@b.example`"),
        ("gateways = [\"CN=gw\"]", "found `CN=gw`"),
        ("gateways = [\"0.0.0.0\"]", "the unspecified address"),
        ("gateways = [\"\"]", "found ``"),
        ("patience = \"0 s\"", "expected 1s to 24h"),
    ] {
        let found = problems(&with(&format!("[drain]\n{table}")));
        assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
        assert!(found[0].contains("drain."), "{found:?}");
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let client = format!("{CLIENT}\n[drain]\npatience = \"5s\"\n");
    let warnings = read(&client).unwrap().warnings;
    assert!(
        warnings[0]
            .text
            .starts_with("[drain] has no effect on a client")
    );
    let gateway = GATEWAY.replace("outside = \"198", "redirects = false\noutside = \"198");
    let warnings = read(&gateway).unwrap().warnings;
    let expected = "peer.redirects has no effect on a gateway";
    assert!(warnings[0].text.starts_with(expected), "{warnings:?}");
}

#[test]
fn a_client_follows_unless_told_otherwise() {
    let redirects = |text: &str| read(text).unwrap().peers[0].redirects;
    assert!(redirects(CLIENT));
    assert!(!redirects(
        &CLIENT.replace("[[peer]]\n", "[[peer]]\nredirects = false\n")
    ));
}
