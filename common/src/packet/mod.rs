//! The header parser: Ethernet, one VLAN tag, IPv4 and IPv6 up to the transport header.
//!
//! It reads through [`Bytes`], a bounds-checked cursor, and so runs over a slice on the host and
//! over an XDP context in the kernel. Every length from the wire is checked before it is used.

mod class;
#[cfg(test)]
mod tests;

use crate::wire::*;

pub use class::{Class, Esp, UdpEncap, classify, source_routed};

/// Bytes that can be read at an offset, if they are there.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` if the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The same for an offset that comes out of the packet in many steps: the BPF verifier has lost
    /// track of its bounds.
    #[inline(always)]
    fn read_far<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.read(offset)
    }

    /// Bytes in the packet.
    fn length(&self) -> usize;

    /// The 16-bit number in network order at `offset`.
    #[inline(always)]
    fn read_u16(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_be_bytes)
    }

    /// The 32-bit number in network order at `offset`.
    #[inline(always)]
    fn read_u32(&self, offset: usize) -> Option<u32> {
        self.read(offset).map(u32::from_be_bytes)
    }
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
    let mac_destination = bytes.read(0).ok_or(Malformed::Truncated)?;
    let mac_source = bytes.read(6).ok_or(Malformed::Truncated)?;
    let mut ether_type = bytes.read_u16(12).ok_or(Malformed::Truncated)?;
    let mut l3 = ETHERNET_LEN;
    let mut vlan = None;
    if ether_type == ETHERTYPE_VLAN || ether_type == ETHERTYPE_SERVICE_VLAN {
        let tag = bytes.read_u32(l3).ok_or(Malformed::Truncated)?;
        vlan = Some((tag >> 16) as u16);
        ether_type = tag as u16;
        l3 = ETHERNET_LEN + VLAN_LEN;
    }
    let ip = match ether_type {
        ETHERTYPE_IPV4 => Some(parse_v4(bytes, l3)?),
        ETHERTYPE_IPV6 => Some(parse_v6(bytes, l3)?),
        _ => None,
    };
    Ok(Parsed {
        mac_destination,
        mac_source,
        vlan,
        ether_type,
        l3,
        ip,
    })
}

/// RFC 791 section 3.1.
#[inline(always)]
fn parse_v4<B: Bytes + ?Sized>(bytes: &B, l3: usize) -> Result<Ip, Malformed> {
    // Whole words rather than single bytes: the BPF stack has 512 bytes.
    let version_length = bytes.read_u32(l3).ok_or(Malformed::Truncated)?;
    let fragmentation = bytes.read_u32(l3 + 4).ok_or(Malformed::Truncated)?;
    let ttl_protocol = bytes.read_u32(l3 + 8).ok_or(Malformed::Truncated)?;
    let source = bytes.read(l3 + 12).ok_or(Malformed::Truncated)?;
    let destination = bytes.read(l3 + 16).ok_or(Malformed::Truncated)?;
    if version_length >> 28 != 4 {
        return Err(Malformed::Version);
    }
    let header_len = (version_length >> 24 & 0x0F) as usize * 4;
    if header_len < IPV4_LEN {
        return Err(Malformed::HeaderLength);
    }
    let total_len = (version_length & 0xFFFF) as usize;
    if total_len < header_len || l3 + total_len > bytes.length() {
        return Err(Malformed::TotalLength);
    }
    let fragment = match (fragmentation & 0x1FFF, fragmentation & 0x2000 != 0) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Ip {
        family: Family::V4,
        source: v4_mapped(source),
        destination: v4_mapped(destination),
        traffic_class: (version_length >> 16) as u8,
        ttl: (ttl_protocol >> 24) as u8,
        header_len,
        total_len,
        protocol: (ttl_protocol >> 16) as u8,
        fragment,
        segments_left: false,
        l4: l3 + header_len,
    })
}

