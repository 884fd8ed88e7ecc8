//! The relay of IKE by address translation: which messages get another address, in the kernel and on the host
//! alike.

mod xdp_support;

use std::net::IpAddr;

use evergate::dataplane::loader::{Answers, OutsideSettings};
use evergate_common::{
    guard::{Guard, cookie},
    maps::address,
    reason::Counter,
    steering::GATEWAY_SLOTS,
    translation::{TOWARD_SLOTS, Translation, client_slot},
    wire::*,
};
use xdp_support::{
    host::{InsidePair, OutsidePair},
    *,
};

/// The client, the edges' address, and what stands for this edge at an authority and at another one.
struct Ends {
    client: IpAddr,
    shared: IpAddr,
    stands: [IpAddr; 2],
}

fn families() -> [Ends; 2] {
    [
        Ends {
            client: CLIENT_V4.into(),
            shared: GATEWAY_V4.into(),
            stands: ["10.0.0.21", "10.0.0.22"].map(|text| text.parse().unwrap()),
        },
        Ends {
            client: CLIENT_V6.into(),
            shared: GATEWAY_V6.into(),
            stands: ["2001:db8:9::21", "2001:db8:9::22"].map(|text| text.parse().unwrap()),
        },
    ]
}

/// An edge whose first authority serves all that come anew, and those of number 1; the other one those of
/// number 2.
fn edge(ends: &Ends) -> OutsidePair {
    let mut pair = OutsidePair::with(OutsideSettings {
        translates: true,
        shared: true,
        max_sas: 1024,
        ..OutsideSettings::default()
    });
    pair.own_addresses(&[ends.shared]);
    pair.translation(Translation::new(ends.shared, &ends.stands));
    pair.toward(1, Some(ends.stands[0]));
    pair.toward(2, Some(ends.stands[1]));
    for slot in GATEWAY_SLOTS..TOWARD_SLOTS {
        pair.toward(slot, Some(ends.stands[0]));
    }
    pair
}

/// An IKE message with these first bytes of its SPIs, the responder's none if it is 0.
fn ike(initiator: u8, responder: u8, flags: u8) -> Vec<u8> {
    let mut message = vec![0x77; 80];
    message[0] = initiator;
    match responder {
        0 => message[8..16].fill(0),
        number => message[8] = number,
    }
    message[19] = flags;
    message
}

/// A request that the client sends with the number of the authority in the responder's SPI.
fn request(number: u8) -> Vec<u8> {
    ike(0x0F, number << 2, 0x08)
}

/// A message over UDP, with the marker where it belongs.
fn udp(from: (IpAddr, u16), to: (IpAddr, u16), message: &[u8], checksum: bool) -> Frame {
    let marked = [from.1, to.1].contains(&PORT_NAT_T);
    let payload = match marked {
        true => [&[0; 4], message].concat(),
        false => message.to_vec(),
    };
    Frame {
        source: from.0,
        destination: to.0,
        udp: Some((from.1, to.1, checksum || from.0.is_ipv6())),
        ..Frame::v4(IPPROTO_UDP, payload)
    }
}

/// A frame as it is, with a tag, and with an option that changes nothing.
fn dressed(frame: &Frame) -> [Frame; 3] {
    let plain = frame.clone();
    let vlan = Some(0x2064);
    let tagged = Frame {
        vlan,
        ..plain.clone()
    };
    let optioned = Frame {
        options: vec![148, 4, 0, 0],
        extensions: match frame.source {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(_) => vec![(IPV6_HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0])],
        },
        ..plain.clone()
    };
    [plain, tagged, optioned]
}

#[test]
fn a_message_goes_to_the_authority_that_it_names() {
    for ends in families() {
        let mut pair = edge(&ends);
        for (message, to) in [
            (ike(2 << 2, 0, 0x08), Some(0)),
            (request(1), Some(0)),
            (request(2), Some(1)),
            (request(3), None),
            // The authority has begun this IKE SA: its SPI is the initiator's.
            (ike(2 << 2, 3 << 2, 0x20), Some(1)),
            (ike(3 << 2, 2 << 2, 0x20), None),
        ] {
            for (port, own) in [(PORT_IKE, PORT_IKE), (40_000, PORT_NAT_T)] {
                for checksum in [true, false] {
                    let sent = |to| udp((ends.client, port), (to, own), &message, checksum);
                    for (number, frame) in dressed(&sent(ends.shared)).iter().enumerate() {
                        let (verdict, counter, packet) = pair.run(&frame.bytes());
                        let Some(to) = to else {
                            assert_eq!((verdict, counter), (DROP, Counter::IkeNoAuthority));
                            continue;
                        };
                        let counted = match message[8] {
                            0 => Counter::IkeFirstTranslated,
                            _ => Counter::IkeTranslated,
                        };
                        assert_eq!((verdict, counter), (PASS, counted));
                        // As if it had been made so: every checksum is right, or as absent as before.
                        let expected = &dressed(&sent(ends.stands[to]))[number];
                        assert_eq!(packet, expected.bytes());
                    }
                }
            }
        }
    }
}

