//! A front before encryption nodes: what it sends on and to whom, what stays, and what a node makes of it; in
//! the kernel and on the host alike.

mod xdp_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate::dataplane::loader::OutsideSettings;
use evergate_common::{
    filter::{ClassEntry, DEFAULT, Rule},
    front::{FRONT_SPI, NO_NODE, NO_SHARE, slot_of},
    heartbeat,
    maps::{AddressEntry, Local, address},
    reason::Counter,
    steering::{Gateway, station},
    wire::*,
};
use xdp_support::{
    host::{Model, OutsidePair},
    *,
};

/// The front's own number where it is a node itself, and another node.
const OWN: u8 = 1;
const OTHER: u8 = 2;
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xC];
const FRONT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const NODE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12));
const FRONT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 11));
const NODE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 12));

fn shared() -> [IpAddr; 2] {
    [GATEWAY_V4.into(), GATEWAY_V6.into()]
}

fn on_segment() -> Gateway {
    Gateway::on_segment(OTHER_MAC, MAC_B)
}

fn with(settings: OutsideSettings) -> OutsidePair {
    OutsidePair::with(OutsideSettings {
        shared: true,
        max_sas: 1024,
        ..settings
    })
}

/// A front, of this number or [`NO_SHARE`], all of whose slots lead to the other node.
fn front(own: u8, way: Gateway) -> OutsidePair {
    let mut pair = with(OutsideSettings {
        front: own,
        behind: own != NO_SHARE,
        ..OutsideSettings::default()
    });
    pair.own_addresses(&shared());
    pair.gateway(OTHER, way);
    pair.lead_all(OTHER);
    pair
}

/// The other node, with the client's SA.
fn node(own: IpAddr, front: IpAddr) -> OutsidePair {
    let mut pair = with(OutsideSettings {
        behind: true,
        ..OutsideSettings::default()
    });
    let [v4, v6] = shared();
    pair.own_addresses(&[v4, v6, own]);
    pair.front_address(own, front);
    pair
}

/// A UDP datagram to the shared address.
fn udp(v6: bool, source: u16, destination: u16, payload: &[u8]) -> Frame {
    let make = if v6 { Frame::v6 } else { Frame::v4 };
    let mut frame = make(IPPROTO_UDP, payload);
    frame.udp = Some((source, destination, true));
    frame
}

/// Everything that a client may send: ESP, heartbeats of both forms, IKE, keep-alives, echo requests, fragments.
fn from_a_client() -> Vec<Frame> {
    let mut frames: Vec<Frame> = [esp(SPI, 7), esp(1, 1), keyed(3), plain(3, b"abc")]
        .iter()
        .flat_map(|payload| dressed(payload))
        .collect();
    for v6 in [false, true] {
        frames.push(udp(v6, 500, PORT_IKE, &[0x77; 60]));
        frames.push(udp(v6, PORT_NAT_T, PORT_NAT_T, &[0; 60]));
        frames.push(udp(v6, 40_000, PORT_NAT_T, &[0xFF]));
    }
    frames.push(Frame::v4(IPPROTO_ICMP, [8, 0, 0, 0, 0, 1, 0, 1]));
    let mut fragment = udp(false, 40_000, PORT_NAT_T, &[0x5A; 40]);
    fragment.fragment = 0x2000;
    frames.push(fragment.clone());
    fragment.fragment = 5;
    frames.push(fragment);
    frames
}

/// The frame as a node must get it on the segment.
fn sent(frame: &Frame) -> Vec<u8> {
    Frame {
        mac_destination: OTHER_MAC,
        mac_source: MAC_B,
        ttl: frame.ttl - 1,
        ..frame.clone()
    }
    .bytes()
}

