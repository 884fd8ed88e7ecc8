//! What is joined, what is not, and that the kernel's way of cutting yields the same segments again.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// What a segment is made of.
#[derive(Clone, Debug)]
struct Made {
    v6: bool,
    port: u16,
    sequence: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

fn plain(sequence: u32, payload: usize) -> Made {
    Made {
        v6: false,
        port: 443,
        sequence,
        flags: ACK,
        window: 500,
        options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        payload: (0..payload)
            .map(|i| (i * 7 + sequence as usize) as u8)
            .collect(),
    }
}

fn bytes(made: &Made) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(made.port.to_be_bytes());
    tcp.extend(5201u16.to_be_bytes());
    tcp.extend(made.sequence.to_be_bytes());
    tcp.extend(77u32.to_be_bytes());
    tcp.push((20 + made.options.len() as u8) / 4 << 4);
    tcp.push(made.flags);
    tcp.extend(made.window.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(&made.options);
    tcp.extend(&made.payload);
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 130));
    let (c, d): (Ipv6Addr, Ipv6Addr) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8::2".parse().unwrap(),
    );
    let sum = match made.v6 {
        false => transport_v4(a, b, TCP, &tcp),
        true => transport_v6(c, d, TCP, &tcp),
    };
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = match made.v6 {
        false => {
            let total = (20 + tcp.len()) as u16;
            let mut ip = vec![0x45, 0, 0, 0, 9, 9, 0x40, 0, 63, TCP, 0, 0];
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip.extend(a.octets());
            ip.extend(b.octets());
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        }
        true => {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, TCP, 63];
            ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
            ip.extend(c.octets());
            ip.extend(d.octets());
            ip
        }
    };
    packet.extend(tcp);
    packet
}

/// Joins as many as go together; what was written, and how many of them.
fn joined(packets: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let first = Segment::read(&packets[0]).unwrap();
    let mut train = Train::begin(first, &packets[0]).unwrap();
    let mut count = 1;
    for packet in &packets[1..] {
        let Some(segment) = Segment::read(packet) else {
            break;
        };
        if !train.append(&segment, packet) {
            break;
        }
        count += 1;
    }
    let mut whole = vec![0xee; VNET_HEADER];
    whole.extend(&packets[0]);
    train
        .finish(&mut whole[..VNET_HEADER + first.headers()])
        .unwrap();
    for packet in &packets[1..count] {
        whole.extend(&packet[first.headers()..]);
    }
    (whole, count)
}

/// As the kernel cuts it (`tcp_gso_segment`), by what the virtio-net header says.
fn cut(whole: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| usize::from(u16::from_ne_bytes([whole[at], whole[at + 1]]));
    let (headers, size, start, offset) = (word(2), word(4), word(6), word(8));
    assert_eq!((whole[0], offset), (NEEDS_CHECKSUM, 16));
    let packet = &whole[VNET_HEADER..];
    assert_eq!(whole[1], if packet[0] >> 4 == 4 { TCP_V4 } else { TCP_V6 });
    // Checksum offload: the field has the pseudo header's sum.
    let mut filled = packet[start..].to_vec();
    let sum = checksum(&filled);
    filled[16..18].copy_from_slice(&sum.to_be_bytes());
    let v4 = packet[0] >> 4 == 4;
    let right = match v4 {
        true => {
            assert_eq!(checksum(&packet[..start]), 0, "IPv4 header");
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[2], packet[3]])),
                packet.len()
            );
            let at = |i: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[i..i + 4]).unwrap());
            transport_v4(at(12), at(16), TCP, &filled)
        }
        false => {
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[4], packet[5]])),
                packet.len() - 40
            );
            let at = |i: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[i..i + 16]).unwrap());
            transport_v6(at(8), at(24), TCP, &filled)
        }
    };
    assert_eq!(right, 0, "the sum of the pseudo header");
    let payloads: Vec<&[u8]> = packet[headers..].chunks(size).collect();
    let mut sequence = u32::from_be_bytes(packet[start + 4..start + 8].try_into().unwrap());
    let last = payloads.len() - 1;
    payloads
        .into_iter()
        .enumerate()
        .map(|(number, payload)| {
            let flags = packet[start + 13] & if number == last { 0xff } else { !PSH };
            let made = Made {
                v6: !v4,
                port: u16::from_be_bytes([packet[start], packet[start + 1]]),
                sequence,
                flags,
                window: u16::from_be_bytes([packet[start + 14], packet[start + 15]]),
                options: packet[start + 20..headers].to_vec(),
                payload: payload.to_vec(),
            };
            sequence = sequence.wrapping_add(payload.len() as u32);
            bytes(&made)
        })
        .collect()
}

