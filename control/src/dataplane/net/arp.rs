//! ARP for IPv4 over Ethernet (RFC 826) with the announcements of RFC 5227.

use std::net::Ipv4Addr;

use super::frame::{BROADCAST, ETHERTYPE_ARP, Ethernet, Mac, Tag, is_station, take, take_u16};

/// Length of an ARP packet for IPv4 over Ethernet.
const LENGTH: usize = 28;

/// The operation field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Request,
    Reply,
}

impl Operation {
    const fn wire(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// Why a frame is no ARP packet that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotArp {
    #[error("the frame ends inside a header")]
    Short,
    #[error("ethertype {0:#06x} is not ARP (0x0806)")]
    Ethertype(u16),
    #[error("not ARP for IPv4 over Ethernet")]
    Kind,
    #[error("operation {0} is neither request (1) nor reply (2)")]
    Operation(u16),
    #[error("the sender's MAC is a group address or zero")]
    Sender,
}

/// A checked ARP packet and the Ethernet header that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    pub ethernet: Ethernet,
    pub operation: Operation,
    /// Never a group address, never zero.
    pub sender_mac: Mac,
    /// Unspecified in a probe (RFC 5227 section 2.1.1).
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Parses a whole Ethernet frame, with or without one VLAN tag. Padding is ignored.
    ///
    /// # Errors
    /// What is wrong with the frame, the first thing found.
    pub fn parse(frame: &[u8]) -> Result<Self, NotArp> {
        let (ethernet, arp) = Ethernet::parse(frame).ok_or(NotArp::Short)?;
        if ethernet.ethertype != ETHERTYPE_ARP {
            return Err(NotArp::Ethertype(ethernet.ethertype));
        }
        // Hardware type 1 (Ethernet), protocol 0x0800, lengths 6 and 4.
        if take::<6>(arp, 0).ok_or(NotArp::Short)? != [0, 1, 8, 0, 6, 4] {
            return Err(NotArp::Kind);
        }
        let operation = match take_u16(arp, 6).ok_or(NotArp::Short)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(NotArp::Operation(other)),
        };
        let fields = || {
            Some(Self {
                ethernet,
                operation,
                sender_mac: take(arp, 8)?,
                sender: take::<4>(arp, 14)?.into(),
                target_mac: take(arp, 18)?,
                target: take::<4>(arp, 24)?.into(),
            })
        };
        let packet = fields().ok_or(NotArp::Short)?;
        if !is_station(packet.sender_mac) {
            return Err(NotArp::Sender);
        }
        Ok(packet)
    }

    /// Whether the sender announces an address rather than asking for another's: sender and
    /// target are the same address (RFC 5227 section 3), in a request or a reply.
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target && !self.sender.is_unspecified()
    }

    /// Writes the answer to this request: `target` is at `mac`. The VLAN tag is kept. Returns the
    /// length of the frame; `None` if this is no request or `out` is shorter than 60 bytes
    /// (64 bytes with a tag hold any frame of this module).
    pub fn reply(&self, mac: Mac, out: &mut [u8]) -> Option<usize> {
        if self.operation != Operation::Request {
            return None;
        }
        write(
            &Self {
                ethernet: Ethernet {
                    destination: self.sender_mac,
                    source: mac,
                    ..self.ethernet
                },
                operation: Operation::Reply,
                sender_mac: mac,
                sender: self.target,
                target_mac: self.sender_mac,
                // A probe has sender 0.0.0.0, which is what RFC 826 has us copy here.
                target: self.sender,
            },
            out,
        )
    }
}

/// Writes a gratuitous announcement that `address` is at `mac`, to all stations. `Request` is the
/// form of RFC 5227 section 2.3 (target MAC zero); `Reply` the older one that some stacks need.
/// Returns the length of the frame, `None` if `out` is shorter than 60 bytes.
pub fn announcement(
    operation: Operation,
    address: Ipv4Addr,
    mac: Mac,
    tag: Option<Tag>,
    out: &mut [u8],
) -> Option<usize> {
    write(
        &Arp {
            ethernet: Ethernet {
                destination: BROADCAST,
                source: mac,
                tag,
                ethertype: ETHERTYPE_ARP,
            },
            operation,
            sender_mac: mac,
            sender: address,
            target_mac: match operation {
                Operation::Request => [0; 6],
                Operation::Reply => mac,
            },
            target: address,
        },
        out,
    )
}