#[test]
fn everything_for_the_shared_address_goes_to_the_node() {
    for own in [OWN, NO_SHARE] {
        let mut pair = front(own, on_segment());
        for frame in from_a_client() {
            let (verdict, counter, found) = pair.run(&frame.bytes());
            assert_eq!((verdict, counter), (TX, Counter::SteerSent), "{frame:?}");
            assert_eq!(found, sent(&frame), "{frame:?}");
        }
    }
}

#[test]
fn a_node_may_be_on_another_interface() {
    for (way, counter) in [
        (on_segment(), Counter::SteerSent),
        (
            on_segment().in_ip(FRONT_V4, NODE_V4, 1500),
            Counter::SteerWrapped,
        ),
    ] {
        let mut pair = front(NO_SHARE, way.by_interface(7));
        for frame in from_a_client() {
            assert_eq!(pair.judge(&frame.bytes()), (REDIRECT, counter), "{frame:?}");
        }
    }
}

#[test]
fn beyond_the_segment_it_goes_in_ip_and_the_node_takes_it_out() {
    for (own, other) in [(FRONT_V4, NODE_V4), (FRONT_V6, NODE_V6)] {
        let mut pair = front(NO_SHARE, on_segment().in_ip(own, other, 1500));
        let mut behind = node(other, own);
        for frame in dressed(&esp(SPI, 7)).into_iter().chain(dressed(&keyed(3))) {
            let (verdict, counter, mut arrived) = pair.run(&frame.bytes());
            assert_eq!((verdict, counter), (TX, Counter::SteerWrapped), "{frame:?}");
            // A router between them has changed the link addresses.
            arrived[..12].copy_from_slice(&[OTHER_MAC, MAC_A].concat());
            let expected = match frame.payload[..4] == SPI_HEARTBEAT.to_be_bytes() {
                true => Counter::SteerHeartbeat,
                false => Counter::EspSteered,
            };
            assert_eq!(behind.judge(&arrived), (REDIRECT, expected), "{frame:?}");
        }
    }
}

/// Bare, in UDP and fragmented, IKE and heartbeats: one client, one slot. Behind a NAT the port tells clients
/// apart, where ESP goes too.
#[test]
fn all_of_one_client_meets_at_one_node() {
    let mut pair = front(OWN, on_segment());
    pair.lead_all(NO_NODE);
    for client in [IpAddr::from(CLIENT_V4), CLIENT_V6.into()] {
        pair.lead(slot_of(&address(client), 0), OTHER);
        pair.lead(slot_of(&address(client), 40_000), OTHER);
    }
    for frame in from_a_client() {
        let (verdict, counter, _) = pair.run(&frame.bytes());
        assert_eq!((verdict, counter), (TX, Counter::SteerSent), "{frame:?}");
    }
    for v6 in [false, true] {
        // What a NAT has left as it was says nothing, nor do ports to which no ESP goes.
        for (source, destination) in [(PORT_NAT_T, PORT_NAT_T), (40_001, PORT_IKE), (53, 53)] {
            let frame = udp(v6, source, destination, &esp(SPI, 9)).bytes();
            assert_eq!(pair.judge(&frame), (TX, Counter::SteerSent));
        }
        let other = udp(v6, 40_001, PORT_NAT_T, &esp(SPI, 9)).bytes();
        assert_eq!(pair.judge(&other), (DROP, Counter::FrontNoNode));
    }
    let neighbour = Frame {
        source: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)),
        ..Frame::v4(IPPROTO_ESP, esp(SPI, 7))
    };
    assert_eq!(pair.judge(&neighbour.bytes()), (DROP, Counter::FrontNoNode));
}

