//! The headers that a datagram's payload has as a frame: put before what a socket received, read from what
//! a socket is to send.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use evergate_common::packet::Bytes as _;
use evergate_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_UDP, IPV4_LEN, IPV6_LEN, UDP_LEN,
};

/// Bytes of the longest headers: Ethernet, IPv6, UDP.
pub(in crate::dataplane) const MOST: usize = ETHERNET_LEN + IPV6_LEN + UDP_LEN;

/// TTL of what a socket received: the kernel took the real one.
const TTL: u8 = 64;

/// Puts Ethernet, IP and UDP headers before the payload of `length` bytes at `at`. `class` is the type of
/// service or traffic class. Checksums are zero: the kernel has checked what arrived. Yields where the
/// frame lies; `None` if it does not fit, or the addresses are of two IP versions.
pub(in crate::dataplane) fn put(
    buffer: &mut [u8],
    at: usize,
    length: usize,
    from: SocketAddr,
    to: SocketAddr,
    class: u8,
) -> Option<Range<usize>> {
    let mut header = [0; MOST];
    let udp_length = u16::try_from(UDP_LEN + length).ok()?;
    let (ether_type, ip_len) = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = udp_length.checked_add(IPV4_LEN as u16)?;
            let ip = header.get_mut(ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN)?;
            (ip[0], ip[1]) = (0x45, class);
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            (ip[6], ip[8], ip[9]) = (0x40, TTL, IPPROTO_UDP);
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            (ETHERTYPE_IPV4, IPV4_LEN)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = header.get_mut(ETHERNET_LEN..ETHERNET_LEN + IPV6_LEN)?;
            (ip[0], ip[1]) = (0x60 | class >> 4, class << 4);
            ip[4..6].copy_from_slice(&udp_length.to_be_bytes());
            (ip[6], ip[7]) = (IPPROTO_UDP, TTL);
            ip[8..24].copy_from_slice(&from.octets());
            ip[24..40].copy_from_slice(&to.octets());
            (ETHERTYPE_IPV6, IPV6_LEN)
        }
        _ => return None,
    };
    // A link address that is nobody's: unicast, and no station's own.
    header[6] = 2;
    header[12..14].copy_from_slice(&ether_type.to_be_bytes());
    let udp = header.get_mut(ETHERNET_LEN + ip_len..)?;
    udp[..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let header = header.get(..ETHERNET_LEN + ip_len + UDP_LEN)?;
    let start = at.checked_sub(header.len())?;
    buffer.get_mut(start..at)?.copy_from_slice(header);
    Some(start..at + length)
}

/// Of an IP packet with UDP in it: where it goes, where the payload begins, and the type of service or
/// traffic class. `None` if it is no such packet.
pub(super) fn read(packet: &[u8]) -> Option<(SocketAddr, usize, u8)> {
    let [first, second] = packet.read::<2>(0)?;
    let (to, ip_len, protocol, class) = match first >> 4 {
        4 => {
            let to: IpAddr = packet.read::<4>(16)?.into();
            let [protocol] = packet.read::<1>(9)?;
            (to, usize::from(first & 15) * 4, protocol, second)
        }
        6 => {
            let to: IpAddr = packet.read::<16>(24)?.into();
            let [protocol] = packet.read::<1>(6)?;
            (to, IPV6_LEN, protocol, first << 4 | second >> 4)
        }
        _ => return None,
    };
    let port = packet.read_u16(ip_len + 2)?;
    let payload = ip_len + UDP_LEN;
    let whole = protocol == IPPROTO_UDP && payload <= packet.len();
    whole.then_some((SocketAddr::new(to, port), payload, class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evergate_common::packet::{Class, classify, parse};
    use proptest::prelude::*;

    fn addresses(v6: bool, from: u16) -> (SocketAddr, SocketAddr) {
        let [a, b]: [IpAddr; 2] = match v6 {
            true => ["2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap()),
            false => ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()),
        };
        (SocketAddr::new(a, from), SocketAddr::new(b, 4500))
    }

    proptest! {
        #[test]
        fn what_is_put_is_read_again(v6: bool, port: u16, class: u8, length in 8usize..3000) {
            let (from, to) = addresses(v6, port);
            let mut buffer = vec![0; MOST + length];
            buffer[MOST..MOST + 4].copy_from_slice(&[0, 0, 1, 2]);
            let range = put(&mut buffer, MOST, length, from, to, class).unwrap();
            let frame = &buffer[range];
            let (read_to, payload, read_class) = read(&frame[ETHERNET_LEN..]).unwrap();
            prop_assert_eq!((read_to, read_class), (to, class));
            prop_assert_eq!(frame.len() - ETHERNET_LEN - payload, length);
            // As the program's parser has it.
            let parsed = parse(frame).unwrap();
            let ip = parsed.ip.unwrap();
            prop_assert_eq!(ip.traffic_class, class);
            let Ok(Class::Esp(esp)) = classify(&parsed, frame) else { panic!("no ESP") };
            prop_assert_eq!((esp.len, esp.udp.unwrap().source), (length, port));
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn two_ip_versions_do_not_meet() {
        let mut buffer = [0; 200];
        let (from, to) = (addresses(true, 1).0, addresses(false, 1).1);
        assert_eq!(put(&mut buffer, MOST, 100, from, to, 0), None);
    }
}