#[test]
fn without_an_authority_nothing_goes_on() {
    for ends in families() {
        let mut pair = edge(&ends);
        let first = udp((ends.client, 500), (ends.shared, 500), &ike(9, 0, 8), true).bytes();
        assert_eq!(pair.judge(&first), (PASS, Counter::IkeFirstTranslated));
        pair.toward(GATEWAY_SLOTS + client_slot(&address(ends.client)), None);
        assert_eq!(pair.judge(&first), (DROP, Counter::IkeNoAuthority));
    }
}

/// Messages that are not asked for cookies go on as ever, and those that bring one.
#[test]
fn the_guard_asks_before_anything_goes_on() {
    for ends in families() {
        let mut pair = edge(&ends);
        pair.guard(Guard::up([1; 16], [2; 16]));
        let nonce = [0x5A; 16];
        let begin = |payloads: &[&[u8]], next: u8| {
            let mut message = vec![0x0F; 8];
            message.extend([0; 8]);
            message.extend([next, 0x20, 34, 0x08, 0, 0, 0, 0]);
            message.extend((28 + payloads.concat().len() as u32).to_be_bytes());
            message.extend(payloads.concat());
            udp((ends.client, 500), (ends.shared, 500), &message, true).bytes()
        };
        let own_nonce = [&[0, 0, 0, 20][..], &nonce].concat();
        let first = begin(&[&own_nonce], 40);
        let (verdict, counter, _) = pair.run(&first);
        assert_eq!((verdict, counter), (TX, Counter::IkeAsked));
        let cookie = cookie(&[1; 16], &address(ends.client), [0x0F; 8], nonce);
        let notify = [&[40, 0, 0, 16, 0, 0, 0x40, 0x06][..], &cookie].concat();
        let again = begin(&[&notify, &own_nonce], 41);
        let (verdict, counter, packet) = pair.run(&again);
        assert_eq!((verdict, counter), (PASS, Counter::IkeFirstTranslated));
        assert_ne!(packet, again);
        let later = udp((ends.client, 500), (ends.shared, 500), &request(2), true).bytes();
        assert_eq!(pair.run(&later).1, Counter::IkeTranslated);
    }
}

#[test]
fn what_is_no_message_for_an_authority_stays_as_it_is() {
    for ends in families() {
        let mut pair = edge(&ends);
        let right = udp((ends.client, 500), (ends.shared, 500), &request(1), true);
        let passed = (PASS, Counter::Passed);
        let short = |len: usize| Frame {
            payload: request(1)[..len].to_vec(),
            ..right.clone()
        };
        let of = |source| Frame {
            source,
            ..right.clone()
        };
        let to = |destination| Frame {
            destination,
            ..right.clone()
        };
        let port = |port| Frame {
            udp: Some((500, port, true)),
            ..right.clone()
        };
        let fragment = Frame {
            fragment: 0x2000,
            extensions: vec![(IPV6_FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 1])],
            ..right.clone()
        };
        let routed = Frame {
            options: vec![131, 3, 4, 0],
            extensions: vec![(IPV6_ROUTING, vec![0, 0, 4, 1, 0, 0, 0, 0])],
            ..right.clone()
        };
        let nobody: IpAddr = match ends.client {
            IpAddr::V4(_) => [224, 0, 0, 1].into(),
            IpAddr::V6(_) => "ff02::1".parse().unwrap(),
        };
        for frame in [
            short(27),
            short(0),
            of(ends.shared),
            of(nobody),
            to(ends.stands[0]),
            to(ends.client),
            port(501),
            fragment,
            routed,
        ] {
            let mut frame = frame;
            if frame.source.is_ipv4() {
                frame.extensions.clear();
            }
            let bytes = frame.bytes();
            let (verdict, counter, packet) = pair.run(&bytes);
            assert_eq!((verdict, counter), passed, "{frame:?}");
            assert_eq!(packet, bytes);
        }
        // The rest of what an edge does is as it was.
        let esp = esp(SPI, 1);
        let keep_alive = udp((ends.client, 4500), (ends.shared, 4500), &[], true);
        let keep_alive = Frame {
            payload: vec![0xFF],
            ..keep_alive
        };
        let bare = Frame {
            source: ends.client,
            destination: ends.shared,
            ..Frame::v4(IPPROTO_ESP, esp)
        };
        assert_eq!(pair.judge(&bare.bytes()), (REDIRECT, Counter::EspSteered));
        assert_eq!(
            pair.judge(&keep_alive.bytes()),
            (DROP, Counter::NatKeepAlive)
        );
    }
}