/// What routers say of the packets that a node has sent is for that node, not for one that the router's
/// address leads to.
#[test]
fn errors_about_what_a_node_has_sent_are_for_that_node() {
    let mut pair = front(NO_SHARE, on_segment());
    let quote = |frame: &Frame| frame.bytes()[14..].to_vec();
    let back = |frame: Frame| Frame {
        source: frame.destination,
        destination: frame.source,
        ..frame
    };
    let router_v4 = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    let router_v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1));
    for v6 in [false, true] {
        let (make, client, router): (fn(u8, Vec<u8>) -> Frame, _, _) = match v6 {
            false => (Frame::v4, IpAddr::from(CLIENT_V4), router_v4),
            true => (Frame::v6, CLIENT_V6.into(), router_v6),
        };
        let bare = quote(&back(make(IPPROTO_ESP, esp(SPI, 1))));
        let mut in_udp = back(make(IPPROTO_UDP, esp(SPI, 1)));
        in_udp.udp = Some((PORT_NAT_T, 40_000, false));
        let mut options = in_udp.clone();
        options.options = if v6 { vec![] } else { vec![148, 4, 0, 0] };
        let (protocol, too_long, echo) = match v6 {
            false => (
                IPPROTO_ICMP,
                [3, 4, 0, 0, 0, 0, 5, 0],
                [8, 0, 0, 0, 0, 0, 0, 1],
            ),
            true => (
                IPPROTO_ICMPV6,
                [2, 0, 0, 0, 0, 0, 5, 0],
                [128, 0, 0, 0, 0, 0, 0, 1],
            ),
        };
        for (quoted, port) in [
            (bare, 0),
            (quote(&in_udp), 40_000),
            (quote(&options), 40_000),
        ] {
            pair.lead_all(NO_NODE);
            pair.lead(slot_of(&address(client), port), OTHER);
            let error = |head: [u8; 8]| Frame {
                source: router,
                ..make(protocol, [&head[..], &quoted].concat())
            };
            let frame = error(too_long).bytes();
            assert_eq!(pair.judge(&frame), (TX, Counter::SteerSent), "{v6} {port}");
            // Cut off anywhere it goes somewhere, or nowhere.
            for length in 14..frame.len() {
                let (verdict, _) = pair.judge(&frame[..length]);
                assert!(verdict == PASS || verdict == DROP);
            }
            // What quotes nothing is the sender's own.
            assert_eq!(
                pair.judge(&error(echo).bytes()),
                (DROP, Counter::FrontNoNode)
            );
            pair.lead(slot_of(&address(router), 0), OTHER);
            assert_eq!(pair.judge(&error(echo).bytes()), (TX, Counter::SteerSent));
        }
    }
}

#[test]
fn a_front_that_is_a_node_keeps_its_own_share() {
    let mut pair = front(OWN, on_segment());
    pair.lead_all(OWN);
    for frame in dressed(&esp(SPI, 7)) {
        assert_eq!(pair.judge(&frame.bytes()), (REDIRECT, Counter::EspSteered));
    }
    for frame in dressed(&esp(9, 7)) {
        assert_eq!(pair.judge(&frame.bytes()), (REDIRECT, Counter::EspUnknown));
    }
    for frame in dressed(&keyed(3)) {
        assert_eq!(pair.judge(&frame.bytes()), (TX, Counter::HeartbeatKeyed));
    }
}

#[test]
fn what_is_not_for_the_shared_address_stays() {
    let mut pair = front(NO_SHARE, on_segment());
    pair.front_address(FRONT_V4, NODE_V4);
    let [v4, v6] = shared();
    pair.own_addresses(&[v4, v6, FRONT_V4]);
    let passed = (PASS, Counter::Passed);
    for destination in [FRONT_V4, NODE_V4, CLIENT_V4.into()] {
        let frame = Frame {
            destination,
            ..udp(false, 40_000, PORT_IKE, &[0x77; 40])
        };
        assert_eq!(pair.judge(&frame.bytes()), passed, "{destination}");
    }
    assert_eq!(pair.judge(&arp(1, CLIENT_V4, GATEWAY_V4)), passed);
    // Neighbour discovery about the shared address: the next router asks whether it is still here.
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY_V6.octets()].concat();
    let mut frame = Frame::v6(IPPROTO_ICMPV6, solicitation);
    frame.ttl = 255;
    assert_eq!(pair.judge(&frame.bytes()), passed);
}

