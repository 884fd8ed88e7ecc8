//! The header parser: Ethernet, one VLAN tag, IPv4 and IPv6 up to the transport header.
//!
//! It reads through [`Bytes`], a bounds-checked cursor, and so runs over a slice on the host and
//! over an XDP context in the kernel. Every length from the wire is checked before it is used.

mod class;

use crate::wire::*;

pub use class::{Class, Esp, UdpEncap, classify, source_routed};

/// Bytes that can be read at an offset, if they are there.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Bytes in the packet.
    fn length(&self) -> usize;
}

/// Bytes that can be written too.
pub trait BytesMut: Bytes {
    /// Writes `N` bytes at `offset`; `None`, with nothing written, if the packet ends before.
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

impl BytesMut for [u8] {
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }
}

/// IPv6 extension headers that are followed; a packet with more of them is [`Class::Other`].
pub const MAX_EXTENSIONS: usize = 6;
/// The transport header starts at most here; a packet with more headers is [`Class::Other`].
pub const MAX_HEADERS: usize = 512;

/// Why a packet is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The frame ends inside a header.
    Truncated,
    /// The IP version does not go with the EtherType.
    Version,
    /// An IPv4 header of less than 20 bytes.
    HeaderLength,
    /// The IP packet claims to be longer than the frame, or shorter than its headers.
    TotalLength,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Malformed::Truncated => "the frame ends inside a header",
            Malformed::Version => "the IP version does not go with the EtherType",
            Malformed::HeaderLength => "an IPv4 header of less than 20 bytes",
            Malformed::TotalLength => "the IP length goes neither with the frame nor the headers",
        })
    }
}

impl core::error::Error for Malformed {}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    None,
    /// The first fragment: the transport header is there.
    First,
    /// A later fragment: no transport header.
    Later,
}

/// A parsed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Link destination.
    pub mac_destination: [u8; 6],
    /// Link source.
    pub mac_source: [u8; 6],
    /// Tag control information of the one VLAN tag.
    pub vlan: Option<u16>,
    /// EtherType behind the tag, host order.
    pub ether_type: u16,
    /// Offset of the network header in the frame.
    pub l3: usize,
    /// The IP header, if the frame is IP.
    pub ip: Option<Ip>,
}

/// A parsed IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IP version.
    pub family: Family,
    /// Source, IPv4 as ::ffff:a.b.c.d.
    pub source: [u8; 16],
    /// Destination, IPv4 as ::ffff:a.b.c.d.
    pub destination: [u8; 16],
    /// Type of service, traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Bytes of the IPv4 header with options; of the IPv6 header with the extension headers that
    /// were followed.
    pub header_len: usize,
    /// Bytes of the IP packet, headers included; never more than the frame holds.
    pub total_len: usize,
    /// Protocol of the transport header; for a fragment, of the fragmented packet.
    pub protocol: u8,
    /// Which part of a packet this is.
    pub fragment: Fragment,
    /// An IPv6 routing header with segments left: the packet is not at its final destination.
    /// IPv4 source routes are found by [`source_routed`].
    pub segments_left: bool,
    /// Offset of the transport header (or of the fragment's data) in the frame.
    pub l4: usize,
}

impl Ip {
    /// Bytes behind the IP headers.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        self.total_len.saturating_sub(self.header_len)
    }
}

/// Parses a frame up to its transport header.
///
/// # Errors
/// [`Malformed`] if headers are cut short or lengths are wrong. A frame of an unknown EtherType is
/// well formed, with `ip` empty.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B) -> Result<Parsed, Malformed> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] =
        bytes.read::<ETHERNET_LEN>(0).ok_or(Malformed::Truncated)?;
    let mut ether_type = u16::from_be_bytes([t0, t1]);
    let mut l3 = ETHERNET_LEN;
    let mut vlan = None;
    if ether_type == ETHERTYPE_VLAN || ether_type == ETHERTYPE_SERVICE_VLAN {
        let [c0, c1, t0, t1] = bytes.read::<VLAN_LEN>(l3).ok_or(Malformed::Truncated)?;
        vlan = Some(u16::from_be_bytes([c0, c1]));
        ether_type = u16::from_be_bytes([t0, t1]);
        l3 = ETHERNET_LEN + VLAN_LEN;
    }
    let ip = match ether_type {
        ETHERTYPE_IPV4 => Some(parse_v4(bytes, l3)?),
        ETHERTYPE_IPV6 => Some(parse_v6(bytes, l3)?),
        _ => None,
    };
    Ok(Parsed {
        mac_destination: [d0, d1, d2, d3, d4, d5],
        mac_source: [s0, s1, s2, s3, s4, s5],
        vlan,
        ether_type,
        l3,
        ip,
    })
}

