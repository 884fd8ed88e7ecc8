//! What a session may carry: the addresses of the inner packet against what it owns.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Refused;

const V4_LEN: usize = 20;
const V6_LEN: usize = 40;

/// The header of an inner packet, as far as tunnelling needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Length of the packet in bytes as its header says; never more than there is.
    pub len: usize,
    /// Length of the IP header in bytes: with options for IPv4, without extensions for IPv6.
    pub header_len: usize,
    /// IPv4 protocol or IPv6 next header, which may be an extension header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether this is an IPv4 fragment other than the first, without a transport header.
    pub later_fragment: bool,
    /// Whether the packet must not be fragmented: DF of IPv4; true for IPv6.
    pub dont_fragment: bool,
}

/// Length in bytes of the IP packet of `version` at the start of `packet`: as the header says, and
/// `None` if that is another version, less than the header or more than there is.
#[inline]
pub(super) fn total_length(packet: &[u8], version: u8) -> Option<usize> {
    let len = match (version, *packet.first()? >> 4) {
        (4, 4) => {
            let header = packet.first_chunk::<V4_LEN>()?;
            let header_len = usize::from(header[0] & 15) * 4;
            let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
            (header_len >= V4_LEN && len >= header_len).then_some(len)
        }
        (6, 6) => {
            let header = packet.first_chunk::<V6_LEN>()?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // Length 0 before hop-by-hop options means a jumbogram, which no tunnel of ours holds.
            (len != 0 || header[6] != 0).then_some(V6_LEN + len)
        }
        _ => None,
    };
    len.filter(|len| *len <= packet.len())
}

/// Reads the header of the IP packet at the start of `packet`.
///
/// # Errors
/// [`Refused::InnerMalformed`].
#[inline]
pub fn parse_inner(packet: &[u8]) -> Result<Inner, Refused> {
    parse(packet).ok_or(Refused::InnerMalformed)
}

fn parse(packet: &[u8]) -> Option<Inner> {
    match *packet.first()? >> 4 {
        4 => {
            let len = total_length(packet, 4)?;
            let header = packet.first_chunk::<V4_LEN>()?;
            let fragment = u16::from_be_bytes([header[6], header[7]]);
            let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
            Some(Inner {
                src: Ipv4Addr::new(s0, s1, s2, s3).into(),
                dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
                len,
                header_len: usize::from(header[0] & 15) * 4,
                protocol: header[9],
                ttl: header[8],
                later_fragment: fragment & 0x1FFF != 0,
                dont_fragment: fragment & 0x4000 != 0,
            })
        }
        6 => {
            let len = total_length(packet, 6)?;
            let header = packet.first_chunk::<V6_LEN>()?;
            let (src, dst) = header[8..].split_first_chunk::<16>()?;
            Some(Inner {
                src: Ipv6Addr::from(*src).into(),
                dst: Ipv6Addr::from(*dst.first_chunk::<16>()?).into(),
                len,
                header_len: V6_LEN,
                protocol: header[6],
                ttl: header[7],
                later_fragment: false,
                dont_fragment: true,
            })
        }
        _ => None,
    }
}

/// Reads the header of the IP packet at the start of `packet` and checks that its source lies in
/// `owned_src` and its destination in `allowed_dst`. An empty list allows nothing.
///
/// # Errors
/// [`Refused::InnerMalformed`], [`Refused::InnerSource`], [`Refused::InnerDestination`].
#[inline]
pub fn check_inner(
    packet: &[u8],
    owned_src: &[IpNet],
    allowed_dst: &[IpNet],
) -> Result<Inner, Refused> {
    let inner = parse_inner(packet)?;
    //= rfc4301#section-5.2
    // Step 4: what came out of the tunnel must match the selectors of the SA.
    if !owned_src.iter().any(|net| holds(net, &inner.src)) {
        return Err(Refused::InnerSource);
    }
    if !allowed_dst.iter().any(|net| holds(net, &inner.dst)) {
        return Err(Refused::InnerDestination);
    }
    Ok(inner)
}

