//! What the program `outside` does with heartbeats, beside the same decision on the host.

mod xdp_support;

use std::net::{IpAddr, Ipv6Addr};

use evergate_common::{
    checksum,
    heartbeat::{self, HEALTH_DRAINING, HEALTH_OVERLOADED},
    maps::SaEntry,
    reason::Counter,
    wire::*,
};
use xdp_support::{host::OutsidePair, *};

/// Checks an answer against its request, header by header.
fn check_answer(request: &Frame, answer: &[u8], payload: Vec<u8>) {
    let mut expected = request.clone();
    (expected.mac_source, expected.mac_destination) = (request.mac_destination, request.mac_source);
    (expected.source, expected.destination) = (request.destination, request.source);
    expected.ttl -= 1;
    expected.udp = request
        .udp
        .map(|(source, destination, sum)| (destination, source, sum));
    expected.payload = payload;
    // The builder computes every checksum afresh: so the updated ones are right.
    assert_eq!(answer, expected.bytes(), "{request:?}");
    assert_eq!(checksum::ipv4_header(&Frame::v4(1, []).bytes()[14..34]), 0);
}

#[test]
fn plain_heartbeats_are_answered() {
    let mut pair = pair();
    for payload in [&b""[..], b"any payload", &[7; 28], &[0; 300]] {
        for frame in dressed(&plain(0x1234, payload)) {
            let (verdict, counter, answer) = pair.run(&frame.bytes());
            assert_eq!(
                (verdict, counter),
                (TX, Counter::HeartbeatPlain),
                "{frame:?}"
            );
            let mut expected = frame.payload.clone();
            expected[4] |= 0x80;
            check_answer(&frame, &answer, expected);
        }
    }
}

#[test]
fn keyed_heartbeats_are_answered_with_health_and_proof() {
    let mut pair = pair();
    for health in [0, HEALTH_DRAINING, HEALTH_DRAINING | HEALTH_OVERLOADED] {
        pair.health(health, false);
        for frame in dressed(&keyed(0x7FFF_FFFF)) {
            let (verdict, counter, answer) = pair.run(&frame.bytes());
            assert_eq!(
                (verdict, counter),
                (TX, Counter::HeartbeatKeyed),
                "{frame:?}"
            );
            let esp = &answer[answer.len() - heartbeat::KEYED_LEN..];
            let proof = heartbeat::verify_answer(esp, &KEY).expect("the answer proves itself");
            assert_eq!(proof.counter, 0x7FFF_FFFF);
            assert_eq!((proof.health, proof.token), (health, TOKEN));
            check_answer(&frame, &answer, esp.to_vec());
        }
    }
}

/// A probe of a path's MTU: the answer is as long as the request, and what is behind the MAC comes back.
#[test]
fn keyed_heartbeats_may_be_long() {
    let mut pair = pair();
    for more in [1, 4, 1300, 1463] {
        let padding: Vec<u8> = (0..more).map(|n| n as u8).collect();
        let probe = [keyed(9), padding.clone()].concat();
        for frame in dressed(&probe) {
            let (verdict, counter, answer) = pair.run(&frame.bytes());
            assert_eq!(
                (verdict, counter),
                (TX, Counter::HeartbeatKeyed),
                "{frame:?}"
            );
            assert_eq!(answer.len(), frame.bytes().len());
            let esp = &answer[answer.len() - probe.len()..];
            heartbeat::verify_answer(esp, &KEY).expect("the answer proves itself");
            assert_eq!(esp[heartbeat::KEYED_LEN..], padding[..]);
            check_answer(&frame, &answer, esp.to_vec());
        }
    }
    // One byte less, and it is no keyed one.
    let short = keyed(9)[..heartbeat::KEYED_LEN - 1].to_vec();
    let frame = Frame::v4(IPPROTO_ESP, short).bytes();
    let (_, counter, _) = pair.run(&frame);
    assert_ne!(counter, Counter::HeartbeatKeyed);
}