#[test]
fn what_does_not_continue_a_train_ends_it() {
    let base = plain(1000, 100);
    let next = plain(1100, 100);
    assert_eq!(joined(&[bytes(&base), bytes(&next)]).1, 2);
    let change = |change: &dyn Fn(&mut Made)| {
        let mut made = next.clone();
        change(&mut made);
        bytes(&made)
    };
    for (what, packet) in [
        ("a gap", change(&|m| m.sequence += 1)),
        ("a repetition", change(&|m| m.sequence = 1000)),
        ("longer than the first", change(&|m| m.payload.push(1))),
        ("another window", change(&|m| m.window = 501)),
        ("other options", change(&|m| m.options[7] ^= 1)),
        ("fewer options", change(&|m| m.options.clear())),
        ("another connection", change(&|m| m.port = 444)),
        ("no payload", change(&|m| m.payload.clear())),
        ("FIN", change(&|m| m.flags |= 1)),
        ("ECE", change(&|m| m.flags |= 0x40)),
        ("CWR", change(&|m| m.flags |= 0x80)),
        ("the other version", change(&|m| m.v6 = true)),
    ] {
        assert_eq!(joined(&[bytes(&base), packet]).1, 1, "{what}");
    }
    for (what, at) in [
        ("another TTL", 8),
        ("another class", 1),
        ("a damaged byte", 70),
    ] {
        let mut packet = bytes(&next);
        packet[at] ^= 2;
        let sum = {
            packet[10..12].fill(0);
            checksum(&packet[..20])
        };
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(joined(&[bytes(&base), packet]).1, 1, "{what}");
    }
    let mut fragment = bytes(&next);
    fragment[6] = 0x20;
    assert_eq!(Segment::read(&fragment), None);
}

#[test]
fn a_short_or_pushed_segment_is_the_last() {
    let mut pushed = plain(1100, 100);
    pushed.flags |= PSH;
    for last in [plain(1100, 99), pushed] {
        let after = 1100 + last.payload.len() as u32;
        let packets = [plain(1000, 100), last, plain(after, 50)].map(|m| bytes(&m));
        assert_eq!(joined(&packets).1, 2);
    }
}

#[test]
fn a_train_has_its_bounds() {
    let many: Vec<Vec<u8>> = (0..100).map(|i| bytes(&plain(i * 10, 10))).collect();
    assert_eq!(joined(&many).1, MOST);
    let large: Vec<Vec<u8>> = (0..60).map(|i| bytes(&plain(i * 1400, 1400))).collect();
    let (whole, count) = joined(&large);
    assert_eq!(count, (65_535 - 52) / 1400);
    assert!(whole.len() <= VNET_HEADER + 65_535);
}

proptest! {
    #[test]
    fn what_was_joined_is_cut_into_the_same(
        v6: bool,
        start: u32,
        size in 1usize..1500,
        count in 1usize..50,
        last in 1usize..1500,
        push: bool,
        options in 0usize..10,
    ) {
        let mut sequence = start;
        let packets: Vec<Vec<u8>> = (0..count).map(|number| {
            let length = if number + 1 == count { last.min(size) } else { size };
            let mut made = plain(sequence, length);
            made.v6 = v6;
            made.options = vec![1; options * 4];
            if push && number + 1 == count {
                made.flags |= PSH;
            }
            sequence = sequence.wrapping_add(length as u32);
            bytes(&made)
        }).collect();
        let (whole, joined) = joined(&packets);
        prop_assert_eq!(cut(&whole), packets[..joined].to_vec());
    }

    #[test]
    fn nothing_panics(packet in proptest::collection::vec(any::<u8>(), 0..200), first: bool) {
        let mut packet = packet;
        if let (true, Some(version)) = (first, packet.first_mut()) {
            *version = 0x45;
        }
        if let Some(segment) = Segment::read(&packet) {
            let mut train = Train::begin(segment, &packet).unwrap();
            let _ = train.append(&segment, &packet);
        }
    }
}