/// As `IpNet::contains`, with the usual single address first.
#[inline]
fn holds(net: &IpNet, address: &IpAddr) -> bool {
    match (net, address) {
        (IpNet::V4(net), IpAddr::V4(address)) => {
            let difference = u32::from(net.addr()) ^ u32::from(*address);
            difference == 0 || difference.leading_zeros() >= u32::from(net.prefix_len())
        }
        (IpNet::V6(net), IpAddr::V6(address)) => {
            let difference = u128::from(net.addr()) ^ u128::from(*address);
            difference == 0 || difference.leading_zeros() >= u32::from(net.prefix_len())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::{check_inner, holds, parse_inner};
    use crate::esp::Refused;
    use crate::esp::tests::{v4_packet, v6_packet};

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a prefix"))
            .collect()
    }

    #[test]
    fn a_session_sends_only_from_what_it_owns_to_what_it_may() {
        let packet = v4_packet(60);
        let cases = [
            (&["10.99.0.7/32"][..], &["10.0.0.0/8"][..], None),
            (&["10.99.0.0/24"], &["0.0.0.0/0"], None),
            (
                &["10.99.0.8/32"],
                &["10.0.0.0/8"],
                Some(Refused::InnerSource),
            ),
            (&[], &["10.0.0.0/8"], Some(Refused::InnerSource)),
            (&["::/0"], &["10.0.0.0/8"], Some(Refused::InnerSource)),
            (
                &["10.99.0.7/32"],
                &["10.1.0.0/16"],
                Some(Refused::InnerDestination),
            ),
            (&["10.99.0.7/32"], &[], Some(Refused::InnerDestination)),
            (
                &["fd00::/8", "10.99.0.7/32"],
                &["fd00::/8", "10.0.0.1/32"],
                None,
            ),
        ];
        for (owned, allowed, expected) in cases {
            let found = check_inner(&packet, &nets(owned), &nets(allowed)).err();
            assert_eq!(found, expected, "{owned:?} {allowed:?}");
        }
        let inner = check_inner(
            &v6_packet(80),
            &nets(&["fd99::7/128"]),
            &nets(&["fd00::/16"]),
        );
        let inner = inner.expect("allowed");
        assert_eq!(
            (inner.len, inner.header_len, inner.protocol, inner.ttl),
            (80, 40, 17, 64)
        );
        assert_eq!(inner.src, "fd99::7".parse::<IpAddr>().expect("an address"));
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let malformed = Err(Refused::InnerMalformed);
        assert_eq!(parse_inner(&[]), malformed);
        for whole in [v4_packet(60), v6_packet(80)] {
            for len in 0..whole.len() {
                assert_eq!(parse_inner(&whole[..len]), malformed, "cut to {len}");
            }
            let mut longer = whole.clone();
            longer.extend([0; 9]);
            assert_eq!(
                parse_inner(&longer).expect("padding behind").len,
                whole.len()
            );
        }
        let with = |at: usize, value: u8| {
            let mut packet = v4_packet(60);
            packet[at] = value;
            parse_inner(&packet)
        };
        assert_eq!(with(0, 0x44), malformed, "header of 16 bytes");
        assert_eq!(with(0, 0x55), malformed, "version 5");
        assert_eq!(with(3, 19), malformed, "shorter than its header");
        assert_eq!(with(3, 61), malformed, "longer than there is");
        assert!(with(6, 0x40).expect("DF").dont_fragment);
        assert!(with(7, 1).expect("second fragment").later_fragment);
        let mut jumbo = v6_packet(40);
        jumbo[6] = 0;
        assert_eq!(parse_inner(&jumbo), malformed, "jumbogram");
    }

    proptest! {
        #[test]
        fn holds_as_ipnet_contains(
            net in any::<[u8; 16]>(),
            len in 0_u8..=128,
            flip in 0_u32..128,
            four in any::<bool>(),
        ) {
            let near = (u128::from_be_bytes(net) ^ 1 << flip).to_be_bytes();
            let address = |bytes: [u8; 16]| match four {
                true => IpAddr::from([bytes[12], bytes[13], bytes[14], bytes[15]]),
                false => IpAddr::from(bytes),
            };
            let len = if four { len % 33 } else { len };
            let net = IpNet::new(address(net), len).expect("a prefix");
            for other in [address(near), net.addr(), "::1".parse().expect("an address")] {
                prop_assert_eq!(holds(&net, &other), net.contains(&other));
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(inner) = parse_inner(&bytes) {
                prop_assert!(inner.len <= bytes.len() && inner.header_len <= inner.len);
            }
        }
    }
}
