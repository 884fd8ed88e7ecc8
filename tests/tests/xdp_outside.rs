//! What the program `outside` does with ESP and with what is not its own, beside the same decision
//! on the host.

mod xdp_support;

use std::net::{Ipv4Addr, Ipv6Addr};

use evergate::dataplane::loader::{Outside, OutsideSettings};
use evergate_common::{heartbeat, maps::SaEntry, reason::Counter, wire::*};
use xdp_support::{host::OutsidePair, *};

#[test]
fn esp_is_steered_by_its_spi() {
    let mut pair = pair();
    for frame in dressed(&esp(SPI, 7)) {
        assert_eq!(
            pair.judge(&frame.bytes()),
            (REDIRECT, Counter::EspSteered),
            "{frame:?}"
        );
    }
    for frame in dressed(&esp(SPI + 1, 7)) {
        assert_eq!(
            pair.judge(&frame.bytes()),
            (DROP, Counter::UnknownSpi),
            "{frame:?}"
        );
    }
}

#[test]
fn without_a_socket_esp_is_dropped() {
    need_root();
    let settings = OutsideSettings::default();
    let mut program = Outside::load(settings).unwrap();
    program.add_sa(SPI, &SaEntry::new(None, None)).unwrap();
    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 7)).bytes();
    assert_eq!(program.run(&frame, 1).unwrap().verdict, DROP);
    assert_eq!(program.counters().unwrap()[Counter::NoSocket.index()], 1);
}

#[test]
fn what_is_not_ours_passes() {
    let mut pair = pair();
    let ike = [&[0; 4][..], &[0x17; 40]].concat();
    let mut arp_frame = arp(1, CLIENT_V4, GATEWAY_V4);
    arp_frame.resize(60, 0);
    let mut port_500 = Frame::v4(6, ike.clone()).in_udp(true);
    port_500.udp = Some((500, 500, true));
    let mut dns = Frame::v6(6, esp(SPI, 1)).in_udp(true);
    dns.udp = Some((53, 53, true));
    for frame in [
        Frame::v4(6, [0; 40]).bytes(),
        Frame::v6(6, [0; 40]).bytes(),
        Frame::v4(6, ike.clone()).in_udp(true).bytes(),
        Frame::v6(6, ike).in_udp(true).bytes(),
        Frame::v4(6, [0xFE]).in_udp(true).bytes(),
        Frame::v6(6, [0xFF, 0xFF]).in_udp(true).bytes(),
        port_500.bytes(),
        dns.bytes(),
        arp_frame,
        [&[0xFF; 12][..], &[0x88, 0xCC], &[0; 46]].concat(),
    ] {
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed), "{frame:02x?}");
    }
    // Two VLAN tags are beyond us.
    let mut tagged = Frame {
        vlan: Some(5),
        ..Frame::v4(IPPROTO_ESP, esp(SPI, 1))
    }
    .bytes();
    tagged.splice(12..12, [0x88, 0xA8, 0, 9]);
    assert_eq!(pair.judge(&tagged), (PASS, Counter::Passed));
}

#[test]
fn keep_alives_are_absorbed() {
    let mut pair = pair();
    let absorbed = (DROP, Counter::NatKeepAlive);
    for frame in [Frame::v4(6, [0xFF]), Frame::v6(6, [0xFF])] {
        let mut frame = frame.in_udp(true);
        assert_eq!(pair.judge(&frame.bytes()), absorbed, "{frame:?}");
        frame.vlan = Some(5);
        assert_eq!(pair.judge(&frame.bytes()), absorbed, "{frame:?}");
    }
}

#[test]
fn packets_to_others_pass() {
    let mut pair = pair();
    pair.own_addresses(&[Ipv4Addr::new(192, 0, 2, 9).into(), GATEWAY_V6.into()]);
    let keep_alive = Frame::v4(6, [0xFF]).in_udp(true).bytes();
    assert_eq!(pair.judge(&keep_alive), (PASS, Counter::Passed));
    for payload in [esp(SPI, 1), esp(SPI + 1, 1), plain(1, b"x"), keyed(1)] {
        let frame = Frame::v4(IPPROTO_ESP, payload.clone()).bytes();
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
        let frame = Frame::v6(IPPROTO_ESP, payload).bytes();
        assert_ne!(pair.judge(&frame), (PASS, Counter::Passed));
    }
}

