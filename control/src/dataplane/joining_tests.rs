//! What a device gets, which is a pipe of packets here: each write is one.

use std::os::unix::net::UnixDatagram;

use super::*;
use crate::dataplane::net::checksum::{checksum, transport_v4};
use crate::dataplane::xsk::HEADROOM;

/// A TCP segment of 10.0.0.1, from `port`; no payload: an acknowledgement.
fn segment(port: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    (tcp[12], tcp[13]) = (0x50, 0x10);
    tcp.extend(payload);
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 130].into());
    let sum = transport_v4(a, b, 6, &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![
        0x45,
        0,
        0,
        (20 + tcp.len()) as u8,
        0,
        0,
        0x40,
        0,
        64,
        6,
        0,
        0,
        10,
        0,
        0,
        1,
        10,
        0,
        0,
        130,
    ];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [ip, tcp].concat()
}

struct Host {
    joining: Joining,
    umem: Umem,
    device: UnixDatagram,
    host: UnixDatagram,
}

impl Host {
    fn new() -> Self {
        let (device, host) = UnixDatagram::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        Self {
            joining: Joining::new(),
            umem: Umem::new(256).unwrap(),
            device,
            host,
        }
    }

    fn send(&mut self, packet: &[u8]) -> usize {
        let mut frame = self.umem.take().unwrap();
        frame.set_range(HEADROOM..HEADROOM + packet.len());
        self.umem.packet(&frame).copy_from_slice(packet);
        self.joining.send(&self.device, &mut self.umem, frame)
    }

    fn flush(&mut self) -> usize {
        self.joining.flush(&self.device, &mut self.umem)
    }

    /// Payloads of what was written since: of each packet all that is behind its headers.
    fn got(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(length) = self.host.recv(&mut buffer) {
            let text = &buffer[VNET_HEADER + 40..length];
            all.push(String::from_utf8_lossy(text).into_owned());
        }
        all
    }
}

#[test]
fn segments_of_one_stream_are_one_write() {
    let mut host = Host::new();
    for (sequence, text) in [(0, "abcd"), (4, "efgh"), (8, "ij")] {
        assert_eq!(host.send(&segment(443, sequence, text.as_bytes())), 0);
    }
    assert_eq!(host.got(), ["abcdefghij"], "a shorter one ends it at once");
    host.send(&segment(443, 10, b"klmn"));
    assert_eq!(host.got(), [""; 0]);
    host.flush();
    assert_eq!(host.got(), ["klmn"]);
    assert_eq!(host.umem.free_chunks(), 256);
}

#[test]
fn each_stream_keeps_its_order() {
    let mut host = Host::new();
    host.send(&segment(1, 0, b"aaaa"));
    host.send(&segment(2, 0, b"AAAA"));
    host.send(&segment(1, 4, b"bbbb"));
    host.send(&segment(2, 4, b"BBBB"));
    // A gap: what is before it goes first.
    host.send(&segment(1, 99, b"cccc"));
    assert_eq!(host.got(), ["aaaabbbb"]);
    // Nothing that is not joined overtakes.
    host.send(&segment(2, 8, b""));
    let got = host.got();
    assert_eq!(got.last().unwrap(), "");
    assert!(got.contains(&"AAAABBBB".into()) && got.contains(&"cccc".into()));
    assert_eq!(host.umem.free_chunks(), 256);
}

#[test]
fn more_streams_than_are_joined_are_written_all_the_same() {
    let mut host = Host::new();
    for round in 0..2u32 {
        for port in 0..20u16 {
            host.send(&segment(port, round * 4, b"text"));
        }
    }
    host.flush();
    assert_eq!(host.got().concat().len(), 2 * 20 * 4);
    assert_eq!(host.umem.free_chunks(), 256);
}

#[test]
fn what_the_device_refuses_is_counted_and_freed() {
    let mut host = Host::new();
    let (device, gone) = UnixDatagram::pair().unwrap();
    drop(gone);
    host.device = device;
    for number in 0..3 {
        assert_eq!(host.send(&segment(443, number * 4, b"text")), 0);
    }
    assert_eq!(host.flush(), 3);
    assert_eq!(host.send(&segment(443, 0, b"")), 1);
    assert_eq!(host.umem.free_chunks(), 256);
}
