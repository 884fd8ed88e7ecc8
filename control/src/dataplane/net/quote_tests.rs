use proptest::prelude::*;

use super::*;
use crate::dataplane::net::icmp::{MAX_V6, Problem, build};

const SPI: u32 = 0xC0FF_EE01;

/// ESP of `length` bytes with headers, bare or in UDP.
fn sent(v6: bool, udp: bool, esp: &[u8]) -> Vec<u8> {
    let udp_header = [0x11, 0x94, 0x9C, 0x40, 0, 0, 0, 0];
    let payload = [if udp { &udp_header[..] } else { &[] }, esp].concat();
    let protocol = if udp { 17 } else { 50 };
    let mut packet = match v6 {
        false => vec![0; 20],
        true => vec![0; 40],
    };
    match v6 {
        false => {
            let total = (20 + payload.len()) as u16;
            (packet[0], packet[6], packet[8], packet[9]) = (0x45, 0x40, 64, protocol);
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
            packet[16..20].copy_from_slice(&[198, 51, 100, 7]);
        }
        true => {
            (packet[0], packet[6], packet[7]) = (0x60, protocol, 64);
            packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            packet[8] = 0x20;
            packet[23] = 1;
            packet[24] = 0x20;
            packet[39] = 2;
        }
    }
    packet.extend(payload);
    packet
}

fn esp_bytes(length: usize) -> Vec<u8> {
    let mut esp = vec![0x5A; length];
    esp[..4].copy_from_slice(&SPI.to_be_bytes());
    esp[4..8].copy_from_slice(&77u32.to_be_bytes());
    esp
}

/// What a router that did not get the packet on answers, as a raw socket hears it.
fn answer(packet: &[u8], mtu: u16) -> Vec<u8> {
    let mut out = [0; MAX_V6];
    let router = match packet[0] >> 4 {
        4 => "203.0.113.1".parse().unwrap(),
        _ => "2001:db8::ffff".parse().unwrap(),
    };
    let length = build(Problem::TooBig { mtu }, router, packet, &mut out).unwrap();
    match packet[0] >> 4 {
        4 => out[..length].to_vec(),
        _ => out[40..length].to_vec(),
    }
}

fn read(v6: bool, message: &[u8]) -> Option<TooLong> {
    match v6 {
        false => read_v4(message),
        true => read_v6(message),
    }
}

#[test]
fn what_routers_say_is_read() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let said = read(v6, &answer(&sent(v6, udp, &esp_bytes(1400)), 1300)).unwrap();
        assert_eq!(said.mtu, 1300);
        assert_eq!(said.destination.is_ipv6(), v6);
        assert_eq!(said.ports, udp.then_some((4500, 40_000)));
        let esp = Quoted::Esp {
            spi: SPI,
            sequence: 77,
        };
        assert_eq!(said.esp, Some(esp));
    }
}

#[test]
fn a_quote_of_eight_bytes_is_enough_without_udp() {
    let whole = answer(&sent(false, false, &esp_bytes(1400)), 1300);
    let cut = |bytes: usize| {
        let mut short = whole[..20 + 8 + 20 + bytes].to_vec();
        short[22..24].fill(0);
        let sum = checksum(&short[20..]);
        short[22..24].copy_from_slice(&sum.to_be_bytes());
        read_v4(&short)
    };
    assert!(cut(8).is_some_and(|said| said.esp.is_some()));
    assert_eq!(cut(7), None);
}

#[test]
fn heartbeats_are_known_by_their_token() {
    use evergate_common::heartbeat::encode_request;
    let mut probe = vec![0; 1400];
    probe[..36].copy_from_slice(&encode_request(&[1; 16], 9, [1, 2, 3, 4], *b"unguess."));
    let said = read_v4(&answer(&sent(false, false, &probe), 1300)).unwrap();
    let heartbeat = Quoted::Heartbeat {
        counter: 9,
        token: Some(*b"unguess."),
    };
    assert_eq!(said.esp, Some(heartbeat));
}

#[test]
fn what_says_something_else_is_left_alone() {
    let packet = sent(false, false, &esp_bytes(1400));
    let good = answer(&packet, 1300);
    let mut other = good.clone();
    other[21] = 3;
    assert_eq!(
        read_v4(&other),
        None,
        "port unreachable, and a wrong checksum"
    );
    let mut damaged = good.clone();
    damaged[60] ^= 1;
    assert_eq!(read_v4(&damaged), None);
    assert_eq!(
        read_v4(&answer(&packet, 1420)),
        None,
        "the packet would have fitted"
    );
    let tcp = {
        let mut packet = packet.clone();
        packet[9] = 6;
        packet
    };
    assert_eq!(read_v4(&answer(&tcp, 1300)), None);
    assert_eq!(read_v6(&good), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        for said in [read_v4(&bytes), read_v6(&bytes)].into_iter().flatten() {
            prop_assert!(said.esp.is_some() || said.ports.is_some());
        }
    }
}
