//! Packets with a source address of one's choice, for the tests of spoofed heartbeats.

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Sends `count` IPv4 packets; the kernel fills in identification and checksum.
pub(super) fn inject(from: IpAddr, to: IpAddr, protocol: u8, hex: &str, count: u32) -> Result<()> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        bail!("inject: IPv4 only, found {from} and {to}");
    };
    let packet = packet(from, to, protocol, &unhex(hex)?)?;
    // IPPROTO_RAW: the packet comes with its IP header.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
        .context("raw sockets need root")?;
    let address = SockAddr::from(SocketAddr::from((to, 0)));
    for _ in 0..count {
        socket.send_to(&packet, &address)?;
    }
    Ok(())
}

pub(super) fn packet(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let total = u16::try_from(20 + payload.len()).context("payload too long for IPv4")?;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    Ok(packet)
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => bail!("payload {text:?}: expected pairs of hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_payload() {
        let made = packet(
            Ipv4Addr::new(192, 0, 2, 2),
            Ipv4Addr::new(192, 0, 2, 1),
            50,
            &unhex("ffffffff00000001").unwrap(),
        )
        .unwrap();
        assert_eq!(made.len(), 28);
        assert_eq!(made[9], 50);
        assert_eq!(made[12..16], [192, 0, 2, 2]);
        assert_eq!(made[20..24], [255; 4]);
        assert!(unhex("abc").is_err() && unhex("xy").is_err());
    }
}
