//! Inner packets, as the applications of clients and targets see them.

use std::net::IpAddr;

/// An inner packet: IPv4, with who sends it and its number.
pub(super) fn inner_packet(
    source: IpAddr,
    destination: IpAddr,
    client: u32,
    number: u64,
) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        unreachable!("all inner addresses are IPv4");
    };
    let mut packet = vec![0; 32];
    packet[0] = 0x45;
    packet[3] = 32;
    packet[8] = 64;
    packet[9] = 253;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..24].copy_from_slice(&client.to_be_bytes());
    packet[24..32].copy_from_slice(&number.to_be_bytes());
    packet
}

pub(super) fn source_and_destination(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    Some((address(12)?, address(16)?))
}

/// Who has sent an inner packet in the first place, and its number.
pub(super) fn label(packet: &[u8]) -> Option<(usize, u64)> {
    let client = u32::from_be_bytes(packet.get(20..24)?.try_into().ok()?);
    let number = u64::from_be_bytes(packet.get(24..32)?.try_into().ok()?);
    Some((client as usize, number))
}

/// The same packet back.
pub(super) fn echo(packet: Vec<u8>) -> Option<Vec<u8>> {
    let (source, destination) = source_and_destination(&packet)?;
    let (client, number) = label(&packet)?;
    Some(inner_packet(destination, source, client as u32, number))
}
