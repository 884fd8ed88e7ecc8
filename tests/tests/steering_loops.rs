//! Gateways that share an address and know, each for itself, whatever chance says: no packet goes on
//! between them for ever. The same code decides in the XDP program, which `xdp_steering` compares.

mod xdp_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate_common::{
    heartbeat,
    maps::{AddressEntry, Local, NodeState, SaEntry, address},
    reason::Counter,
    steering::{Gateway, numbered, station},
    wire::*,
};
use proptest::prelude::*;
use xdp_support::{host::Model, *};

const ROUTER: [u8; 6] = MAC_A;
const MOST: usize = 5;

fn mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, index as u8]
}

fn own(index: usize, v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(192, 0, 2, 101 + index as u8).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, index as u16).into(),
    }
}

/// What one gateway believes.
#[derive(Clone, Debug)]
struct Belief {
    /// For each other one: no such gateway, silent, on the segment, in IP.
    ways: [u8; MOST],
    /// Whose single SPIs are, by their place in [`spis`].
    owners: [Option<u8>; 3],
    sas: [bool; 3],
    /// Whether it knows the link address of each other one.
    knows: [bool; MOST],
}

fn belief() -> impl Strategy<Value = Belief> {
    let owner = prop::option::of(1u8..=MOST as u8 + 1);
    (
        prop::array::uniform5(0u8..4),
        prop::array::uniform3(owner),
        prop::array::uniform3(prop::bool::weighted(0.2)),
        prop::array::uniform5(any::<bool>()),
    )
        .prop_map(|(ways, owners, sas, knows)| Belief {
            ways,
            owners,
            sas,
            knows,
        })
}

fn spis() -> [u32; 3] {
    [numbered(SPI, 1), numbered(SPI, 2), SPI]
}

fn gateway(index: usize, belief: &Belief, v6: bool, knows_all: bool) -> Model {
    let mut model = Model {
        plain: true,
        keyed: true,
        strangers: true,
        number: index as u8 + 1,
        group_address: Some(own(index, v6)),
        local: Local::new(Some(mac(index)), &[GATEWAY_V4.into(), GATEWAY_V6.into()]),
        node: NodeState::new(u64::MAX, 0, false),
        ..Model::default()
    };
    for other in (0..MOST).filter(|other| *other != index) {
        let number = other as u8 + 1;
        if knows_all || belief.knows[other] {
            model.stations.insert(station(&mac(other)));
        }
        let near = Gateway::on_segment(mac(other), mac(index));
        let way = match belief.ways[other] {
            0 => continue,
            1 => Gateway::silent(),
            2 => near,
            _ => near.in_ip(own(index, v6), own(other, v6), 1500),
        };
        model.gateways.insert(number, way);
        let entry = AddressEntry::new(false, true).of_gateway(true);
        model.addresses.insert(address(own(other, v6)), entry);
    }
    for (at, spi) in spis().into_iter().enumerate() {
        if let Some(owner) = belief.owners[at] {
            model.owners.insert(spi.to_be_bytes(), owner);
        }
        if belief.sas[at] {
            let entry = SaEntry::new(Some(KEY), None);
            model.sas.insert(spi.to_be_bytes(), entry);
        }
    }
    model
}

fn packet(kind: u8, spi: u32, v6: bool, ttl: u8, at: usize) -> Vec<u8> {
    let payload = match kind {
        0 => esp(spi, 1),
        1 => heartbeat::encode_request(&KEY, 7, spi.to_be_bytes(), TOKEN).to_vec(),
        2 => plain(1, b"payload"),
        _ => {
            let mut message = vec![1, 2, 3, 4, 5, 6, 7, 8];
            message.extend(spi.to_be_bytes());
            message.extend([9, 9, 9, 9, 46, 0x20, 37, 8, 0, 0, 0, 3, 0, 0, 0, 60]);
            message.extend([0; 32]);
            message
        }
    };
    let mut frame = match v6 {
        false => Frame::v4(IPPROTO_ESP, payload),
        true => Frame::v6(IPPROTO_ESP, payload),
    };
    if kind > 2 {
        frame.protocol = IPPROTO_UDP;
        frame.udp = Some((500, 500, true));
    }
    frame.ttl = ttl;
    frame.mac_source = ROUTER;
    frame.mac_destination = mac(at);
    frame.bytes()
}

/// Which gateway gets a frame that another one has sent, and as what.
fn delivered(mut frame: Vec<u8>, v6: bool, routed: bool) -> Option<(usize, Vec<u8>)> {
    if let Some(next) = (0..MOST).find(|index| frame[..6] == mac(*index)) {
        // Beyond the segment a router brings it, and it comes from that one's link address.
        let in_ip = frame[14] == 0x45 && frame[23] == 4 || frame[14] >> 4 == 6 && frame[20] == 41;
        let in_ip =
            in_ip || frame[14] == 0x45 && frame[23] == 41 || frame[14] >> 4 == 6 && frame[20] == 4;
        if in_ip {
            let to = match v6 {
                false => &frame[30..34],
                true => &frame[38..54],
            };
            let reached = (0..MOST).find(|index| match own(*index, v6) {
                IpAddr::V4(ip) => to == ip.octets(),
                IpAddr::V6(ip) => to == ip.octets(),
            });
            assert_eq!(reached, Some(next));
            if routed {
                frame[6..12].copy_from_slice(&ROUTER);
            }
        }
        return Some((next, frame));
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_packet_goes_on_for_ever(
        beliefs in prop::array::uniform5(belief()),
        knows_all: bool,
        outer_v6: bool,
        routed: bool,
        kind in 0u8..4,
        at in 0..MOST,
        which in 0usize..3,
        v6: bool,
        ttl: u8,
    ) {
        let mut models: Vec<Model> = beliefs
            .iter()
            .enumerate()
            .map(|(index, belief)| gateway(index, belief, outer_v6, knows_all))
            .collect();
        let mut frame = packet(kind, spis()[which], v6, ttl, at);
        let mut here = at;
        let mut steps = 0u32;
        loop {
            let (verdict, counters, out) = models[here].outcome(&frame);
            let sent = [Counter::SteerSent, Counter::SteerWrapped];
            if verdict != TX || !counters.iter().any(|counter| sent.contains(counter)) {
                // An answer goes to the asker or the router, to no gateway.
                let answered = matches!(counters.last(), Some(Counter::HeartbeatKeyed | Counter::HeartbeatPlain));
                if answered && steps > 0 && knows_all {
                    prop_assert!((0..MOST).all(|index| out[..6] != mac(index)));
                }
                break;
            }
            steps += 1;
            // Who knows the others' link addresses never sends on what one of them has; else the TTL is
            // the end of it.
            prop_assert!(steps <= if knows_all { 1 } else { u32::from(ttl) }, "{steps} steps");
            let Some((next, arrived)) = delivered(out, outer_v6, routed) else {
                panic!("a frame for no gateway");
            };
            (here, frame) = (next, arrived);
        }
    }
}
