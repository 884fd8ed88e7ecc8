//! Random and damaged frames: kernel and host agree, and nothing but a request is ever answered.

mod xdp_support;

use evergate::dataplane::loader::OutsideSettings;
use evergate_common::{
    filter::{ClassEntry, DEFAULT, Rule},
    front::{NO_SHARE, SLOTS},
    heartbeat,
    maps::SaEntry,
    reason::Counter,
    steering::{Gateway, number_of},
    translation::{TOWARD_SLOTS, Translation},
    wire::*,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use xdp_support::{
    host::{InsidePair, OutsidePair},
    *,
};

/// Frames that are nearly right: a good one with a few bytes changed and perhaps an end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let payloads = prop_oneof![
        Just(esp(SPI, 1)),
        Just(esp(SPI + 1, 1)),
        Just(plain(1, b"payload")),
        Just(plain(1 | heartbeat::ANSWER_BIT, b"payload")),
        Just(keyed(1)),
        Just([keyed(1), vec![0; 200]].concat()),
    ];
    let extension = prop_oneof![
        Just((IPV6_HOP_BY_HOP, vec![0; 8])),
        Just((
            IPV6_ROUTING,
            vec![0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        )),
        Just((IPV6_FRAGMENT, vec![0; 8])),
        any::<u8>().prop_map(|len| {
            (
                IPV6_DESTINATION_OPTIONS,
                [&[0, len][..], &vec![0; 6 + usize::from(len) * 8]].concat(),
            )
        }),
    ];
    let frame = (
        payloads,
        any::<bool>(),
        prop_oneof![Just(None), Just(Some(true)), Just(Some(false))],
        prop_oneof![Just(None), any::<u16>().prop_map(Some)],
        prop::collection::vec(any::<u8>(), 0..=10),
        prop::collection::vec(extension, 0..8),
        prop_oneof![Just(64u8), any::<u8>()],
    )
        .prop_map(|(payload, v6, udp, vlan, options, extensions, ttl)| {
            let options = options.iter().flat_map(|byte| [*byte, 4, 0, 0]).collect();
            let base = match v6 {
                true => Frame::v6(IPPROTO_ESP, payload),
                false => Frame::v4(IPPROTO_ESP, payload),
            };
            let frame = Frame {
                vlan,
                options,
                extensions,
                ttl,
                ..base
            };
            match udp {
                Some(checksum) => frame.in_udp(checksum).bytes(),
                None => frame.bytes(),
            }
        });
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        frame,
        damage,
        prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
    )
        .prop_map(|(mut frame, damage, cut)| {
            for (at, byte) in damage {
                // Mostly headers.
                let at = at.index(frame.len().min(80));
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 13));
            }
            // A run without an interface takes no frame of more than a page.
            frame.truncate(3000);
            frame
        })
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 14..200).prop_map(|mut frame| {
        let ether_type: &[u8; 2] = match frame[0] % 3 {
            0 => &[8, 0],
            1 => &[0x86, 0xDD],
            _ => &[0x81, 0],
        };
        frame[12..14].copy_from_slice(ether_type);
        frame
    })
}

fn many(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
}