/// RFC 791 section 3.1.
#[inline(always)]
fn parse_v4<B: Bytes + ?Sized>(bytes: &B, l3: usize) -> Result<Ip, Malformed> {
    let [
        version_ihl,
        traffic_class,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        ttl,
        protocol,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = bytes.read::<IPV4_LEN>(l3).ok_or(Malformed::Truncated)?;
    if version_ihl >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let header_len = usize::from(version_ihl & 0x0F) * 4;
    if header_len < IPV4_LEN {
        return Err(Malformed::HeaderLength);
    }
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    if total_len < header_len || l3 + total_len > bytes.length() {
        return Err(Malformed::TotalLength);
    }
    let flags_offset = u16::from_be_bytes([f0, f1]);
    let fragment = match (flags_offset & 0x1FFF, flags_offset & 0x2000 != 0) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Ip {
        family: Family::V4,
        source: v4_mapped([s0, s1, s2, s3]),
        destination: v4_mapped([d0, d1, d2, d3]),
        traffic_class,
        ttl,
        header_len,
        total_len,
        protocol,
        fragment,
        segments_left: false,
        l4: l3 + header_len,
    })
}

/// RFC 8200 sections 3 and 4.
#[inline(always)]
fn parse_v6<B: Bytes + ?Sized>(bytes: &B, l3: usize) -> Result<Ip, Malformed> {
    let [v0, v1, _, _, l0, l1, next, ttl] = bytes.read::<8>(l3).ok_or(Malformed::Truncated)?;
    if v0 >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let source = bytes.read::<16>(l3 + 8).ok_or(Malformed::Truncated)?;
    let destination = bytes.read::<16>(l3 + 24).ok_or(Malformed::Truncated)?;
    let total_len = IPV6_LEN + usize::from(u16::from_be_bytes([l0, l1]));
    if l3 + total_len > bytes.length() {
        return Err(Malformed::TotalLength);
    }
    let mut header_len = IPV6_LEN;
    let mut protocol = next;
    let mut fragment = Fragment::None;
    let mut segments_left = false;
    for _ in 0..MAX_EXTENSIONS {
        let extension = matches!(
            protocol,
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION_OPTIONS
        );
        // Behind the header of a later fragment is data, not a header.
        if !extension || fragment == Fragment::Later || header_len > MAX_HEADERS - 64 {
            break;
        }
        let [next, len, a, b, ..] = bytes
            .read::<8>(l3 + header_len)
            .ok_or(Malformed::Truncated)?;
        header_len += match protocol {
            IPV6_FRAGMENT => {
                let offset_more = u16::from_be_bytes([a, b]);
                fragment = match (offset_more >> 3, offset_more & 1 != 0) {
                    // An atomic fragment (RFC 6946) is a whole packet.
                    (0, false) => fragment,
                    (0, true) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => {
                segments_left |= protocol == IPV6_ROUTING && b != 0;
                8 + usize::from(len) * 8
            }
        };
        protocol = next;
        if header_len > total_len {
            return Err(Malformed::TotalLength);
        }
    }
    Ok(Ip {
        family: Family::V6,
        source,
        destination,
        traffic_class: (v0 << 4) | (v1 >> 4),
        ttl,
        header_len,
        total_len,
        protocol,
        fragment,
        segments_left,
        l4: l3 + header_len,
    })
}

/// The 16-byte form of an IPv4 address.
#[inline(always)]
pub const fn v4_mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d]
}