#[test]
fn nothing_is_sent_on_twice() {
    let from_other = |frame: &Frame| Frame {
        mac_source: OTHER_MAC,
        ..frame.clone()
    };
    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 7));
    let mut pure = front(NO_SHARE, on_segment());
    pure.station(OTHER_MAC);
    let astray = (DROP, Counter::SteerAstray);
    assert_eq!(pure.judge(&from_other(&frame).bytes()), astray);
    // A node keeps what another front has sent it, whatever its own table says.
    let mut mixed = front(OWN, on_segment());
    mixed.front_address(FRONT_V4, NODE_V4);
    mixed.station(OTHER_MAC);
    let kept = (REDIRECT, Counter::EspSteered);
    assert_eq!(mixed.judge(&from_other(&frame).bytes()), kept);
    let mut there = front(OTHER, Gateway::on_segment(MAC_B, OTHER_MAC));
    there.gateway(OWN, on_segment().in_ip(NODE_V4, FRONT_V4, 1500));
    there.lead_all(OWN);
    let (_, counter, mut arrived) = there.run(&frame.bytes());
    assert_eq!(counter, Counter::SteerWrapped);
    arrived[..12].copy_from_slice(&[MAC_B, MAC_A].concat());
    assert_eq!(mixed.judge(&arrived), kept);
}

#[test]
fn what_can_not_go_is_dropped_and_counted() {
    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 7));
    for (way, number, ttl, counter) in [
        (on_segment(), NO_NODE, 64, Counter::FrontNoNode),
        (on_segment(), OTHER, 1, Counter::SteerTtl),
        (Gateway::silent(), OTHER, 64, Counter::SteerSilent),
        // A number that nobody has.
        (on_segment(), 9, 64, Counter::SteerSilent),
        (
            on_segment().in_ip(FRONT_V4, NODE_V4, 95),
            OTHER,
            64,
            Counter::SteerTooBig,
        ),
    ] {
        for own in [OWN, NO_SHARE] {
            let mut pair = front(own, way);
            pair.lead_all(number);
            let frame = Frame {
                ttl,
                ..frame.clone()
            };
            assert_eq!(pair.judge(&frame.bytes()), (DROP, counter));
        }
    }
}

/// The filter stands before the front: what a class may not have goes to no node.
#[test]
fn the_filter_comes_first() {
    let mut pair = with(OutsideSettings {
        front: NO_SHARE,
        filter: true,
        ..OutsideSettings::default()
    });
    pair.own_addresses(&shared());
    pair.gateway(OTHER, on_segment());
    pair.lead_all(OTHER);
    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 7)).bytes();
    assert_eq!(pair.judge(&frame), (TX, Counter::SteerSent));
    pair.class(3, ClassEntry::new(Rule::Plain, 3), &[]);
    pair.user(CLIENT_V4.into(), Some(3));
    assert_eq!(pair.judge(&frame), (DROP, Counter::FilterService));
    pair.user(CLIENT_V4.into(), None);
    pair.class(DEFAULT, ClassEntry::new(Rule::Tunnel, 3), &[]);
    assert_eq!(pair.judge(&frame), (TX, Counter::SteerSent));
    let past = Frame {
        destination: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        ..Frame::v4(6, [0; 20])
    };
    assert_eq!(pair.judge(&past.bytes()), (DROP, Counter::FilterTunnel));
}

