//! Each verdict of the program `inside`, on crafted packets, beside the same decision on the host.

mod xdp_support;

use std::net::{IpAddr, Ipv4Addr};

use evergate_common::{reason::Counter, wire::*};
use xdp_support::{host::InsidePair, *};

const PREFIXES: [&str; 4] = [
    "10.99.0.0/24",
    "10.99.7.7/32",
    "2001:db8:99::/64",
    "0.0.0.0/32",
];

fn to(destination: &str) -> Frame {
    match destination.parse().unwrap() {
        IpAddr::V4(v4) => Frame {
            destination: v4.into(),
            ..Frame::v4(6, [0; 40])
        },
        IpAddr::V6(v6) => Frame {
            destination: v6.into(),
            ..Frame::v6(6, [0; 40])
        },
    }
}

#[test]
fn longest_prefixes_decide() {
    let mut pair = InsidePair::new(&PREFIXES);
    for hit in [
        "10.99.0.0",
        "10.99.0.255",
        "10.99.7.7",
        "2001:db8:99::1",
        "2001:db8:99:0:f::",
    ] {
        for frame in [
            to(hit),
            Frame {
                vlan: Some(7),
                ..to(hit)
            },
        ] {
            assert_eq!(
                pair.judge(&frame.bytes()),
                (REDIRECT, Counter::InsideSteered),
                "{hit}"
            );
        }
    }
    for miss in [
        "10.99.1.0",
        "10.99.7.6",
        "10.98.255.255",
        "2001:db8:98:ffff::",
        "ff02::1",
    ] {
        assert_eq!(
            pair.judge(&to(miss).bytes()),
            (PASS, Counter::Passed),
            "{miss}"
        );
    }
    pair.remove_prefix("10.99.7.7/32");
    assert_eq!(
        pair.judge(&to("10.99.7.7").bytes()),
        (PASS, Counter::Passed)
    );
}

#[test]
fn options_extensions_and_fragments_do_not_matter() {
    let mut pair = InsidePair::new(&PREFIXES);
    let v4 = to("10.99.0.5");
    let v6 = to("2001:db8:99::5");
    let fragment = vec![(IPV6_FRAGMENT, vec![0, 0, 1, 1, 0, 0, 0, 1])];
    for frame in [
        Frame {
            options: vec![1; 40],
            ..v4.clone()
        },
        Frame {
            fragment: 0x2000,
            ..v4.clone()
        },
        Frame {
            fragment: 0x00B9,
            ..v4
        },
        Frame {
            extensions: fragment,
            ..v6.clone()
        },
        Frame {
            extensions: vec![(IPV6_HOP_BY_HOP, vec![0; 8]); 9],
            ..v6
        },
    ] {
        assert_eq!(
            pair.judge(&frame.bytes()),
            (REDIRECT, Counter::InsideSteered),
            "{frame:?}"
        );
    }
}

#[test]
fn own_addresses_and_many_addresses_pass() {
    let mut pair = InsidePair::new(&["0.0.0.0/0", "::/0"]);
    pair.own_addresses(&[Ipv4Addr::new(10, 0, 0, 1).into(), GATEWAY_V6.into()]);
    for passes in [
        "10.0.0.1",
        "224.0.0.251",
        "255.255.255.255",
        "2001:db8:1::1",
        "ff02::fb",
    ] {
        assert_eq!(
            pair.judge(&to(passes).bytes()),
            (PASS, Counter::Passed),
            "{passes}"
        );
    }
    assert_eq!(
        pair.judge(&to("10.0.0.2").bytes()),
        (REDIRECT, Counter::InsideSteered)
    );
    let asked = arp(1, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 0, 1));
    // The sender 0.0.0.0 of a probe lies under 0.0.0.0/0, which no sane policy has.
    assert_eq!(pair.judge(&asked).0, REDIRECT);
}

#[test]
fn arp_about_inner_addresses() {
    let mut pair = InsidePair::new(&PREFIXES[..3]);
    let (inner, other) = (Ipv4Addr::new(10, 99, 0, 5), Ipv4Addr::new(10, 0, 0, 9));
    for operation in [ARP_REQUEST, ARP_REPLY] {
        let steered = (REDIRECT, Counter::InsideArp);
        assert_eq!(pair.judge(&arp(operation, other, inner)), steered);
        assert_eq!(pair.judge(&arp(operation, inner, other)), steered);
        assert_eq!(pair.judge(&arp(operation, inner, inner)), steered);
        assert_eq!(
            pair.judge(&arp(operation, other, other)),
            (PASS, Counter::Passed)
        );
    }
    assert_eq!(pair.judge(&arp(8, other, inner)), (PASS, Counter::Passed));
    let whole = arp(1, other, inner);
    for len in 14..whole.len() {
        assert_eq!(
            pair.judge(&whole[..len]),
            (PASS, Counter::Malformed),
            "{len}"
        );
    }
}

#[test]
fn neighbour_discovery_about_inner_addresses() {
    let mut pair = InsidePair::new(&PREFIXES);
    let inner = "2001:db8:99::5".parse::<std::net::Ipv6Addr>().unwrap();
    let other = "2001:db8:1::5".parse::<std::net::Ipv6Addr>().unwrap();
    for kind in [ND_SOLICITATION, ND_ADVERTISEMENT] {
        let message = |target: std::net::Ipv6Addr| {
            let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            body.extend(target.octets());
            let destination = IpAddr::from([0xFF02, 0, 0, 0, 0, 0, 0, 1]);
            Frame {
                ttl: 255,
                destination,
                ..Frame::v6(IPPROTO_ICMPV6, body)
            }
        };
        let steered = (REDIRECT, Counter::InsideNd);
        assert_eq!(pair.judge(&message(inner).bytes()), steered);
        assert_eq!(pair.judge(&message(other).bytes()), (PASS, Counter::Passed));
        let from_inner = Frame {
            source: inner.into(),
            ..message(other)
        };
        assert_eq!(pair.judge(&from_inner.bytes()), steered);
        let forwarded = Frame {
            ttl: 254,
            ..message(inner)
        };
        assert_eq!(pair.judge(&forwarded.bytes()), (PASS, Counter::Passed));
        let short = Frame {
            payload: message(inner).payload[..23].to_vec(),
            ..message(inner)
        };
        assert_eq!(pair.judge(&short.bytes()), (PASS, Counter::Malformed));
    }
}

#[test]
fn every_prefix_of_a_packet_is_left_to_the_kernel() {
    let mut pair = InsidePair::new(&PREFIXES);
    for destination in ["10.99.0.5", "2001:db8:99::5"] {
        let whole = to(destination).bytes();
        for len in 14..whole.len() {
            assert_eq!(
                pair.judge(&whole[..len]),
                (PASS, Counter::Malformed),
                "{len}"
            );
        }
    }
}
