//! TCP segments that continue each other become one large packet, which a TUN device takes in one write
//! (virtio specification 1.2, section 5.1.6: what a receiver does with `gso_type`).
//!
//! Only what the kernel can cut again into the same segments is joined: the same addresses, ports, flags,
//! window, acknowledgement and options, one payload after the other, all but the last of one size. Each
//! segment's checksum is looked at before, because nobody looks at it afterwards.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::checksum::{checksum, pseudo_v4, pseudo_v6, transport_v4, transport_v6};
use super::frame::{take, take_u16};
use super::ip::TCP;

/// Length of the virtio-net header before each packet, in bytes.
pub const VNET_HEADER: usize = 10;
/// Most segments of one packet.
pub const MOST: usize = 64;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT_ONLY: u16 = 0x4000;
/// IPv6 and the longest TCP header.
const LONGEST_HEADERS: usize = 40 + 60;
/// An IP packet has no more bytes.
const LONGEST_PACKET: usize = 65_535;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the sum of the pseudo header.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;

/// Which connection a segment belongs to, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    source: IpAddr,
    destination: IpAddr,
    /// Of source and destination, as they stand on the wire.
    ports: [u8; 4],
}

/// A TCP segment with payload that may be joined with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub flow: Flow,
    /// Length of the IP header.
    ip: usize,
    /// Length of both headers: where the payload begins.
    headers: usize,
    /// Length of the payload.
    payload: usize,
    sequence: u32,
    push: bool,
}

impl Segment {
    /// `None` for what is no TCP segment, has no payload, options of IPv4, extension headers of IPv6,
    /// other flags than ACK and PSH, or a wrong checksum.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (ip, source, destination) = match packet.first()? {
            0x45 => {
                let whole = usize::from(take_u16(packet, 2)?) == packet.len();
                let unfragmented = take_u16(packet, 6)? & !DONT_FRAGMENT_ONLY == 0;
                if !whole || !unfragmented || *packet.get(9)? != TCP {
                    return None;
                }
                (
                    20,
                    IpAddr::from(take::<4>(packet, 12)?),
                    IpAddr::from(take::<4>(packet, 16)?),
                )
            }
            first if first >> 4 == 6 => {
                let whole = usize::from(take_u16(packet, 4)?) + 40 == packet.len();
                if !whole || *packet.get(6)? != TCP {
                    return None;
                }
                (
                    40,
                    IpAddr::from(take::<16>(packet, 8)?),
                    IpAddr::from(take::<16>(packet, 24)?),
                )
            }
            _ => return None,
        };
        let segment = packet.get(ip..)?;
        let [offset, flags] = take(segment, 12)?;
        let length = usize::from(offset >> 4) * 4;
        let payload = segment.len().checked_sub(length)?;
        if length < 20 || payload == 0 || flags & !PSH != ACK {
            return None;
        }
        let sum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                transport_v4(source, destination, TCP, segment)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                transport_v6(source, destination, TCP, segment)
            }
            _ => return None,
        };
        (sum == 0).then_some(Self {
            flow: Flow {
                source,
                destination,
                ports: take(segment, 0)?,
            },
            ip,
            headers: ip + length,
            payload,
            sequence: u32::from_be_bytes(take(segment, 4)?),
            push: flags & PSH != 0,
        })
    }

    /// Where the payload begins.
    #[must_use]
    pub fn headers(&self) -> usize {
        self.headers
    }
}

/// Segments of one flow, each of which continues the one before.
#[derive(Debug)]
pub struct Train {
    first: Segment,
    /// The first one's headers.
    headers: ArrayVec<u8, LONGEST_HEADERS>,
    segments: usize,
    /// Of all payloads.
    payload: usize,
    push: bool,
}

