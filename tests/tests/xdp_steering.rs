//! Gateways that share an address: what goes to another one and how, what comes from one, and what does
//! not; in the kernel and on the host alike.

mod xdp_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate_common::{
    checksum, heartbeat,
    maps::SaEntry,
    reason::Counter,
    steering::{Gateway, HIGHEST_NUMBER, number_of, numbered},
    wire::*,
};
use xdp_support::{host::OutsidePair, *};

const OWN: u8 = 1;
const OTHER: u8 = 2;
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xC];
const OWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12));
const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 11));
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 12));

fn on_segment() -> Gateway {
    Gateway::on_segment(OTHER_MAC, MAC_B)
}

fn in_ip(own: IpAddr, other: IpAddr) -> Gateway {
    on_segment().in_ip(own, other, 1500)
}

/// The gateway with number 1, which knows of number 2.
fn first(way: Gateway) -> OutsidePair {
    let mut pair = OutsidePair::in_group(false, true, false, OWN);
    pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    pair.gateway(OTHER, way);
    pair
}

/// The one with number 2, with an SA, which knows number 1 by its addresses.
fn second(own: IpAddr, other: IpAddr) -> OutsidePair {
    let mut pair = OutsidePair::in_group(false, true, false, OTHER);
    pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into()]);
    pair.gateway(OWN, Gateway::on_segment(MAC_B, OTHER_MAC));
    pair.add_sa(numbered(SPI, OTHER), SaEntry::new(Some(KEY), None));
    pair.group_addresses(own, other);
    pair
}

/// A keyed heartbeat for this SPI.
fn keyed_for(spi: u32) -> Vec<u8> {
    heartbeat::encode_request(&KEY, 7, spi.to_be_bytes(), TOKEN).to_vec()
}

/// Frames of ESP and heartbeats for an SPI.
fn for_spi(spi: u32) -> Vec<Frame> {
    [esp(spi, 7), keyed_for(spi)]
        .iter()
        .flat_map(|payload| dressed(payload))
        .collect()
}

/// A protected message of IKE to port 500 or 4500, in every family.
fn ike(spi_i: u64, spi_r: u64, flags: u8) -> Vec<Frame> {
    let mut message = spi_i.to_be_bytes().to_vec();
    message.extend(spi_r.to_be_bytes());
    message.extend([46, 0x20, 37, flags, 0, 0, 0, 3, 0, 0, 0, 60]);
    message.extend([0x77; 32]);
    let marked = [vec![0; 4], message.clone()].concat();
    [Frame::v4 as fn(u8, Vec<u8>) -> Frame, Frame::v6]
        .into_iter()
        .flat_map(|make| {
            [(PORT_IKE, &message), (PORT_NAT_T, &marked)].map(|(port, payload)| {
                let mut frame = make(IPPROTO_UDP, payload.clone());
                frame.udp = Some((40_500, port, true));
                frame
            })
        })
        .collect()
}

/// An IKE SPI of a gateway.
fn ike_spi(number: u8) -> u64 {
    u64::from(numbered(0x0BAD_CAFE, number)) << 32 | 0x1234_5678
}

/// The frame as another gateway must get it on the segment.
fn sent(frame: &Frame) -> Vec<u8> {
    let frame = Frame {
        mac_destination: OTHER_MAC,
        mac_source: MAC_B,
        ttl: frame.ttl - 1,
        ..frame.clone()
    };
    frame.bytes()
}