#[test]
fn fragments_are_told_apart() {
    let mut pair = pair();
    // The kernel puts together what came from those who have a session.
    let passed = (PASS, Counter::EspFragmentPassed);
    let dropped = (DROP, Counter::EspFragment);
    for (fragment, whole) in [
        (0x4000, true),
        (0x2000, false),
        (0x2001, false),
        (0x0001, false),
    ] {
        let whole = whole.then_some((REDIRECT, Counter::EspSteered));
        let frame = Frame {
            fragment,
            ..Frame::v4(IPPROTO_ESP, esp(SPI, 7))
        };
        let expected = whole.unwrap_or(passed);
        assert_eq!(pair.judge(&frame.bytes()), expected, "{fragment:04x}");
        let stranger = Frame {
            source: Ipv4Addr::new(198, 51, 100, 99).into(),
            ..frame.clone()
        };
        let expected = whole.unwrap_or(dropped);
        assert_eq!(pair.judge(&stranger.bytes()), expected, "{fragment:04x}");
        // Of UDP, what came from anybody: it may be IKE.
        let expected = whole.unwrap_or((PASS, Counter::Passed));
        let frame = frame.in_udp(false);
        assert_eq!(
            pair.judge(&frame.bytes()),
            expected,
            "{fragment:04x} in UDP"
        );
    }
    for (field, whole) in [
        // An atomic fragment (RFC 6946) is whole.
        ([0, 0], true),
        ([0, 1], false),
        ([0, 9], false),
        ([0, 8], false),
    ] {
        let whole = whole.then_some((REDIRECT, Counter::EspSteered));
        let header = vec![0, 0, field[0], field[1], 1, 2, 3, 4];
        let frame = Frame {
            extensions: vec![(IPV6_FRAGMENT, header)],
            ..Frame::v6(IPPROTO_ESP, esp(SPI, 7))
        };
        let expected = whole.unwrap_or(passed);
        assert_eq!(pair.judge(&frame.bytes()), expected, "{field:?}");
        let stranger = Frame {
            source: Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 99).into(),
            ..frame
        };
        let expected = whole.unwrap_or(dropped);
        assert_eq!(pair.judge(&stranger.bytes()), expected, "{field:?}");
    }
    let short = Frame::v4(IPPROTO_ESP, [1, 2, 3, 4, 5, 6, 7]).bytes();
    assert_eq!(pair.judge(&short), (DROP, Counter::EspShort));
}

#[test]
fn every_prefix_of_a_packet_is_judged_alike_and_never_answered() {
    let mut pair = OutsidePair::new(true, true, true);
    for payload in [esp(SPI, 1), plain(1, b"payload"), keyed(1)] {
        for frame in dressed(&payload) {
            let whole = frame.bytes();
            for len in 14..whole.len() {
                let (verdict, counter, _) = pair.run(&whole[..len]);
                // A frame that ends within its packet is for the kernel to judge.
                assert_eq!(
                    (verdict, counter),
                    (PASS, Counter::Malformed),
                    "{len} of {frame:?}"
                );
            }
        }
    }
}

#[test]
fn every_length_of_an_esp_payload() {
    let mut pair = OutsidePair::new(true, true, true);
    for whole in [esp(SPI, 1), plain(1, b"payload"), keyed(1)] {
        for len in 0..whole.len() {
            for frame in dressed(&whole[..len]) {
                let (verdict, counter) = pair.judge(&frame.bytes());
                let heartbeat = whole[0] == 0xFF;
                match len {
                    // Too short in UDP may be a keep-alive or broken ESP; neither is served.
                    0..8 => assert!(verdict == DROP || verdict == PASS, "{len} {frame:?}"),
                    // Not of the keyed size: the plain form.
                    _ if heartbeat => assert_eq!(counter, Counter::HeartbeatPlain),
                    _ => assert_eq!(counter, Counter::EspSteered),
                }
            }
        }
    }
}

// A node that shares SAs with others may get one for an SPI that it does not know; else such packets end
// at the network card.
#[test]
fn unknown_spis_go_to_the_worker_where_sas_are_shared() {
    let settings = |number, shared| OutsideSettings {
        number,
        shared,
        max_sas: 1024,
        ..OutsideSettings::default()
    };
    for (number, shared) in [(0, true), (5, true), (5, false)] {
        let mut pair = OutsidePair::with(settings(number, shared));
        let unknown = match shared {
            true => (REDIRECT, Counter::EspUnknown),
            false => (DROP, Counter::UnknownSpi),
        };
        for frame in dressed(&esp(SPI + 1, 7)) {
            assert_eq!(pair.judge(&frame.bytes()), unknown, "{frame:?}");
        }
        for frame in dressed(&esp(SPI, 7)) {
            let steered = (REDIRECT, Counter::EspSteered);
            assert_eq!(pair.judge(&frame.bytes()), steered, "{frame:?}");
        }
        // A keyed heartbeat proves itself by the SA that it names.
        let unknown = (SPI + 1).to_be_bytes();
        let heartbeat = heartbeat::encode_request(&KEY, 7, unknown, TOKEN);
        let heartbeat = Frame::v4(IPPROTO_ESP, heartbeat).bytes();
        let refused = (DROP, Counter::HeartbeatUnknownSpi);
        assert_eq!(pair.judge(&heartbeat), refused);
        // To others nothing of it is ours.
        pair.own_addresses(&[Ipv4Addr::new(192, 0, 2, 9).into()]);
        let frame = Frame::v4(IPPROTO_ESP, esp(SPI + 1, 7)).bytes();
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
}

#[test]
fn without_a_socket_an_unknown_spi_is_dropped() {
    need_root();
    let settings = OutsideSettings {
        shared: true,
        ..OutsideSettings::default()
    };
    let mut program = Outside::load(settings).unwrap();
    let frame = Frame::v4(IPPROTO_ESP, esp(SPI, 7)).bytes();
    assert_eq!(program.run(&frame, 1).unwrap().verdict, DROP);
    assert_eq!(program.counters().unwrap()[Counter::NoSocket.index()], 1);
}
