//! Many traffic selectors: merged, counted, and never cut off in silence.

use super::super::payload::{Payload, TooLong, parse_chain, write_chain};
use super::*;
use proptest::prelude::*;

/// Few addresses, ports and protocols, so that ranges meet often; at both ends of either family.
fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ends = [0u128, u128::MAX - 11];
    (
        0..3u8,
        prop::sample::select(vec![(0, u16::MAX), (443, 443), (u16::MAX, 0)]),
        any::<bool>(),
        prop::sample::select(ends.to_vec()),
        0..12u8,
        0..12u8,
    )
        .prop_map(
            |(protocol, (first, last), v6, base, one, other)| TrafficSelector {
                protocol,
                ports: std::ops::RangeInclusive::new(first, last),
                start: address(v6, base, one.min(other)),
                end: address(v6, base, one.max(other)),
            },
        )
}

fn address(v6: bool, base: u128, offset: u8) -> IpAddr {
    let at = base.wrapping_add(u128::from(offset));
    match v6 {
        true => IpAddr::from(at.to_be_bytes()),
        false => IpAddr::from((at as u32).to_be_bytes()),
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn merging_preserves_membership(list in prop::collection::vec(selector(), 0..40)) {
        let merged = merge(&list);
        prop_assert!(merged.len() <= list.len());
        prop_assert!(merged.iter().all(TrafficSelector::is_valid));
        prop_assert_eq!(&merge(&merged), &merged);
        // Every kind of packet there is, so to say: a host with a protocol and ports.
        for (v6, base) in [(false, 0), (true, 0), (false, u128::MAX - 11), (true, u128::MAX - 11)] {
            for offset in 0..12 {
                for protocol in 0..3 {
                    for (first, last) in [(0, u16::MAX), (443, 443), (u16::MAX, 0)] {
                        let packet = TrafficSelector {
                            protocol,
                            ports: std::ops::RangeInclusive::new(first, last),
                            ..TrafficSelector::host(address(v6, base, offset))
                        };
                        let member = |list: &[TrafficSelector]| list.iter().any(|s| packet.is_within(s));
                        prop_assert_eq!(member(&list), member(&merged), "{}", packet);
                    }
                }
            }
        }
        // Nothing is left that could be merged.
        for (at, one) in merged.iter().enumerate() {
            for other in merged.iter().skip(at + 1) {
                let alike = one.protocol == other.protocol && one.ports == other.ports;
                prop_assert!(!alike || one.intersect(other).is_none());
            }
        }
    }
}

/// Hosts with a gap after each.
fn scattered(count: u32) -> Vec<TrafficSelector> {
    let host = |n: u32| TrafficSelector::host((0x0a00_0000 + 2 * n).to_be_bytes());
    (0..count).map(host).collect()
}

#[test]
fn the_prefixes_of_a_range_become_one_selector_again() {
    let mut pair = Pair::new();
    // 10.0.0.1 to 10.0.1.254, host by host.
    let hosts = (1..=510u32).map(|n| TrafficSelector::host((0x0a00_0000 + n).to_be_bytes()));
    let wish = Initiate {
        remote_ts: hosts.rev().collect(),
        ..pair.wish()
    };
    pair.initiate(wish);
    assert_eq!(pair.run(), 4);
    let range = TrafficSelector::range([10, 0, 0, 1], [10, 0, 1, 254]);
    assert_eq!(pair.a.established().unwrap().1.remote_ts, [range]);
}

#[test]
fn more_selectors_than_fit_are_refused_at_once() {
    let mut pair = Pair::new();
    for (count, fits) in [(255, true), (256, false)] {
        let wish = Initiate {
            remote_ts: scattered(count),
            ..pair.wish()
        };
        pair.initiate(wish);
        assert_eq!(!pair.a.take().is_empty(), fits);
    }
    let failure = pair.a.failure().unwrap();
    assert_eq!(failure, &Failure::TooLong(TooLong::Selectors(256)));
    assert_eq!(
        failure.to_string(),
        "256 traffic selectors: at most 255 fit into one payload, after merging"
    );
    assert_eq!(pair.a.engine.stats().sas, 1);
}

#[test]
fn a_responder_never_cuts_off_what_its_owner_allows() {
    let mut pair = Pair::new();
    pair.b.owner.local_ts = scattered(256);
    let wish = Initiate {
        remote_ts: Vec::new(),
        ..pair.wish()
    };
    pair.initiate(wish.clone());
    // <-- HDR, SK {IDr, AUTH, N(TS_UNACCEPTABLE)}
    pair.run();
    assert_eq!(pair.a.failure(), Some(&Failure::TsUnacceptable));
    let too_many = Failure::TooLong(TooLong::Selectors(256));
    assert_eq!(pair.b.failure(), Some(&too_many));
    // What it allows is merged too, so far as the peer has proposed it in one piece.
    pair.b.owner.local_ts = (0..300u32)
        .map(|n| TrafficSelector::host((0x0a00_0000 + n).to_be_bytes()))
        .collect();
    pair.initiate(wish);
    pair.run();
    let (_, child) = pair.a.established().unwrap();
    let range = TrafficSelector::range([10, 0, 0, 0], [10, 0, 1, 43]);
    assert_eq!(child.remote_ts, [range]);
}

#[test]
fn a_payload_holds_255_selectors() {
    let mut out = Vec::new();
    let most = [Payload::TsI(scattered(255))];
    let kind = write_chain(&most, &mut out).unwrap();
    assert_eq!(parse_chain(kind, &out).unwrap(), most);
    let more = [Payload::TsR(scattered(256))];
    assert_eq!(
        write_chain(&more, &mut Vec::new()),
        Err(TooLong::Selectors(256))
    );
}