impl Train {
    /// Begins with a segment, of which `packet` is the whole packet.
    #[must_use]
    pub fn begin(segment: Segment, packet: &[u8]) -> Option<Self> {
        Some(Self {
            first: segment,
            headers: ArrayVec::try_from(packet.get(..segment.headers)?).ok()?,
            segments: 1,
            payload: segment.payload,
            push: segment.push,
        })
    }

    /// Length of the headers of each segment.
    #[must_use]
    pub fn headers(&self) -> usize {
        self.first.headers
    }

    #[must_use]
    pub fn flow(&self) -> Flow {
        self.first.flow
    }

    /// Whether nothing can follow any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        // One that is shorter than the first ends the train; so does what is to be pushed.
        self.push || self.payload % self.first.payload != 0 || self.segments >= MOST
    }

    /// Appends a segment if it continues the train.
    #[must_use]
    pub fn append(&mut self, segment: &Segment, packet: &[u8]) -> bool {
        let payload = self.payload + segment.payload;
        let next = u32::try_from(self.payload).map(|sent| self.first.sequence.wrapping_add(sent));
        let continues = !self.is_complete()
            && next == Ok(segment.sequence)
            && segment.payload <= self.first.payload
            && self.first.headers + payload <= LONGEST_PACKET
            && packet
                .get(..segment.headers)
                .is_some_and(|headers| same(&self.headers, headers, self.first.ip));
        if continues {
            self.segments += 1;
            self.payload = payload;
            self.push = segment.push;
        }
        continues
    }

    /// Writes the virtio-net header and the headers of the large packet, which the payloads of all
    /// segments follow, over those of the first segment: `before` is its virtio-net header and its own
    /// headers. `None` if that is not so.
    #[must_use]
    pub fn finish(&self, before: &mut [u8]) -> Option<()> {
        let (vnet, headers) = before.split_at_mut_checked(VNET_HEADER)?;
        if headers.len() != self.first.headers {
            return None;
        }
        let ip = self.first.ip;
        let length = self.first.headers + self.payload;
        let transport = length - ip;
        let sum = match (self.first.flow.source, self.first.flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(length).ok()?;
                headers.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
                headers.get_mut(10..12)?.fill(0);
                let sum = checksum(headers.get(..ip)?);
                headers.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
                pseudo_v4(source, destination, TCP, transport)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let payload = u16::try_from(transport).ok()?;
                headers
                    .get_mut(4..6)?
                    .copy_from_slice(&payload.to_be_bytes());
                pseudo_v6(source, destination, TCP, transport)
            }
            _ => return None,
        };
        let tcp = headers.get_mut(ip..)?;
        if self.push {
            *tcp.get_mut(13)? |= PSH;
        }
        tcp.get_mut(16..18)?.copy_from_slice(&sum.to_be_bytes());
        let kind = if ip == 20 { TCP_V4 } else { TCP_V6 };
        let word = |value: usize| u16::try_from(value).map(u16::to_ne_bytes).ok();
        vnet.get_mut(..2)?.copy_from_slice(&[NEEDS_CHECKSUM, kind]);
        for (at, value) in [
            (2, self.first.headers),
            (4, self.first.payload),
            (6, ip),
            // Of the checksum within the TCP header.
            (8, 16),
        ] {
            vnet.get_mut(at..at + 2)?.copy_from_slice(&word(value)?);
        }
        Some(())
    }
}

/// Whether two segments' headers are the same but for what differs from one segment of a train to the
/// next: lengths, the identification of IPv4, sequence number, checksums and PSH.
fn same(a: &[u8], b: &[u8], ip: usize) -> bool {
    let differs = |at: usize| {
        let own = match ip {
            20 => matches!(at, 2..6 | 10..12),
            _ => matches!(at, 4..6),
        };
        own || at
            .checked_sub(ip)
            .is_some_and(|tcp| matches!(tcp, 4..8 | 16..18))
    };
    let flags = ip + 13;
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .enumerate()
            .all(|(at, (a, b))| a == b || differs(at) || (at == flags && (a ^ b) & !PSH == 0))
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
