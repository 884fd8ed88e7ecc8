//! Packets for the tests of the XDP programs, built byte by byte, and what the programs may do.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses some of it"
)]

pub mod host;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate_common::{checksum, wire::*};

pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;

pub(crate) const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xA];
pub(crate) const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xB];
pub(crate) const SPI: u32 = 0x1122_3344;
pub(crate) const KEY: [u8; 16] = *b"a heartbeat key!";
pub(crate) const TOKEN: [u8; 8] = *b"a token.";

pub(crate) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// Fails, with a sentence, where the kernel would refuse anyhow.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test loads BPF programs into the kernel: it needs root (CAP_BPF, CAP_PERFMON, \
         CAP_NET_ADMIN)"
    );
}

/// A frame to be built.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub mac_source: [u8; 6],
    pub mac_destination: [u8; 6],
    pub vlan: Option<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    /// IPv4: flags and fragment offset as on the wire. IPv6: not used.
    pub fragment: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: type, and the whole header with a next header of 0.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    /// Ports of a UDP header around the payload, and whether it gets a checksum.
    pub udp: Option<(u16, u16, bool)>,
    pub payload: Vec<u8>,
}

impl Frame {
    /// From the client to the gateway, over IPv4.
    pub(crate) fn v4(protocol: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            mac_source: MAC_A,
            mac_destination: MAC_B,
            vlan: None,
            source: CLIENT_V4.into(),
            destination: GATEWAY_V4.into(),
            ttl: 64,
            tos: 0xB8,
            fragment: 0x4000,
            options: Vec::new(),
            extensions: Vec::new(),
            protocol,
            udp: None,
            payload: payload.into(),
        }
    }

    /// From the client to the gateway, over IPv6.
    pub(crate) fn v6(protocol: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            source: CLIENT_V6.into(),
            destination: GATEWAY_V6.into(),
            ..Frame::v4(protocol, payload)
        }
    }

    /// The same in UDP port 4500.
    pub(crate) fn in_udp(mut self, checksum: bool) -> Frame {
        self.protocol = IPPROTO_UDP;
        self.udp = Some((40_000, PORT_NAT_T, checksum));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.mac_destination, self.mac_source].concat();
        if let Some(tag) = self.vlan {
            frame.extend(ETHERTYPE_VLAN.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                let header_len = IPV4_LEN + self.options.len();
                let total = (header_len + transport.len()) as u16;
                let mut header = vec![0x40 | (header_len / 4) as u8, self.tos];
                header.extend(total.to_be_bytes());
                header.extend([0x12, 0x34]);
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.ttl, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = checksum::ipv4_header(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                let mut types: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
                types.push(self.protocol);
                let mut chain = Vec::new();
                for ((_, header), next) in self.extensions.iter().zip(&types[1..]) {
                    let start = chain.len();
                    chain.extend(header);
                    chain[start] = *next;
                }
                let length = (chain.len() + transport.len()) as u16;
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([types[0], self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(chain);
            }
            _ => panic!("a packet of two families"),
        }
        frame.extend(transport);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let Some((source, destination, with_checksum)) = self.udp else {
            return self.payload.clone();
        };
        let length = (UDP_LEN + self.payload.len()) as u16;
        let mut datagram = Vec::new();
        datagram.extend(source.to_be_bytes());
        datagram.extend(destination.to_be_bytes());
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(&self.payload);
        if with_checksum {
            let sum = match udp_checksum(self.source, self.destination, &datagram) {
                0 => 0xFFFF,
                sum => sum,
            };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        datagram
    }
}

/// The checksum over pseudo header and datagram; 0 if the one in the datagram is right.
pub(crate) fn udp_checksum(source: IpAddr, destination: IpAddr, datagram: &[u8]) -> u16 {
    let mut sum = u32::from(IPPROTO_UDP) + datagram.len() as u32;
    for ip in [source, destination] {
        sum = match ip {
            IpAddr::V4(v4) => checksum::sum(&v4.octets(), sum),
            IpAddr::V6(v6) => checksum::sum(&v6.octets(), sum),
        };
    }
    !checksum::fold(checksum::sum(datagram, sum))
}

/// An ESP packet with a made-up body.
pub(crate) fn esp(spi: u32, sequence: u32) -> Vec<u8> {
    let mut packet = spi.to_be_bytes().to_vec();
    packet.extend(sequence.to_be_bytes());
    packet.extend([0x5A; 48]);
    packet
}

/// A plain heartbeat request.
pub(crate) fn plain(counter: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = evergate_common::heartbeat::encode_plain(counter).to_vec();
    packet.extend(payload);
    packet
}

/// A keyed heartbeat request for [`SPI`] under [`KEY`].
pub(crate) fn keyed(counter: u32) -> Vec<u8> {
    evergate_common::heartbeat::encode_request(&KEY, counter, SPI.to_be_bytes(), TOKEN).to_vec()
}

/// An ARP packet.
pub(crate) fn arp(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xFF; 6], MAC_A].concat();
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(MAC_A);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A program that answers both forms, to peers only.
pub(crate) fn pair() -> host::OutsidePair {
    host::OutsidePair::new(true, true, false)
}

/// A payload over both families, bare and in UDP, and with a VLAN tag.
pub(crate) fn dressed(payload: &[u8]) -> Vec<Frame> {
    let bare = [
        Frame::v4(IPPROTO_ESP, payload),
        Frame::v6(IPPROTO_ESP, payload),
    ];
    let mut frames = Vec::new();
    for frame in bare {
        frames.push(frame.clone());
        frames.push(frame.clone().in_udp(true));
        frames.push(frame.clone().in_udp(false));
        frames.push(Frame {
            vlan: Some(0x2064),
            ..frame.clone()
        });
        match frame.source {
            // A router alert (RFC 2113): harmless.
            IpAddr::V4(_) => frames.push(Frame {
                options: vec![148, 4, 0, 0],
                ..frame
            }),
            IpAddr::V6(_) => {
                let options = vec![0, 0, 1, 4, 0, 0, 0, 0];
                let extensions = vec![
                    (IPV6_HOP_BY_HOP, options.clone()),
                    (IPV6_ROUTING, vec![0, 0, 4, 0, 0, 0, 0, 0]),
                    (IPV6_DESTINATION_OPTIONS, options),
                ];
                frames.push(Frame {
                    extensions,
                    ..frame
                });
            }
        }
    }
    frames
}
