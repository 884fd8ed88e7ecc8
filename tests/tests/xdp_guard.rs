//! The guard before IKE: what it answers, lets pass and drops, in the kernel and on the host alike.

mod xdp_support;

use evergate_common::{
    guard::{COOKIE_LEN, Guard, cookie},
    maps::address,
    reason::Counter,
    wire::*,
};
use proptest::prelude::*;
use xdp_support::{host::OutsidePair, *};

const CURRENT: [u8; 16] = [0x11; 16];
const BEFORE: [u8; 16] = [0x22; 16];
const SPI_I: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const NONCE: [u8; 32] = [0x5A; 32];

fn up() -> OutsidePair {
    let mut pair = OutsidePair::new(false, true, false);
    pair.guard(Guard::up(CURRENT, BEFORE));
    pair
}

/// Makes a frame of one family.
type Make = fn(u8, Vec<u8>) -> Frame;
const FAMILIES: [Make; 2] = [Frame::v4, Frame::v6];

/// IKE_SA_INIT with these payloads (type, body).
fn first(payloads: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, (_, content)) in payloads.iter().enumerate() {
        let next = payloads.get(index + 1).map_or(0, |(kind, _)| *kind);
        body.extend([next, 0]);
        body.extend((content.len() as u16 + 4).to_be_bytes());
        body.extend(content);
    }
    let mut message = SPI_I.to_vec();
    message.extend([0; 8]);
    message.extend([payloads[0].0, 0x20, 34, 0x08]);
    message.extend([0; 4]);
    message.extend((28 + body.len() as u32).to_be_bytes());
    message.extend(body);
    message
}

fn cookie_notify(data: &[u8]) -> (u8, Vec<u8>) {
    (41, [&[0, 0, 0x40, 0x06], data].concat())
}

fn usual() -> Vec<(u8, Vec<u8>)> {
    vec![
        (33, vec![7; 44]),
        (34, vec![9; 36]),
        (40, NONCE.to_vec()),
        (41, vec![0, 0, 0x40, 0x04, 1, 2, 3]),
    ]
}

/// A first message from the client over UDP.
fn udp(frame: Make, port: u16, checksum: bool, ike: Vec<u8>) -> Frame {
    let payload = match port {
        PORT_NAT_T => [vec![0; 4], ike].concat(),
        _ => ike,
    };
    let mut frame = frame(IPPROTO_UDP, payload);
    frame.udp = Some((40_500, port, checksum));
    frame
}

fn right(frame: &Frame, key: &[u8; 16]) -> [u8; COOKIE_LEN] {
    let nonce = NONCE.first_chunk().expect("16 bytes");
    cookie(key, &address(frame.source), SPI_I, *nonce)
}