#[test]
fn where_it_is_off_ike_is_left_to_the_kernel() {
    for ends in families() {
        let mut pair = OutsidePair::new(false, true, false);
        pair.translation(Translation::new(ends.shared, &ends.stands));
        pair.toward(1, Some(ends.stands[0]));
        let frame = udp((ends.client, 500), (ends.shared, 500), &request(1), true);
        let (verdict, counter, packet) = pair.run(&frame.bytes());
        assert_eq!((verdict, counter), (PASS, Counter::Passed));
        assert_eq!(packet, frame.bytes());
    }
}

#[test]
fn an_answer_comes_from_the_address_that_the_edges_share() {
    for ends in families() {
        let translation = Translation::new(ends.shared, &ends.stands);
        let mut inside = InsidePair::translating(&[], translation);
        let mut alone = Answers::load(translation).expect("answers loads");
        let answer = ike(9, 1 << 2, 0x20);
        for stands in ends.stands {
            for (own, port) in [(PORT_IKE, PORT_IKE), (PORT_NAT_T, 40_000)] {
                for checksum in [true, false] {
                    let sent = |from| udp((from, own), (ends.client, port), &answer, checksum);
                    for (number, frame) in dressed(&sent(stands)).iter().enumerate() {
                        let expected = dressed(&sent(ends.shared))[number].bytes();
                        let (verdict, counter, packet) = inside.run(&frame.bytes());
                        assert_eq!((verdict, counter), (PASS, Counter::IkeReturned));
                        assert_eq!(packet, expected);
                        let run = alone.run(&frame.bytes(), 1).expect("answers runs");
                        assert_eq!((run.verdict, run.packet), (PASS, expected));
                    }
                }
            }
        }
        let counted = alone.counters().expect("counters");
        assert_eq!(counted.iter().sum::<u64>(), 24);
        assert_eq!(counted[Counter::IkeReturned.index()], 24);
    }
}

/// An answer that the authority's kernel has cut: the parts must not get different sources.
#[test]
fn all_parts_of_an_answer_get_the_same_source() {
    for ends in families() {
        let translation = Translation::new(ends.shared, &ends.stands);
        let mut pair = InsidePair::translating(&[], translation);
        let part = |source, later: bool| {
            let whole = udp((source, 500), (ends.client, 500), &[7; 64], true);
            let mut bytes = whole.bytes();
            let udp = bytes.split_off(bytes.len() - UDP_LEN - 64);
            let payload = if later { &udp[32..] } else { &udp[..32] };
            let (v4, v6) = match later {
                true => (4, [0, 0, 0, 32, 0, 0, 0, 9]),
                false => (0x2000, [0, 0, 0, 1, 0, 0, 0, 9]),
            };
            let extensions = match source {
                IpAddr::V4(_) => Vec::new(),
                IpAddr::V6(_) => vec![(IPV6_FRAGMENT, v6.to_vec())],
            };
            Frame {
                fragment: v4,
                extensions,
                udp: None,
                payload: payload.to_vec(),
                ..whole
            }
            .bytes()
        };
        for later in [false, true] {
            let (verdict, counter, packet) = pair.run(&part(ends.stands[1], later));
            assert_eq!((verdict, counter), (PASS, Counter::IkeReturned));
            assert_eq!(packet, part(ends.shared, later));
        }
    }
}

#[test]
fn what_is_no_answer_of_an_authority_stays_as_it_is() {
    for ends in families() {
        let translation = Translation::new(ends.shared, &ends.stands[..1]);
        let mut pair = InsidePair::translating(&["10.99.0.0/24"], translation);
        let right = udp(
            (ends.stands[0], 500),
            (ends.client, 500),
            &ike(9, 4, 0),
            true,
        );
        assert_eq!(pair.run(&right.bytes()).1, Counter::IkeReturned);
        let passed = (PASS, Counter::Passed);
        let other = Frame {
            source: ends.stands[1],
            ..right.clone()
        };
        let port = Frame {
            udp: Some((501, 500, true)),
            ..right.clone()
        };
        let tcp = Frame {
            protocol: 6,
            ..right.clone()
        };
        for frame in [other, port, tcp] {
            assert_eq!(pair.judge(&frame.bytes()), passed, "{frame:?}");
        }
    }
}
