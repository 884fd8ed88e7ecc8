//! Address ranges as the fewest prefixes that cover exactly them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The minimal list of prefixes, ascending and disjoint, that covers `start` to `end` inclusive.
///
/// Empty if `end` is below `start` or the families differ.
pub fn cover(start: IpAddr, end: IpAddr) -> Vec<IpNet> {
    match (start, end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            blocks(u32::from(start).into(), u32::from(end).into(), 32)
                .filter_map(|(first, host_bits)| {
                    let address = Ipv4Addr::from(u32::try_from(first).ok()?);
                    Ipv4Net::new(address, u8::try_from(32 - host_bits).ok()?)
                        .ok()
                        .map(IpNet::V4)
                })
                .collect()
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => blocks(start.into(), end.into(), 128)
            .filter_map(|(first, host_bits)| {
                let length = u8::try_from(128 - host_bits).ok()?;
                Ipv6Net::new(Ipv6Addr::from(first), length)
                    .ok()
                    .map(IpNet::V6)
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Cuts `start..=end` into aligned blocks of a power of two, given as (first address, host bits).
///
/// Each step takes the largest block that is aligned at its start and ends within the range; as
/// any cover must begin a block at `start`, none can do with fewer.
fn blocks(start: u128, end: u128, address_bits: u32) -> impl Iterator<Item = (u128, u32)> {
    let mut next = (start <= end).then_some(start);
    std::iter::from_fn(move || {
        let first = next?;
        // The number of addresses left is one more than this, which overflows for all of IPv6.
        let left_less_one = end - first;
        let fits = left_less_one.checked_add(1).map_or(128, u128::ilog2);
        let host_bits = first.trailing_zeros().min(fits).min(address_bits);
        let last = first | u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        next = last.checked_add(1).filter(|following| *following <= end);
        Some((first, host_bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covered(start: &str, end: &str) -> Vec<String> {
        let prefixes = cover(start.parse().unwrap(), end.parse().unwrap());
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn known_ranges() {
        assert_eq!(
            covered("143.1.0.24", "143.1.0.30"),
            ["143.1.0.24/30", "143.1.0.28/31", "143.1.0.30/32"]
        );
        assert_eq!(
            covered("10.0.0.1", "10.0.0.3"),
            ["10.0.0.1/32", "10.0.0.2/31"]
        );
        assert_eq!(covered("2001:db8::", "2001:db8::ffff"), ["2001:db8::/112"]);
    }

    #[test]
    fn the_ends_of_the_address_space() {
        assert_eq!(covered("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(
            covered("255.255.255.255", "255.255.255.255"),
            ["255.255.255.255/32"]
        );
        let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(covered("::", top), ["::/0"]);
        assert_eq!(covered(top, top), [format!("{top}/128")]);
        assert_eq!(covered("0.0.0.1", "255.255.255.255").len(), 32);
        assert_eq!(covered("::1", top).len(), 128);
        // The worst case: both ends just off the edge of the space.
        assert_eq!(covered("0.0.0.1", "255.255.255.254").len(), 62);
        let below_top = top
            .strip_suffix('f')
            .map(|rest| format!("{rest}e"))
            .unwrap();
        assert_eq!(covered("::1", &below_top).len(), 254);
    }

    #[test]
    fn nothing_for_what_is_no_range() {
        assert!(covered("10.0.0.2", "10.0.0.1").is_empty());
        assert!(covered("10.0.0.2", "::1").is_empty());
    }

    /// The fewest aligned blocks that cover exactly the set bits, by dynamic programming over
    /// the binary tree of an 8-bit space: an oracle that shares no idea with `blocks`.
    fn fewest(set: &[bool]) -> usize {
        if set.iter().all(|bit| *bit) {
            1
        } else if set.iter().all(|bit| !bit) {
            0
        } else {
            let (low, high) = set.split_at(set.len() / 2);
            fewest(low) + fewest(high)
        }
    }

    #[test]
    fn every_small_range_against_brute_force() {
        for start in 0..=255u8 {
            for end in start..=255 {
                let address = |last| IpAddr::from([10, 9, 8, last]);
                let mut seen = [0u8; 256];
                let prefixes = cover(address(start), address(end));
                for prefix in &prefixes {
                    let IpNet::V4(net) = prefix else {
                        panic!("{prefix} is not IPv4")
                    };
                    assert_eq!(net.trunc(), *net, "{net} has host bits");
                    assert_eq!(net.network().octets()[..3], [10, 9, 8], "{net}");
                    for host in net.network().octets()[3]..=net.broadcast().octets()[3] {
                        seen[usize::from(host)] += 1;
                    }
                }
                let want: Vec<bool> = (0..=255).map(|host| start <= host && host <= end).collect();
                for (host, expected) in want.iter().enumerate() {
                    assert_eq!(
                        seen[host],
                        u8::from(*expected),
                        "{start}-{end}: host {host}"
                    );
                }
                assert_eq!(
                    prefixes.len(),
                    fewest(&want),
                    "{start}-{end} is not minimal"
                );
            }
        }
    }

    fn bounds(prefix: &IpNet) -> (u128, u128) {
        match prefix {
            IpNet::V4(n) => (
                u32::from(n.network()).into(),
                u32::from(n.broadcast()).into(),
            ),
            IpNet::V6(n) => (n.network().into(), n.broadcast().into()),
        }
    }

    /// Prefixes follow each other without gap from `start` to `end`, and no two of them are the
    /// halves of one larger prefix, which in a sorted exact cover means that it is minimal.
    fn assert_exact_and_minimal(prefixes: &[IpNet], start: u128, end: u128) {
        let mut expected = Some(start);
        for prefix in prefixes {
            let (first, last) = bounds(prefix);
            assert_eq!(Some(first), expected, "gap or overlap before {prefix}");
            expected = last.checked_add(1);
        }
        assert_eq!(expected, end.checked_add(1));
        for pair in prefixes.windows(2) {
            assert!(
                pair[0].prefix_len() != pair[1].prefix_len()
                    || pair[0].supernet() != pair[1].supernet(),
                "{} and {} are one prefix",
                pair[0],
                pair[1]
            );
        }
    }

    proptest! {
        #[test]
        fn ipv4_cover_is_exact_and_minimal(a: u32, b: u32) {
            let (start, end) = (a.min(b), a.max(b));
            let prefixes = cover(Ipv4Addr::from(start).into(), Ipv4Addr::from(end).into());
            assert_exact_and_minimal(&prefixes, start.into(), end.into());
        }

        #[test]
        fn ipv6_cover_is_exact_and_minimal(a: u128, b: u128, near in 0u32..128, low: bool) {
            // Random ends are nearly always far apart; the shift brings them close as well.
            let b = if low { a ^ (b >> near) } else { b };
            let (start, end) = (a.min(b), a.max(b));
            let prefixes = cover(Ipv6Addr::from(start).into(), Ipv6Addr::from(end).into());
            assert_exact_and_minimal(&prefixes, start, end);
        }
    }
}