/// The frame that must come back, built from its parts.
fn expected(request: &Frame, port: u16) -> Vec<u8> {
    let cookie = right(request, &CURRENT);
    let mut ike = first(&[cookie_notify(&cookie)]);
    ike[19] = 0x20;
    let payload = match port {
        PORT_NAT_T => [vec![0; 4], ike].concat(),
        _ => ike,
    };
    let answer = Frame {
        mac_source: request.mac_destination,
        mac_destination: request.mac_source,
        source: request.destination,
        destination: request.source,
        udp: Some((port, 40_500, request.source.is_ipv6())),
        payload,
        tos: 0,
        ttl: 64,
        fragment: 0x4000,
        ..request.clone()
    };
    let mut bytes = answer.bytes();
    if request.source.is_ipv4() {
        // No identification.
        let l3 = bytes.len() - answer.payload.len() - UDP_LEN - IPV4_LEN;
        bytes[l3 + 4..l3 + 6].fill(0);
        bytes[l3 + 10..l3 + 12].fill(0);
        let sum = evergate_common::checksum::ipv4_header(&bytes[l3..l3 + IPV4_LEN]);
        bytes[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

#[test]
fn a_first_message_is_asked_for_a_cookie() {
    let mut pair = up();
    for make in FAMILIES {
        for port in [PORT_IKE, PORT_NAT_T] {
            for vlan in [None, Some(5)] {
                let mut request = udp(make, port, true, first(&usual()));
                request.vlan = vlan;
                let (verdict, counter, answer) = pair.run(&request.bytes());
                assert_eq!((verdict, counter), (TX, Counter::IkeAsked));
                assert_eq!(answer, expected(&request, port), "port {port}, {vlan:?}");
                assert!(answer.len() < request.bytes().len(), "never longer");
            }
        }
    }
}

/// IKE_SESSION_RESUME: Ni, N(TICKET_OPAQUE).
#[test]
fn a_message_with_a_ticket_is_a_first_message_too() {
    let mut pair = up();
    let with_ticket = |payloads: &[(u8, Vec<u8>)]| {
        let mut message = first(payloads);
        message[18] = 38;
        message
    };
    let ticket = [&[0, 0, 0x40, 0x1D][..], &[7; 300]].concat();
    let mut payloads = vec![(40, NONCE.to_vec()), (41, ticket)];
    for make in FAMILIES {
        for port in [PORT_IKE, PORT_NAT_T] {
            let request = udp(make, port, true, with_ticket(&payloads));
            let (verdict, counter, answer) = pair.run(&request.bytes());
            assert_eq!((verdict, counter), (TX, Counter::IkeAsked));
            let mut wanted = expected(&request, port);
            let at = wanted.windows(4).position(|w| w == [41, 0x20, 34, 0x20]);
            wanted[at.expect("an IKE header") + 2] = 38;
            if request.source.is_ipv4() {
                assert_eq!(answer, wanted, "port {port}");
            } else {
                // The checksum over UDP covers the exchange type too.
                assert_eq!(answer.len(), wanted.len());
                let differ = answer.iter().zip(&wanted).filter(|(a, b)| a != b).count();
                assert!((1..=2).contains(&differ), "port {port}: {differ} bytes");
            }
        }
    }
    let plain = udp(Frame::v4, PORT_IKE, false, with_ticket(&payloads));
    payloads.insert(0, cookie_notify(&right(&plain, &CURRENT)));
    let returned = udp(Frame::v4, PORT_IKE, false, with_ticket(&payloads));
    assert_eq!(pair.judge(&returned.bytes()), (PASS, Counter::IkeCookie));
}

#[test]
fn the_cookie_of_now_and_the_one_before_pass() {
    let mut pair = up();
    for make in FAMILIES {
        let plain = udp(make, PORT_IKE, false, first(&usual()));
        for (key, verdict, counter) in [
            (&CURRENT, PASS, Counter::IkeCookie),
            (&BEFORE, PASS, Counter::IkeCookie),
            (&[0x33; 16], TX, Counter::IkeAsked),
        ] {
            let mut payloads = usual();
            payloads.insert(0, cookie_notify(&right(&plain, key)));
            let frame = udp(make, PORT_IKE, false, first(&payloads)).bytes();
            assert_eq!(pair.judge(&frame), (verdict, counter));
        }
    }
    // Another nonce, another SPI, a cookie of another length, a cookie that is not the first payload.
    let plain = udp(Frame::v4, PORT_IKE, false, first(&usual()));
    let good = right(&plain, &CURRENT);
    let mut other_nonce = usual();
    other_nonce[2].1[3] ^= 1;
    other_nonce.insert(0, cookie_notify(&good));
    let mut longer = usual();
    longer.insert(0, cookie_notify(&[&good[..], &[0]].concat()));
    let mut late = usual();
    late.insert(1, cookie_notify(&good));
    for payloads in [other_nonce, longer, late] {
        let frame = udp(Frame::v4, PORT_IKE, false, first(&payloads)).bytes();
        assert_eq!(pair.judge(&frame), (TX, Counter::IkeAsked));
    }
    let mut payloads = usual();
    payloads.insert(0, cookie_notify(&good));
    let mut message = first(&payloads);
    message[0] ^= 1;
    let frame = udp(Frame::v4, PORT_IKE, false, message).bytes();
    assert_eq!(pair.judge(&frame), (TX, Counter::IkeAsked));
}

#[test]
fn everything_else_of_ike_passes() {
    let mut pair = up();
    let mut answer = first(&usual());
    answer[19] = 0x20;
    let mut auth = first(&usual());
    auth[18] = 35;
    let short = vec![1, 2, 3];
    for message in [answer, auth] {
        let frame = udp(Frame::v4, PORT_IKE, false, message).bytes();
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
    let frame = udp(Frame::v4, PORT_IKE, false, short).bytes();
    assert_eq!(pair.judge(&frame), (DROP, Counter::IkeGuarded));
    // To another host.
    pair.own_addresses(&["192.0.2.77".parse().expect("an address")]);
    let frame = udp(Frame::v4, PORT_IKE, false, first(&usual())).bytes();
    assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
}

#[test]
fn a_guard_that_is_down_lets_everything_pass() {
    let mut pair = up();
    pair.guard(Guard::down());
    for length in 0..first(&usual()).len() {
        let message = first(&usual())[..length].to_vec();
        let frame = udp(Frame::v4, PORT_IKE, false, message).bytes();
        assert_eq!(pair.judge(&frame), (PASS, Counter::Passed));
    }
}

#[test]
fn what_can_not_be_answered_is_dropped() {
    let mut pair = up();
    let usual_frame = || udp(Frame::v4, PORT_IKE, false, first(&usual()));
    let mut options = usual_frame();
    options.options = vec![1, 1, 1, 0];
    let mut multicast = usual_frame();
    multicast.mac_source[0] |= 1;
    let mut everyone = usual_frame();
    everyone.source = "255.255.255.255".parse().expect("an address");
    let mut myself = usual_frame();
    myself.source = myself.destination;
    for frame in [options, multicast, everyone, myself] {
        let (verdict, counter) = pair.judge(&frame.bytes());
        assert_eq!((verdict, counter), (DROP, Counter::IkeGuarded), "{frame:?}");
    }
    for change in [
        |m: &mut Vec<u8>| m[8] = 1,          // a responder SPI
        |m: &mut Vec<u8>| m[17] = 0x10,      // IKEv1
        |m: &mut Vec<u8>| m[19] = 0,         // not the initiator
        |m: &mut Vec<u8>| m[23] = 1,         // message ID 1
        |m: &mut Vec<u8>| m[27] ^= 1,        // another length
        |m: &mut Vec<u8>| m[30..32].fill(0), // a payload of no length
        |m: &mut Vec<u8>| m[30] = 0xFF,      // a payload beyond the end
        |m: &mut Vec<u8>| m[16] = 40,        // a nonce that is none, but long enough
    ] {
        let mut message = first(&usual());
        change(&mut message);
        let found = pair.judge(&udp(Frame::v4, PORT_IKE, false, message.clone()).bytes());
        let nonce_first = message[16] == 40;
        let wanted = match nonce_first {
            true => (TX, Counter::IkeAsked),
            false => (DROP, Counter::IkeGuarded),
        };
        assert_eq!(found, wanted);
    }
    let mut short_nonce = usual();
    short_nonce[2].1.truncate(15);
    let no_nonce = vec![(33, vec![7; 44])];
    let too_many: Vec<_> = (0..8).map(|_| (33, vec![7; 4])).chain(usual()).collect();
    for payloads in [short_nonce, no_nonce, too_many] {
        let frame = udp(Frame::v4, PORT_IKE, false, first(&payloads)).bytes();
        assert_eq!(pair.judge(&frame), (DROP, Counter::IkeGuarded));
    }
}

#[test]
fn every_length_cut_short_is_dropped() {
    let mut pair = up();
    let whole = first(&usual());
    for length in 0..whole.len() {
        let frame = udp(Frame::v6, PORT_NAT_T, false, whole[..length].to_vec()).bytes();
        let (verdict, _) = pair.judge(&frame);
        assert!(
            verdict == DROP || verdict == PASS && length < 20,
            "{length}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn kernel_and_host_agree_on_changed_messages(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        v6: bool,
        nat: bool,
    ) {
        thread_local!(static PAIR: std::cell::RefCell<OutsidePair> = up().into());
        let mut payloads = usual();
        payloads.insert(0, cookie_notify(&[1; 8]));
        let mut message = first(&payloads);
        for (index, value) in changes {
            let at = index.index(message.len());
            message[at] = value;
        }
        let port = if nat { PORT_NAT_T } else { PORT_IKE };
        let frame = match v6 {
            true => udp(Frame::v6, port, true, message),
            false => udp(Frame::v4, port, true, message),
        };
        PAIR.with_borrow_mut(|pair| pair.run(&frame.bytes()));
    }
}