/// The frame as it must be in IP, header by header.
fn wrapped(frame: &Frame, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let whole = sent(frame);
    let l3 = if frame.vlan.is_some() { 18 } else { 14 };
    let inner = &whole[l3..];
    let protocol = if frame.source.is_ipv4() { 4 } else { 41 };
    let mut bytes = whole[..l3 - 2].to_vec();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend(ETHERTYPE_IPV4.to_be_bytes());
            let mut header = vec![0x45, 0];
            header.extend((inner.len() as u16 + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum::ipv4_header(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend(ETHERTYPE_IPV6.to_be_bytes());
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((inner.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    bytes.extend(inner);
    bytes
}

/// Both families of the outer header.
const OUTERS: [(IpAddr, IpAddr); 2] = [(OWN_V4, OTHER_V4), (OWN_V6, OTHER_V6)];

#[test]
fn an_spi_says_whose_it_is() {
    for number in 1..=HIGHEST_NUMBER {
        for spi in [0, SPI, u32::MAX] {
            let spi = numbered(spi, number);
            assert_eq!(number_of(spi.to_be_bytes()), number);
            assert!((256..SPI_HEARTBEAT).contains(&spi));
        }
    }
}

#[test]
fn on_the_segment_the_owner_gets_the_packet_with_another_link_address() {
    let mut pair = first(on_segment());
    let mut frames = for_spi(numbered(SPI, OTHER));
    frames.extend(ike(7, ike_spi(OTHER), 0x08));
    // What a responder sends is for the initiator's SPI.
    frames.extend(ike(ike_spi(OTHER), 7, 0x20));
    for frame in frames {
        let (verdict, counter, found) = pair.run(&frame.bytes());
        assert_eq!((verdict, counter), (TX, Counter::SteerSent), "{frame:?}");
        assert_eq!(found, sent(&frame), "{frame:?}");
    }
}

#[test]
fn beyond_the_segment_it_goes_in_ip_and_the_owner_takes_it_out() {
    for (own, other) in OUTERS {
        let mut pair = first(in_ip(own, other));
        let mut owner = second(other, own);
        for frame in for_spi(numbered(SPI, OTHER)) {
            let (verdict, counter, found) = pair.run(&frame.bytes());
            assert_eq!((verdict, counter), (TX, Counter::SteerWrapped), "{frame:?}");
            assert_eq!(found, wrapped(&frame, own, other), "{frame:?}");
            // A router between them has changed the link addresses.
            let mut arrived = found;
            arrived[..12].copy_from_slice(&[OTHER_MAC, MAC_A].concat());
            let (verdict, counter, taken_out) = owner.run(&arrived);
            let heartbeat = frame.payload[..4] == SPI_HEARTBEAT.to_be_bytes();
            let expected = match heartbeat {
                true => Counter::SteerHeartbeat,
                false => Counter::EspSteered,
            };
            assert_eq!((verdict, counter), (REDIRECT, expected), "{frame:?}");
            let plain = Frame {
                mac_source: OTHER_MAC,
                mac_destination: OTHER_MAC,
                ttl: frame.ttl - 1,
                ..frame
            };
            assert_eq!(taken_out, plain.bytes());
        }
        for frame in ike(7, ike_spi(OTHER), 0x08) {
            let (_, counter, found) = pair.run(&frame.bytes());
            assert_eq!(counter, Counter::SteerWrapped);
            let mut arrived = found;
            arrived[..12].copy_from_slice(&[OTHER_MAC, MAC_A].concat());
            assert_eq!(owner.judge(&arrived), (PASS, Counter::Passed));
        }
    }
}

#[test]
fn a_heartbeat_that_another_gateway_sent_on_is_the_worker_s() {
    let spi = numbered(SPI, OTHER);
    let mut owner = second(OTHER_V4, OWN_V4);
    for frame in dressed(&keyed_for(spi)) {
        assert_eq!(
            owner.judge(&frame.bytes()),
            (TX, Counter::HeartbeatKeyed),
            "straight from the asker"
        );
    }
    owner.station(MAC_B);
    for frame in dressed(&keyed_for(spi)) {
        let frame = Frame {
            mac_source: MAC_B,
            ..frame
        };
        let expected = (REDIRECT, Counter::SteerHeartbeat);
        assert_eq!(owner.judge(&frame.bytes()), expected, "{frame:?}");
    }
    // As dead as for anybody else, and as suspicious.
    let frame = Frame {
        mac_source: MAC_B,
        ..Frame::v4(IPPROTO_ESP, keyed_for(spi))
    };
    let mut forged = frame.clone();
    forged.payload[30] ^= 1;
    assert_eq!(owner.judge(&forged.bytes()), (DROP, Counter::HeartbeatMac));
    owner.alive(false);
    assert_eq!(owner.judge(&frame.bytes()), (DROP, Counter::HeartbeatDead));
}

#[test]
fn nothing_is_steered_twice() {
    let stranger = numbered(SPI, OTHER);
    let mut pair = first(on_segment());
    pair.group_addresses(OWN_V4, OTHER_V4);
    pair.station(OTHER_MAC);
    let mut frames = for_spi(stranger);
    frames.extend(ike(7, ike_spi(OTHER), 0x08));
    for frame in frames {
        let from_other = Frame {
            mac_source: OTHER_MAC,
            ..frame.clone()
        };
        let astray = (DROP, Counter::SteerAstray);
        assert_eq!(pair.judge(&from_other.bytes()), astray, "{frame:?}");
        let mut in_ip = wrapped(&frame, OTHER_V4, OWN_V4);
        in_ip[..12].copy_from_slice(&[MAC_B, MAC_A].concat());
        assert_eq!(pair.judge(&in_ip), astray, "{frame:?}");
    }
}

#[test]
fn what_can_not_be_sent_on_is_dropped() {
    for (way, ttl, counter) in [
        (on_segment(), 0, Counter::SteerTtl),
        (on_segment(), 1, Counter::SteerTtl),
        (in_ip(OWN_V4, OTHER_V4), 1, Counter::SteerTtl),
        (Gateway::silent(), 64, Counter::SteerSilent),
    ] {
        let mut pair = first(way);
        for make in [Frame::v4, Frame::v6] {
            let mut frame = make(IPPROTO_ESP, esp(numbered(SPI, OTHER), 1));
            frame.ttl = ttl;
            assert_eq!(pair.judge(&frame.bytes()), (DROP, counter));
        }
    }
    for (own, other) in OUTERS {
        let mut pair = first(in_ip(own, other));
        let room = if own.is_ipv4() { 20 } else { 40 };
        for (more, expected) in [
            (0, (TX, Counter::SteerWrapped)),
            (1, (DROP, Counter::SteerTooBig)),
        ] {
            let mut payload = esp(numbered(SPI, OTHER), 1);
            payload.resize(1500 - room - IPV4_LEN + more, 0);
            let frame = Frame::v4(IPPROTO_ESP, payload);
            assert_eq!(pair.judge(&frame.bytes()), expected);
        }
    }
}

#[test]
fn what_belongs_to_nobody_else_stays() {
    let mut pair = first(on_segment());
    // Its own number, a gateway that is not there, hand-written SPIs, none at all.
    for number in [0, OWN, 3, HIGHEST_NUMBER + 1] {
        for frame in dressed(&esp(numbered(SPI, number), 1)) {
            assert_eq!(pair.judge(&frame.bytes()), (DROP, Counter::UnknownSpi));
        }
        for frame in dressed(&keyed_for(numbered(SPI, number))) {
            let expected = (DROP, Counter::HeartbeatUnknownSpi);
            assert_eq!(pair.judge(&frame.bytes()), expected);
        }
        for frame in ike(7, ike_spi(number), 0x08) {
            assert_eq!(pair.judge(&frame.bytes()), (PASS, Counter::Passed));
        }
    }
    // First messages, whatever the initiator's SPI looks like.
    for frame in ike(ike_spi(OTHER), 0, 0x08) {
        assert_eq!(pair.judge(&frame.bytes()), (PASS, Counter::Passed));
    }
    // To another address than the shared one.
    for frame in for_spi(numbered(SPI, OTHER)) {
        let elsewhere = match frame.source.is_ipv4() {
            true => OWN_V4,
            false => OWN_V6,
        };
        let frame = Frame {
            destination: elsewhere,
            ..frame
        };
        assert_eq!(pair.judge(&frame.bytes()), (PASS, Counter::Passed));
    }
}

#[test]
fn owners_of_single_spis_go_before_the_number_and_sas_before_owners() {
    let mut pair = first(on_segment());
    let spi = numbered(SPI, 9);
    let frame = Frame::v4(IPPROTO_ESP, esp(spi, 1)).bytes();
    let heartbeat = Frame::v4(IPPROTO_ESP, keyed_for(spi)).bytes();
    assert_eq!(pair.judge(&frame), (DROP, Counter::UnknownSpi));
    pair.owner(spi, Some(OTHER));
    assert_eq!(pair.judge(&frame), (TX, Counter::SteerSent));
    assert_eq!(pair.judge(&heartbeat), (TX, Counter::SteerSent));
    pair.owner(numbered(SPI, OTHER), Some(OWN));
    let own = Frame::v4(IPPROTO_ESP, esp(numbered(SPI, OTHER), 1)).bytes();
    assert_eq!(pair.judge(&own), (DROP, Counter::UnknownSpi));
    pair.add_sa(spi, SaEntry::new(None, None));
    assert_eq!(pair.judge(&frame), (REDIRECT, Counter::EspSteered));
    pair.owner(numbered(SPI, OTHER), None);
    assert_eq!(pair.judge(&own), (TX, Counter::SteerSent));
}

#[test]
fn a_gateway_that_shares_no_address_steers_nothing() {
    let mut pair = pair();
    pair.gateway(OTHER, on_segment());
    pair.station(MAC_A);
    for frame in dressed(&esp(numbered(SPI, OTHER), 1)) {
        assert_eq!(pair.judge(&frame.bytes()), (DROP, Counter::UnknownSpi));
    }
    for frame in dressed(&keyed(1)) {
        assert_eq!(pair.judge(&frame.bytes()), (TX, Counter::HeartbeatKeyed));
    }
}

#[test]
fn only_gateways_are_believed_in_ip() {
    let spi = numbered(SPI, OTHER);
    let mut owner = second(OTHER_V4, OWN_V4);
    let good = wrapped(&Frame::v4(IPPROTO_ESP, esp(spi, 1)), OWN_V4, OTHER_V4);
    assert_eq!(owner.judge(&good), (REDIRECT, Counter::EspSteered));
    let passed = (PASS, Counter::Passed);
    for (from, to) in [
        (CLIENT_V4.into(), OTHER_V4),
        (OWN_V4, CLIENT_V4.into()),
        (OWN_V4, GATEWAY_V4.into()),
        (OWN_V6, OTHER_V6),
    ] {
        let frame = wrapped(&Frame::v4(IPPROTO_ESP, esp(spi, 1)), from, to);
        assert_eq!(owner.judge(&frame), passed, "{from} to {to}");
    }
    let mut fragment = good.clone();
    fragment[14 + 6] = 0x20;
    assert_eq!(owner.judge(&fragment), passed);
    // Not for the shared address.
    let stray = Frame {
        destination: CLIENT_V4.into(),
        ..Frame::v4(IPPROTO_ESP, esp(spi, 1))
    };
    let stray = wrapped(&stray, OWN_V4, OTHER_V4);
    assert_eq!(owner.judge(&stray), (DROP, Counter::SteerAstray));
    // Cut off anywhere: not a word of it is believed.
    for length in 14..good.len() {
        let (verdict, _) = owner.judge(&good[..length]);
        assert!(verdict == PASS || verdict == DROP, "{length}");
    }
    // In IP twice.
    let twice = Frame {
        protocol: 4,
        payload: good[14..].to_vec(),
        ..Frame::v4(4, [])
    };
    assert_eq!(owner.judge(&wrapped(&twice, OWN_V4, OTHER_V4)), passed);
}