/// RFC 8200 sections 3 and 4.
#[inline(always)]
fn parse_v6<B: Bytes + ?Sized>(bytes: &B, l3: usize) -> Result<Ip, Malformed> {
    let version_class = bytes.read_u32(l3).ok_or(Malformed::Truncated)?;
    let length_next_ttl = bytes.read_u32(l3 + 4).ok_or(Malformed::Truncated)?;
    if version_class >> 28 != 6 {
        return Err(Malformed::Version);
    }
    let source = bytes.read::<16>(l3 + 8).ok_or(Malformed::Truncated)?;
    let destination = bytes.read::<16>(l3 + 24).ok_or(Malformed::Truncated)?;
    let total_len = IPV6_LEN + (length_next_ttl >> 16) as usize;
    if l3 + total_len > bytes.length() {
        return Err(Malformed::TotalLength);
    }
    let first = (length_next_ttl >> 8) as u8;
    let chain = match first {
        IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION_OPTIONS => {
            Chain::unpack(follow_extensions(bytes, l3, first, total_len))?
        }
        _ => Chain::none(first),
    };
    Ok(Ip {
        family: Family::V6,
        source,
        destination,
        traffic_class: (version_class >> 20) as u8,
        ttl: length_next_ttl as u8,
        header_len: chain.header_len,
        total_len,
        protocol: chain.protocol,
        fragment: chain.fragment,
        segments_left: chain.segments_left,
        l4: l3 + chain.header_len,
    })
}

/// What a chain of IPv6 extension headers comes to.
struct Chain {
    header_len: usize,
    protocol: u8,
    fragment: Fragment,
    segments_left: bool,
}

impl Chain {
    const MALFORMED: u64 = u64::MAX;

    #[inline(always)]
    fn none(protocol: u8) -> Chain {
        Chain {
            header_len: IPV6_LEN,
            protocol,
            fragment: Fragment::None,
            segments_left: false,
        }
    }

    /// One register: a BPF subprogram returns no more.
    #[inline(always)]
    fn pack(&self) -> u64 {
        let fragment: u64 = match self.fragment {
            Fragment::None => 0,
            Fragment::First => 1,
            Fragment::Later => 2,
        };
        self.header_len as u64
            | u64::from(self.protocol) << 16
            | fragment << 24
            | u64::from(self.segments_left) << 32
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Result<Chain, Malformed> {
        if packed == Self::MALFORMED {
            return Err(Malformed::TotalLength);
        }
        Ok(Chain {
            header_len: packed as u16 as usize,
            protocol: (packed >> 16) as u8,
            fragment: match (packed >> 24) as u8 {
                0 => Fragment::None,
                1 => Fragment::First,
                _ => Fragment::Later,
            },
            segments_left: packed >> 32 != 0,
        })
    }
}

/// Follows at most [`MAX_EXTENSIONS`] extension headers; the result is a packed [`Chain`]. A
/// subprogram of its own in BPF, so that the common packet does not pay for it.
#[inline(never)]
fn follow_extensions<B: Bytes + ?Sized>(bytes: &B, l3: usize, first: u8, total_len: usize) -> u64 {
    let mut chain = Chain::none(first);
    for _ in 0..MAX_EXTENSIONS {
        let extension = matches!(
            chain.protocol,
            IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_FRAGMENT | IPV6_DESTINATION_OPTIONS
        );
        // Behind the header of a later fragment is data, not a header.
        let followed = chain.header_len <= MAX_HEADERS - 64 && chain.fragment != Fragment::Later;
        if !extension || !followed {
            break;
        }
        // Every extension header is at least 8 bytes long.
        let Some(header) = bytes.read(l3 + chain.header_len).map(u64::from_be_bytes) else {
            return Chain::MALFORMED;
        };
        let [len, high, low] = [
            header >> 48 & 0xFF,
            header >> 32 & 0xFFFF,
            header >> 32 & 0xFF,
        ];
        chain.header_len += if chain.protocol == IPV6_FRAGMENT {
            chain.fragment = match (high & 0xFFF8, high & 1) {
                // An atomic fragment (RFC 6946) is a whole packet.
                (0, 0) => chain.fragment,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            8
        } else {
            chain.segments_left |= chain.protocol == IPV6_ROUTING && low != 0;
            8 + len as usize * 8
        };
        chain.protocol = (header >> 56) as u8;
        if chain.header_len > total_len {
            return Chain::MALFORMED;
        }
    }
    chain.pack()
}

/// The 16-byte form of an IPv4 address.
#[inline(always)]
pub const fn v4_mapped(v4: [u8; 4]) -> [u8; 16] {
    (0xFFFF_0000_0000 | u32::from_be_bytes(v4) as u128).to_be_bytes()
}