#[test]
fn an_answer_is_never_reflected() {
    let mut pair = OutsidePair::new(true, true, true);
    pair.add_peer(GATEWAY_V4.into());
    pair.add_peer(GATEWAY_V6.into());
    for payload in [plain(1, b"payload"), keyed(1)] {
        for mut frame in dressed(&payload) {
            // So that the answer, too, goes to the port of ESP in UDP.
            if let Some((source, destination, _)) = &mut frame.udp {
                *source = *destination;
            }
            let (verdict, _, answer) = pair.run(&frame.bytes());
            assert_eq!(verdict, TX);
            assert_eq!(
                pair.judge(&answer),
                (REDIRECT, Counter::HeartbeatAnswer),
                "{frame:?}"
            );
        }
    }
    let mut stranger = OutsidePair::new(true, true, true);
    let (_, _, answer) = stranger.run(&Frame::v4(IPPROTO_ESP, plain(1, b"")).bytes());
    assert_eq!(
        stranger.judge(&answer),
        (DROP, Counter::HeartbeatAnswerStranger)
    );
}

#[test]
fn heartbeats_that_must_not_be_answered() {
    let mut pair = pair();
    let own = IpAddr::from([192, 0, 2, 2]);
    pair.add_peer(own);
    pair.never_reflect(own);
    for payload in [plain(1, b"payload"), keyed(1)] {
        let v4 = Frame::v4(IPPROTO_ESP, payload.clone());
        let v6 = Frame::v6(IPPROTO_ESP, payload);
        let mut check = |frame: Frame, counter: Counter| {
            assert_eq!(pair.judge(&frame.bytes()), (DROP, counter), "{frame:?}");
        };
        check(
            Frame {
                source: own,
                ..v4.clone()
            },
            Counter::HeartbeatOwn,
        );
        check(
            Frame {
                source: GATEWAY_V4.into(),
                ..v4.clone()
            },
            Counter::HeartbeatOwn,
        );
        check(
            Frame {
                ttl: 1,
                ..v4.clone()
            },
            Counter::HeartbeatTtl,
        );
        check(
            Frame {
                ttl: 0,
                ..v6.clone()
            },
            Counter::HeartbeatTtl,
        );
        for address in ["0.0.0.0", "127.0.0.1", "224.0.0.18", "255.255.255.255"] {
            let address: IpAddr = address.parse().unwrap();
            check(
                Frame {
                    source: address,
                    ..v4.clone()
                },
                Counter::HeartbeatMartian,
            );
            check(
                Frame {
                    destination: address,
                    ..v4.clone()
                },
                Counter::HeartbeatMartian,
            );
        }
        for address in ["::", "::1", "ff02::1", "::ffff:198.51.100.7"] {
            let address: IpAddr = IpAddr::V6(address.parse::<Ipv6Addr>().unwrap());
            check(
                Frame {
                    source: address,
                    ..v6.clone()
                },
                Counter::HeartbeatMartian,
            );
            check(
                Frame {
                    destination: address,
                    ..v6.clone()
                },
                Counter::HeartbeatMartian,
            );
        }
        check(
            Frame {
                mac_destination: [0xFF; 6],
                ..v4.clone()
            },
            Counter::HeartbeatMartian,
        );
        check(
            Frame {
                mac_source: [1, 0, 0x5E, 0, 0, 1],
                ..v4.clone()
            },
            Counter::HeartbeatMartian,
        );
        let fragment = Frame {
            fragment: 0x2000,
            source: IpAddr::from([198, 51, 100, 99]),
            ..v4.clone()
        };
        check(fragment, Counter::EspFragment);
        for route in [131, 137] {
            // After a no-operation, and after a router alert.
            let options = vec![1, 148, 4, 0, 0, route, 7, 4, 10, 0, 0, 1];
            check(
                Frame {
                    options,
                    ..v4.clone()
                },
                Counter::HeartbeatRouted,
            );
        }
        let extensions = vec![(IPV6_ROUTING, vec![0, 0, 4, 1, 0, 0, 0, 0])];
        check(
            Frame {
                extensions,
                ..v6.clone()
            },
            Counter::HeartbeatRouted,
        );
    }
}

#[test]
fn the_dead_man_switch_and_silence() {
    let mut pair = pair();
    let frames: Vec<Vec<u8>> = [plain(1, b"payload"), keyed(1)]
        .iter()
        .flat_map(|payload| dressed(payload))
        .map(|frame| frame.bytes())
        .collect();
    pair.alive(false);
    for frame in &frames {
        assert_eq!(pair.judge(frame), (DROP, Counter::HeartbeatDead));
    }
    pair.alive(true);
    pair.health(0, true);
    for frame in &frames {
        assert_eq!(pair.judge(frame), (DROP, Counter::HeartbeatSilent));
    }
    pair.health(0, false);
    for frame in &frames {
        assert_eq!(pair.judge(frame).0, TX);
    }
}