#[test]
fn kernel_and_host_agree_outside() {
    for (shared, frames) in [
        (false, damaged().boxed()),
        (true, damaged().boxed()),
        (true, noise().boxed()),
    ] {
        let mut pair = OutsidePair::with(OutsideSettings {
            reflect_plain: true,
            strangers: true,
            shared,
            max_sas: 1024,
            ..OutsideSettings::default()
        });
        pair.add_sa(0, SaEntry::new(None, None));
        let pair = std::cell::RefCell::new(pair);
        many(4000)
            .run(&frames, |frame| {
                let (verdict, counter, answer) = pair.borrow_mut().run(&frame);
                prop_assert_eq!(answer.len(), frame.len());
                let answered = matches!(counter, Counter::HeartbeatPlain | Counter::HeartbeatKeyed);
                prop_assert_eq!(verdict == TX, answered);
                if verdict == TX {
                    // Fed back, by whatever way, it is never answered again.
                    let (again, _, _) = pair.borrow_mut().run(&answer);
                    prop_assert_ne!(again, TX);
                } else {
                    prop_assert_eq!(answer, frame);
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn kernel_and_host_agree_in_a_group() {
    let (own, other) = ([192, 0, 2, 11].into(), [192, 0, 2, 12].into());
    let near = Gateway::on_segment(MAC_A, MAC_B);
    let ways = [near, near.in_ip(own, other, 1500), Gateway::silent()];
    for way in ways {
        let mut pair = OutsidePair::in_group(true, true, true, 1);
        pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into()]);
        // That of SPI, of which one more has no SA.
        pair.gateway(number_of(SPI.to_be_bytes()), way);
        pair.group_addresses(own, other);
        let pair = std::cell::RefCell::new(pair);
        let in_ip = damaged().prop_map(move |frame| {
            let mut outer = Frame::v4(4, frame.get(14..).unwrap_or_default());
            (outer.source, outer.destination) = (other, own);
            outer.bytes()
        });
        for frames in [damaged().boxed(), noise().boxed(), in_ip.boxed()] {
            many(2000)
                .run(&frames, |frame| {
                    pair.borrow_mut().run(&frame);
                    Ok(())
                })
                .unwrap();
        }
    }
}

#[test]
fn kernel_and_host_agree_at_a_front() {
    let (own, other) = ([192, 0, 2, 11].into(), [192, 0, 2, 12].into());
    let near = Gateway::on_segment(MAC_A, MAC_B);
    for (front, behind, way) in [
        (1, true, near),
        (1, false, near.in_ip(own, other, 1500)),
        (NO_SHARE, false, near.in_ip(own, other, 1500)),
    ] {
        let mut pair = OutsidePair::with(OutsideSettings {
            reflect_plain: true,
            shared: true,
            front,
            behind,
            max_sas: 1024,
            ..OutsideSettings::default()
        });
        pair.own_addresses(&[GATEWAY_V4.into(), GATEWAY_V6.into(), own]);
        pair.gateway(2, way);
        pair.front_address(own, other);
        for slot in 0..SLOTS {
            pair.lead(slot, (slot % 3) as u8);
        }
        let pair = std::cell::RefCell::new(pair);
        for frames in [damaged().boxed(), noise().boxed()] {
            many(3000)
                .run(&frames, |frame| {
                    pair.borrow_mut().run(&frame);
                    Ok(())
                })
                .unwrap();
        }
    }
}

#[test]
fn kernel_and_host_agree_with_a_filter() {
    let rules = [Rule::Tunnel, Rule::Split, Rule::Plain];
    for (number, rule) in (1..).zip(rules) {
        let mut pair = OutsidePair::with(OutsideSettings {
            filter: true,
            max_sas: 1024,
            ..OutsideSettings::default()
        });
        // One family's packets are for the node, the other's for somebody behind it; half of these are
        // among the networks of the class, where nothing is damaged.
        pair.own_addresses(&[GATEWAY_V4.into()]);
        let class = ClassEntry::new(rule, number);
        pair.class(number, class, &["2001:db8:1::/48", "192.0.2.0/31"]);
        pair.class(DEFAULT, class, &[]);
        pair.user(CLIENT_V4.into(), Some(number));
        let pair = std::cell::RefCell::new(pair);
        for frames in [damaged().boxed(), noise().boxed()] {
            many(2000)
                .run(&frames, |frame| {
                    let (_, _, packet) = pair.borrow_mut().run(&frame);
                    prop_assert_eq!(packet.len(), frame.len());
                    Ok(())
                })
                .unwrap();
        }
        let hits = pair.borrow().hits(number);
        let expected = match rule {
            Rule::Tunnel => hits[1] > 100,
            Rule::Split => hits[0] > 100,
            _ => hits[0] > 100 && hits[2] > 100,
        };
        assert!(expected, "{rule:?}: {hits:?}");
    }
}

/// Messages of IKE and their answers, nearly right.
fn negotiation() -> impl Strategy<Value = Vec<u8>> {
    let ports = || prop_oneof![Just(PORT_IKE), Just(PORT_NAT_T), any::<u16>()];
    let message = prop::collection::vec(any::<u8>(), 20..120);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let shape = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (shape, ports(), ports(), message, damage).prop_map(
        |((v6, marked, checked, options), from, to, mut message, damage)| {
            if marked {
                message[..4].fill(0);
            }
            let mut frame = match v6 {
                true => Frame::v6(IPPROTO_UDP, message),
                false => Frame::v4(IPPROTO_UDP, message),
            };
            frame.udp = Some((from, to, checked));
            if options {
                frame.options = vec![148, 4, 0, 0];
                frame.extensions = vec![(IPV6_HOP_BY_HOP, vec![0; 8])];
            }
            let mut bytes = frame.bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

#[test]
fn kernel_and_host_agree_about_translated_messages() {
    for (shared, client, stands) in [
        (
            GATEWAY_V4.into(),
            CLIENT_V4.into(),
            "10.0.0.21".parse::<std::net::IpAddr>().unwrap(),
        ),
        (
            GATEWAY_V6.into(),
            CLIENT_V6.into(),
            "2001:db8:9::21".parse().unwrap(),
        ),
    ] {
        let mut pair = OutsidePair::with(OutsideSettings {
            translates: true,
            max_sas: 1024,
            ..OutsideSettings::default()
        });
        pair.translation(Translation::new(shared, &[stands]));
        for slot in (0..TOWARD_SLOTS).step_by(2) {
            pair.toward(slot, Some(stands));
        }
        // What the client sends is for this one what an authority sends.
        let inside = InsidePair::translating(&["10.0.0.0/8"], Translation::new(stands, &[client]));
        let cells = std::cell::RefCell::new((pair, inside, [0, 0]));
        for frames in [negotiation().boxed(), damaged().boxed()] {
            many(4000)
                .run(&frames, |frame| {
                    let (pair, inside, hits) = &mut *cells.borrow_mut();
                    let (_, counter, packet) = pair.run(&frame);
                    prop_assert_eq!(packet.len(), frame.len());
                    let translated = [Counter::IkeTranslated, Counter::IkeFirstTranslated];
                    hits[0] += u32::from(translated.contains(&counter));
                    let (_, counter, packet) = inside.run(&frame);
                    prop_assert_eq!(packet.len(), frame.len());
                    hits[1] += u32::from(counter == Counter::IkeReturned);
                    Ok(())
                })
                .unwrap();
        }
        let (_, _, hits) = &*cells.borrow();
        assert!(hits.iter().all(|hits| *hits > 100), "{hits:?}");
    }
}

#[test]
fn kernel_and_host_agree_inside() {
    let prefixes = ["192.0.0.0/8", "2001:db8:1::/48", "128.0.0.0/2"];
    let pair = std::cell::RefCell::new(InsidePair::new(&prefixes));
    for frames in [damaged().boxed(), noise().boxed()] {
        many(4000)
            .run(&frames, |frame| {
                pair.borrow_mut().judge(&frame);
                Ok(())
            })
            .unwrap();
    }
}
