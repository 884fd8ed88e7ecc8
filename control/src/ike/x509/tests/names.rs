//! Whom a certificate names.

use super::super::{dn_from_text, dn_key, dn_matches, dn_to_text};
use super::*;

#[test]
fn identities_match_alternative_names_or_the_subject() {
    let names = ["gw.example", "anna@example.org", "192.0.2.1", "2001:db8::1"];
    let root = Authority::new("root");
    let (der, key) = root.sign(&params(&names), P256);
    let own = Own::new(vec![der], private(&key)).unwrap();
    for (text, expected) in [
        ("gw.example", true),
        ("GW.Example", true),
        ("gw.example.org", false),
        ("a.gw.example", false),
        ("anna@example.org", true),
        ("anna@EXAMPLE.org", true),
        ("Anna@example.org", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8::1", true),
        ("2001:db8::2", false),
        ("CN=gw.example,O=Example", true),
        ("cn=GW.example, o=EXAMPLE", true),
        ("O=Example,CN=gw.example", false),
        ("CN=gw.example", false),
        ("CN=gw.example,O=Example,C=DE", false),
        ("keyid:00ff", false),
    ] {
        let identity: Identity = text.parse().unwrap();
        assert_eq!(own.names(&identity), expected, "{text}");
    }
    // A name that looks like an address is none, and the other way round.
    let fqdn = Identity::Fqdn("192.0.2.1".into());
    assert!(!own.names(&fqdn));
    let other = Identity::Other {
        kind: 2,
        data: b"gw.example".to_vec(),
    };
    assert!(!own.names(&other));
}

#[test]
fn distinguished_names_are_read_and_shown() {
    for (text, shown) in [
        ("CN=gw,O=Example,C=DE", "CN=gw,O=Example,C=DE"),
        ("CN=gw, O=Example", "CN=gw,O=Example"),
        (r"CN=a\, b,O=Example", r"CN=a\,\ b,O=Example"),
    ] {
        let der = dn_from_text(text).unwrap();
        let again = dn_to_text(&der).unwrap();
        assert_eq!(again.replace(r"\ ", " "), shown.replace(r"\ ", " "));
        assert_eq!(dn_from_text(&again), Some(der));
    }
    for text in ["", "gw.example", "nosuch=gw", "CN", "a=b@example.org"] {
        assert_eq!(dn_from_text(text), None, "{text}");
    }
}

#[test]
fn string_types_case_and_blanks_do_not_count() {
    // O=Example, CN=GW one: as UTF8String, and as PrintableString with two blanks.
    let utf8 = dn_from_text("CN=GW one,O=Example").unwrap();
    let rdn = |oid: u8, tag: u8, text: &str| {
        let value = [&[tag, text.len() as u8], text.as_bytes()].concat();
        let pair = [&[6, 3, 0x55, 4, oid], &value[..]].concat();
        let pair = [&[0x30, pair.len() as u8], &pair[..]].concat();
        [&[0x31, pair.len() as u8], &pair[..]].concat()
    };
    let name = |rdns: &[Vec<u8>]| {
        let body = rdns.concat();
        [&[0x30, body.len() as u8], &body[..]].concat()
    };
    let printable = name(&[rdn(10, 0x13, "EXAMPLE"), rdn(3, 0x13, "gw  One")]);
    assert!(dn_matches(&utf8, &printable) && dn_matches(&printable, &utf8));
    assert_eq!(dn_key(&utf8), dn_key(&printable));
    let other = name(&[rdn(10, 0x13, "EXAMPLE"), rdn(3, 0x13, "gw two")]);
    assert!(!dn_matches(&utf8, &other));
    assert_ne!(dn_key(&utf8), dn_key(&other));
    let swapped = name(&[rdn(3, 0x13, "gw  One"), rdn(10, 0x13, "EXAMPLE")]);
    assert!(!dn_matches(&utf8, &swapped));
    assert_ne!(dn_key(&utf8), dn_key(&swapped));
    assert!(!dn_matches(&utf8, &utf8[..utf8.len() - 1]));
    assert!(!dn_matches(b"", &utf8));
    let identity = |der: &[u8]| Identity::Dn(der.to_vec());
    assert!(identity(&utf8).matches(&identity(&printable)));
}