/// A front asks each node whether it lives, in UDP, at the node's own address; its link address is one that
/// sends packets on.
#[test]
fn a_node_answers_its_front_by_xdp() {
    for (own, asker) in [(NODE_V4, FRONT_V4), (NODE_V6, FRONT_V6)] {
        let mut pair = node(own, asker);
        pair.station(MAC_A);
        let ask = |key: &[u8; 16]| {
            let request = heartbeat::encode_request(key, 7, FRONT_SPI, TOKEN);
            Frame {
                source: asker,
                destination: own,
                ..udp(own.is_ipv6(), 41_234, PORT_NAT_T, &request)
            }
        };
        let (verdict, counter, answer) = pair.run(&ask(&KEY).bytes());
        assert_eq!((verdict, counter), (TX, Counter::HeartbeatKeyed));
        let esp = answer.len() - heartbeat::KEYED_LEN;
        let answer = heartbeat::verify_answer(&answer[esp..], &KEY).expect("an answer");
        assert_eq!(
            (answer.counter, answer.spi, answer.health),
            (7, FRONT_SPI, 0)
        );
        pair.health(heartbeat::HEALTH_DRAINING, false);
        let (_, _, answer) = pair.run(&ask(&KEY).bytes());
        let answer = heartbeat::verify_answer(&answer[esp..], &KEY).expect("an answer");
        assert_eq!(answer.health, heartbeat::HEALTH_DRAINING);
        let stranger = ask(&[7; 16]).bytes();
        assert_eq!(pair.judge(&stranger), (DROP, Counter::HeartbeatMac));
        pair.alive(false);
        let expected = (DROP, Counter::HeartbeatDead);
        assert_eq!(pair.judge(&ask(&KEY).bytes()), expected);
    }
}

#[test]
fn without_a_front_nothing_of_it_is_there() {
    let mut pair = pair();
    pair.own_addresses(&shared());
    pair.gateway(OTHER, on_segment());
    for frame in dressed(&esp(SPI, 7)) {
        assert_eq!(pair.judge(&frame.bytes()), (REDIRECT, Counter::EspSteered));
    }
}

/// Three fronts that are nodes too, and whose tables say what chance says: a packet is sent on once at most,
/// and ends where a node takes it, or where it is dropped.
#[test]
fn fronts_that_disagree_send_nothing_to_and_fro() {
    let mac = |number: u8| [2, 0, 0, 0, 1, number];
    let own = |number: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, 20 + number));
    let slot = slot_of(&address(CLIENT_V4.into()), 0);
    let front = |number: u8, leads_to: u8, in_ip: bool| {
        let mut model = Model {
            front: number,
            behind: true,
            shared: true,
            local: Local::new(Some(mac(number)), &[GATEWAY_V4.into(), own(number)]),
            group_address: Some(own(number)),
            slots: [(slot, leads_to)].into(),
            ..Model::default()
        };
        for other in (1..=3).filter(|other| *other != number) {
            let near = Gateway::on_segment(mac(other), mac(number));
            let way = match in_ip {
                true => near.in_ip(own(number), own(other), 1500),
                false => near,
            };
            model.gateways.insert(other, way);
            model.stations.insert(station(&mac(other)));
            let entry = AddressEntry::default().of_gateway(true);
            model.addresses.insert(address(own(other)), entry);
        }
        model
    };
    let mut sent = 0;
    for choice in 0..4_u32.pow(3) * 2 {
        let leads_to = |number: u32| (choice / 4_u32.pow(number) % 4) as u8;
        let in_ip = choice >= 4_u32.pow(3);
        let mut fronts =
            [1, 2, 3].map(|number| front(number, leads_to(u32::from(number) - 1), in_ip));
        for first in 1..=3_u8 {
            let frame = Frame {
                mac_destination: mac(first),
                ..Frame::v4(IPPROTO_ESP, esp(SPI, 7))
            };
            let (verdict, counters, packet) =
                fronts[usize::from(first) - 1].outcome(&frame.bytes());
            if verdict != TX {
                continue;
            }
            sent += 1;
            let next = packet[5];
            let (verdict, then, _) = fronts[usize::from(next) - 1].outcome(&packet);
            assert_ne!(verdict, TX, "{counters:?}, {then:?}");
            assert_eq!(then.last(), Some(&Counter::EspUnknown));
        }
    }
    assert!(sent > 100, "{sent}");
}
