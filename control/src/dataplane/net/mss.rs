//! Clamping of the MSS option, so that TCP through the tunnel never sends what does not fit.

use super::checksum::update;
use super::frame::{take, take_u16};
use super::ip::{Ip, TCP};
use super::overhead::{mss_v4, mss_v6};

const SYN: u8 = 0x02;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Lowers the MSS option (RFC 9293 section 3.7.1) of a TCP segment with SYN set to what fits an
/// IP packet of `mtu` bytes, and corrects the TCP checksum (RFC 1624). Returns whether the packet
/// was changed; anything but such a segment, also a malformed one, is left as it is.
///
/// `packet` begins with the IPv4 or IPv6 header. A segment without the option is not given one:
/// its peer then assumes 536 or 1220 bytes (section 3.7.1), which fit any tunnel.
pub fn clamp(packet: &mut [u8], mtu: u16) -> bool {
    try_clamp(packet, mtu).is_some()
}

fn try_clamp(packet: &mut [u8], mtu: u16) -> Option<()> {
    let ip = Ip::parse(packet)?;
    if ip.protocol != TCP || ip.later_fragment {
        return None;
    }
    let limit = if ip.source.is_ipv4() {
        mss_v4(mtu)
    } else {
        mss_v6(mtu)
    };
    let segment = packet.get_mut(ip.payload..ip.end)?;
    let [offset, flags] = take(segment, 12)?;
    let header = usize::from(offset >> 4) * 4;
    if flags & SYN == 0 || header < 20 || header > segment.len() {
        return None;
    }
    let at = option(segment.get(..header)?)?;
    let old = take_u16(segment, at)?;
    if old <= limit {
        return None;
    }
    // The checksum sums 16-bit words from the start of the header; a value at an odd offset lies
    // across two of them, which is the same as a swapped value in one (RFC 1071 section 2 (B)).
    let (from, to) = if at % 2 == 0 {
        (old, limit)
    } else {
        (old.swap_bytes(), limit.swap_bytes())
    };
    let checksum = update(take_u16(segment, 16)?, from, to);
    segment
        .get_mut(at..at + 2)?
        .copy_from_slice(&limit.to_be_bytes());
    segment
        .get_mut(16..18)?
        .copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Where the value of the MSS option is in a TCP header. The walk is bounded by the header's
/// length: each turn takes at least one byte.
fn option(header: &[u8]) -> Option<usize> {
    let mut at = 20;
    loop {
        match *header.get(at)? {
            END => return None,
            NO_OPERATION => at += 1,
            kind => {
                let length = usize::from(*header.get(at + 1)?);
                if kind == MAXIMUM_SEGMENT_SIZE {
                    return (length == 4 && at + 4 <= header.len()).then_some(at + 2);
                }
                if length < 2 {
                    return None;
                }
                at += length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::{transport_v4, transport_v6};
    use super::*;
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// The TCP checksum over the packet as it is; zero if the one in it is right.
    fn verify(packet: &[u8]) -> u16 {
        let ip = Ip::parse(packet).unwrap();
        let segment = &packet[ip.payload..ip.end];
        match (ip.source, ip.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => transport_v4(a, b, TCP, segment),
            (IpAddr::V6(a), IpAddr::V6(b)) => transport_v6(a, b, TCP, segment),
            _ => unreachable!("one family"),
        }
    }

    fn packet(v6: bool, syn: bool, options: &[TcpOptionElement], payload: &[u8]) -> Vec<u8> {
        let ip = if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut tcp = ip.tcp(1000, 80, 77, 1024);
        if syn {
            tcp = tcp.syn();
        }
        let mut out = Vec::new();
        tcp.options(options)
            .unwrap()
            .write(&mut out, payload)
            .unwrap();
        out
    }

    fn mss(packet: &[u8]) -> Option<u16> {
        let ip = Ip::parse(packet)?;
        let header = usize::from(packet[ip.payload + 12] >> 4) * 4;
        option(&packet[ip.payload..ip.payload + header])
            .and_then(|at| take_u16(packet, ip.payload + at))
    }

    #[test]
    fn only_a_syn_with_a_larger_option_changes() {
        use TcpOptionElement::{MaximumSegmentSize, WindowScale};
        for (v6, limit) in [(false, 1360), (true, 1340)] {
            let mut large = packet(v6, true, &[WindowScale(7), MaximumSegmentSize(1460)], b"");
            assert!(clamp(&mut large, 1400));
            assert_eq!((mss(&large), verify(&large)), (Some(limit), 0));
            assert!(!clamp(&mut large, 1400), "once is enough");
            let mut small = packet(v6, true, &[MaximumSegmentSize(536)], b"");
            assert!(!clamp(&mut small, 1400));
            let mut bare = packet(v6, true, &[], b"");
            assert!(!clamp(&mut bare, 1400));
            let mut data = packet(v6, false, &[MaximumSegmentSize(1460)], b"");
            assert!(!clamp(&mut data, 1400));
        }
        let mut fragment = packet(false, true, &[MaximumSegmentSize(1460)], b"");
        fragment[7] = 1;
        assert!(!clamp(&mut fragment, 1400));
    }

    #[test]
    fn an_option_at_an_odd_offset() {
        let mut syn = packet(
            false,
            true,
            &[TcpOptionElement::MaximumSegmentSize(1460)],
            b"abc",
        );
        // One no-operation in front moves the value to an odd offset; an end follows.
        let header = 20 + 20;
        syn[32] = 7 << 4;
        syn[header..header + 4].copy_from_slice(&[1, 2, 4, 5]);
        syn.splice(header + 4..header + 4, [0xb4, 0, 0, 0]);
        syn[2..4].copy_from_slice(&51u16.to_be_bytes());
        syn[36..38].fill(0);
        let sum = verify(&syn);
        syn[36..38].copy_from_slice(&sum.to_be_bytes());
        assert_eq!((mss(&syn), verify(&syn)), (Some(1460), 0));
        assert!(clamp(&mut syn, 1000));
        assert_eq!((mss(&syn), verify(&syn)), (Some(960), 0));
    }

    #[test]
    fn a_broken_option_list_is_left_alone() {
        let good = packet(
            false,
            true,
            &[TcpOptionElement::MaximumSegmentSize(1460)],
            b"",
        );
        for (at, value) in [
            (41, 0),
            (41, 1),
            (41, 3),
            (41, 5),
            (40, 9),
            (40, 0),
            (32, 0x40),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            let before = bad.clone();
            assert!(!clamp(&mut bad, 1000), "byte {at} = {value}");
            assert_eq!(bad, before);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..60, mtu: u16,
        ) {
            let mut bytes = noise.clone();
            clamp(&mut bytes, mtu);
            let mut syn = packet(false, true, &[TcpOptionElement::MaximumSegmentSize(1460)], &[0; 40]);
            let end = (at + noise.len()).min(syn.len());
            syn[at..end].copy_from_slice(&noise[..end - at]);
            clamp(&mut syn, mtu);
        }

        #[test]
        fn the_checksum_stays_right(v6: bool, old: u16, mtu: u16, noops in 0usize..4, payload: Vec<u8>) {
            let mut options = vec![TcpOptionElement::Noop; noops];
            options.push(TcpOptionElement::MaximumSegmentSize(old));
            let mut syn = packet(v6, true, &options, &payload);
            let limit = mtu.saturating_sub(if v6 { 60 } else { 40 });
            prop_assert_eq!(clamp(&mut syn, mtu), old > limit);
            prop_assert_eq!(mss(&syn), Some(old.min(limit)));
            prop_assert_eq!(verify(&syn), 0);
        }
    }
}