fn write(arp: &Arp, out: &mut [u8]) -> Option<usize> {
    let mut packet = [0; LENGTH];
    packet[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
    packet[6..8].copy_from_slice(&arp.operation.wire().to_be_bytes());
    packet[8..14].copy_from_slice(&arp.sender_mac);
    packet[14..18].copy_from_slice(&arp.sender.octets());
    packet[18..24].copy_from_slice(&arp.target_mac);
    packet[24..28].copy_from_slice(&arp.target.octets());
    arp.ethernet.write(&packet, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpEthIpv4Packet, ArpOperation, SlicedPacket};
    use proptest::prelude::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

    /// What another implementation reads from the frame.
    fn oracle(frame: &[u8]) -> ArpEthIpv4Packet {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else {
            panic!("no ARP: {sliced:?}")
        };
        ArpEthIpv4Packet::try_from(arp.to_packet()).unwrap()
    }

    fn request(tag: Option<Tag>, sender: Ipv4Addr) -> Vec<u8> {
        let mut out = [0; 64];
        let ethernet = Ethernet {
            destination: BROADCAST,
            source: THEIRS,
            tag,
            ethertype: ETHERTYPE_ARP,
        };
        let arp = Arp {
            ethernet,
            operation: Operation::Request,
            sender_mac: THEIRS,
            sender,
            target_mac: [0; 6],
            target: ADDRESS,
        };
        let length = write(&arp, &mut out).unwrap();
        assert_eq!(Arp::parse(&out[..length]), Ok(arp));
        out[..length].to_vec()
    }

    #[test]
    fn a_request_gets_its_answer() {
        for (tag, sender) in [
            (None, HOST),
            (Some(Tag::vlan(42)), HOST),
            (None, Ipv4Addr::UNSPECIFIED),
        ] {
            let mut out = [0xaa; 64];
            let asked = Arp::parse(&request(tag, sender)).unwrap();
            let length = asked.reply(OURS, &mut out).unwrap();
            let answer = oracle(&out[..length]);
            assert_eq!(answer.operation, ArpOperation::REPLY);
            assert_eq!(answer.sender_mac, OURS);
            assert_eq!(answer.sender_ipv4, ADDRESS.octets());
            assert_eq!(answer.target_mac, THEIRS);
            assert_eq!(answer.target_ipv4, sender.octets());
            let back = Arp::parse(&out[..length]).unwrap();
            assert_eq!(back.ethernet.tag, tag);
            assert_eq!(back.ethernet.destination, THEIRS);
            assert_eq!(back.reply(THEIRS, &mut out), None, "a reply gets no answer");
        }
    }

    #[test]
    fn both_forms_of_announcement() {
        let mut out = [0; 60];
        for (operation, target_mac) in [(Operation::Request, [0; 6]), (Operation::Reply, OURS)] {
            let length = announcement(operation, ADDRESS, OURS, None, &mut out).unwrap();
            let read = oracle(&out[..length]);
            assert_eq!(read.operation.0, operation.wire());
            assert_eq!(read.sender_ipv4, read.target_ipv4);
            assert_eq!((read.sender_mac, read.target_mac), (OURS, target_mac));
            let back = Arp::parse(&out[..length]).unwrap();
            assert!(back.is_gratuitous());
            assert_eq!(back.ethernet.destination, BROADCAST);
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = request(None, HOST);
        for length in 0..42 {
            assert_eq!(
                Arp::parse(&good[..length]),
                Err(NotArp::Short),
                "{length} bytes"
            );
        }
        let broken = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            Arp::parse(&frame)
        };
        assert_eq!(broken(13, 0x00), Err(NotArp::Ethertype(0x0800)));
        assert_eq!(broken(15, 6), Err(NotArp::Kind));
        assert_eq!(broken(18, 8), Err(NotArp::Kind));
        assert_eq!(broken(21, 3), Err(NotArp::Operation(3)));
        assert_eq!(broken(22, 3), Err(NotArp::Sender));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut frame = request(None, HOST);
            let _ = Arp::parse(&bytes);
            let length = bytes.len().min(frame.len());
            frame[12..length.max(12)].copy_from_slice(&bytes[12.min(length)..length]);
            if let Ok(arp) = Arp::parse(&frame) {
                let _ = arp.reply(OURS, &mut [0; 64]);
            }
        }
    }
}
