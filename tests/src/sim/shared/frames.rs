//! Frames and packets as a worker has them.

use std::net::IpAddr;

const UDP: u8 = 17;
const ESP: u8 = 50;
const PORT: [u8; 2] = 4500_u16.to_be_bytes();

/// An Ethernet frame with ESP in it, in UDP or not. Addresses are IPv4.
pub(super) fn frame(from: IpAddr, to: IpAddr, esp: &[u8], udp: bool) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        return Vec::new();
    };
    let length = esp.len() + if udp { 28 } else { 20 };
    let mut header = vec![0x45, 0];
    header.extend((length as u16).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, if udp { UDP } else { ESP }, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let words = header.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0, 8, 0];
    frame.extend(header);
    if udp {
        frame.extend(PORT);
        frame.extend(PORT);
        frame.extend(((esp.len() + 8) as u16).to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(esp);
    frame
}

/// Where an IPv4 packet goes, and the ESP in it.
pub(super) fn esp_of(packet: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let at = match *packet.get(9)? {
        ESP => 20,
        UDP => 28,
        _ => return None,
    };
    Some((to.into(), packet.get(at..)?.to_vec()))
}

/// Who claims which address in an ARP frame (RFC 5227).
pub(super) fn claim_of(frame: &[u8]) -> Option<([u8; 6], IpAddr)> {
    if frame.get(12..14)? != [8, 6] {
        return None;
    }
    let mac = frame.get(22..28)?.try_into().ok()?;
    let address: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some((mac, address.into()))
}