#[test]
fn a_renewal_ends_by_itself() {
    use evergate::dataplane::loader::monotonic_ns;
    let mut pair = pair();
    let frame = Frame::v4(IPPROTO_ESP, plain(1, b"")).bytes();
    let writer = pair.program.node_state();
    writer
        .set_alive_until(monotonic_ns() + 20_000_000_000)
        .unwrap();
    assert_eq!(pair.program.run(&frame, 1).unwrap().verdict, TX);
    writer.set_alive_until(monotonic_ns() + 1_000_000).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(pair.program.run(&frame, 1).unwrap().verdict, DROP);
}

#[test]
fn plain_heartbeats_of_strangers() {
    let stranger = IpAddr::from([203, 0, 113, 5]);
    let frame = Frame {
        source: stranger,
        ..Frame::v4(IPPROTO_ESP, plain(1, b""))
    }
    .bytes();
    let refused = (DROP, Counter::HeartbeatStranger);
    assert_eq!(OutsidePair::new(true, true, false).judge(&frame), refused);
    let answered = (TX, Counter::HeartbeatPlain);
    assert_eq!(OutsidePair::new(true, true, true).judge(&frame), answered);

    let mut pair = pair();
    pair.program.remove_peer(CLIENT_V4.into()).unwrap();
    pair.model
        .addresses
        .remove(&evergate_common::maps::address(CLIENT_V4.into()));
    let frame = Frame::v4(IPPROTO_ESP, plain(1, b"")).bytes();
    assert_eq!(pair.judge(&frame), refused);
}

#[test]
fn forms_that_are_not_accepted() {
    let refused = (DROP, Counter::HeartbeatForm);
    for frame in dressed(&plain(1, b"payload")) {
        assert_eq!(
            OutsidePair::new(false, true, true).judge(&frame.bytes()),
            refused
        );
    }
    for frame in dressed(&keyed(1)) {
        assert_eq!(
            OutsidePair::new(true, false, true).judge(&frame.bytes()),
            refused
        );
    }
    let mut pair = pair();
    pair.add_sa(SPI, SaEntry::new(None, None));
    assert_eq!(
        pair.judge(&Frame::v4(IPPROTO_ESP, keyed(1)).bytes()),
        refused
    );
}

#[test]
fn keyed_heartbeats_must_prove_themselves() {
    let mut pair = pair();
    for at in [4, 7, 12, 16, 20, 27, 28, 35] {
        let mut payload = keyed(1);
        payload[at] ^= 1;
        let expected = match at {
            12 => Counter::HeartbeatUnknownSpi,
            _ => Counter::HeartbeatMac,
        };
        let frame = Frame::v4(IPPROTO_ESP, payload).bytes();
        assert_eq!(pair.judge(&frame), (DROP, expected), "byte {at}");
    }
    pair.add_sa(SPI, SaEntry::new(Some([9; 16]), None));
    let frame = Frame::v4(IPPROTO_ESP, keyed(1)).bytes();
    assert_eq!(pair.judge(&frame), (DROP, Counter::HeartbeatMac));
    pair.add_sa(SPI, SaEntry::new(Some(KEY), Some(CLIENT_V6.into())));
    assert_eq!(pair.judge(&frame), (DROP, Counter::HeartbeatPeer));
    pair.add_sa(SPI, SaEntry::new(Some(KEY), Some(CLIENT_V4.into())));
    assert_eq!(pair.judge(&frame), (TX, Counter::HeartbeatKeyed));
    // Behind a NAT the port belongs to the address; the frames in UDP come from 40000.
    let in_udp = Frame::v4(IPPROTO_ESP, keyed(1)).in_udp(true).bytes();
    assert_eq!(pair.judge(&in_udp), (TX, Counter::HeartbeatKeyed));
    let there = SaEntry::new(Some(KEY), Some(CLIENT_V4.into()));
    pair.add_sa(SPI, there.from_port(40_001));
    assert_eq!(pair.judge(&in_udp), (DROP, Counter::HeartbeatPeer));
    assert_eq!(pair.judge(&frame), (DROP, Counter::HeartbeatPeer));
    pair.add_sa(SPI, there.from_port(40_000));
    assert_eq!(pair.judge(&in_udp), (TX, Counter::HeartbeatKeyed));
    pair.program.remove_sa(SPI).unwrap();
    pair.model.sas.clear();
    assert_eq!(pair.judge(&frame), (DROP, Counter::HeartbeatUnknownSpi));
}
