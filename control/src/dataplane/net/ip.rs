//! As much of an inner IP packet as the ICMP and MSS code needs.

use std::net::IpAddr;

use super::frame::{take, take_u16};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const ICMPV6: u8 = 58;

/// IPv6 extension headers that are walked over; a packet with more is left alone.
const MAX_EXTENSIONS: usize = 8;

/// The headers of an IP packet, each length checked against the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// What follows the IP header and, in IPv6, the extension headers.
    pub(crate) protocol: u8,
    /// Where that begins. Equal to `end` if there is nothing.
    pub(crate) payload: usize,
    /// Where the packet ends; not past the bytes given.
    pub(crate) end: usize,
    /// A fragment other than the first, so that `payload` is not a header of `protocol`.
    pub(crate) later_fragment: bool,
}

impl Ip {
    /// `None` if `packet` is no IP packet, cut short, or has too many extension headers.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let end = usize::from(take_u16(packet, 2)?);
        if header < 20 || end < header || end > packet.len() {
            return None;
        }
        Some(Self {
            source: IpAddr::from(take::<4>(packet, 12)?),
            destination: IpAddr::from(take::<4>(packet, 16)?),
            protocol: *packet.get(9)?,
            payload: header,
            end,
            later_fragment: take_u16(packet, 6)? & 0x1fff != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let end = usize::from(take_u16(packet, 4)?) + 40;
        if end > packet.len() {
            return None;
        }
        let mut ip = Self {
            source: IpAddr::from(take::<16>(packet, 8)?),
            destination: IpAddr::from(take::<16>(packet, 24)?),
            protocol: *packet.get(6)?,
            payload: 40,
            end,
            later_fragment: false,
        };
        for _ in 0..MAX_EXTENSIONS {
            let length = match ip.protocol {
                // Hop-by-hop options, routing, destination options (RFC 8200 section 4).
                0 | 43 | 60 => 8 + 8 * usize::from(*packet.get(ip.payload + 1)?),
                // Authentication header, counted in words (RFC 4302 section 2.2).
                51 => 8 + 4 * usize::from(*packet.get(ip.payload + 1)?),
                44 => {
                    ip.later_fragment |= take_u16(packet, ip.payload + 2)? & 0xfff8 != 0;
                    8
                }
                _ => return Some(ip),
            };
            ip.protocol = *packet.get(ip.payload)?;
            ip.payload += length;
            if ip.payload > end {
                return None;
            }
            if ip.later_fragment {
                return Some(ip);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn extension_headers_are_walked() {
        // IPv6, hop-by-hop (8), destination options (16), fragment (first), then TCP.
        let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 64];
        packet.extend([0; 32]);
        packet.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([6, 0, 0, 1, 0, 0, 0, 9]);
        packet.extend([1, 2, 3, 4]);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!(
            (ip.protocol, ip.payload, ip.end, ip.later_fragment),
            (TCP, 72, 76, false)
        );
        packet[66] = 1;
        assert!(Ip::parse(&packet).unwrap().later_fragment);
        packet[49] = 200;
        assert_eq!(
            Ip::parse(&packet),
            None,
            "an extension header that leaves the packet"
        );
    }

    #[test]
    fn a_chain_without_end_is_refused() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 60, 64];
        packet.extend([0; 32]);
        for _ in 0..MAX_EXTENSIONS {
            packet.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        packet[5] = 8 * 8;
        assert_eq!(Ip::parse(&packet), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 0..200), v6: bool,
        ) {
            let _ = Ip::parse(&packet);
            if let Some(first) = packet.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | *first & 0x0f };
            }
            let _ = Ip::parse(&packet);
        }

        #[test]
        fn another_implementation_agrees(
            source: [u8; 4], destination: [u8; 4], payload in proptest::collection::vec(any::<u8>(), 0..99),
            cut in 0usize..160,
        ) {
            let mut packet = Vec::new();
            PacketBuilder::ipv4(source, destination, 9)
                .udp(1, 2)
                .write(&mut packet, &payload)
                .unwrap();
            let ip = Ip::parse(&packet).unwrap();
            prop_assert_eq!(ip.source, IpAddr::from(source));
            prop_assert_eq!(ip.destination, IpAddr::from(destination));
            prop_assert_eq!((ip.protocol, ip.payload, ip.end), (17, 20, packet.len()));
            let cut = cut.min(packet.len() - 1);
            prop_assert_eq!(Ip::parse(&packet[..cut]), None);
        }
    }
}
