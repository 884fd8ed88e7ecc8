//! What a parsed frame is to evergate.

use super::{Bytes, Family, Fragment, Ip, MAX_HEADERS, Malformed, Parsed};
use crate::wire::*;

/// The UDP header around an ESP packet (RFC 3948 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpEncap {
    /// Source port, host order.
    pub source: u16,
    /// Destination port, host order.
    pub destination: u16,
    /// Checksum, host order; 0 is "none".
    pub checksum: u16,
    /// Offset of the UDP header in the frame.
    pub offset: usize,
}

/// An ESP header in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// SPI, network order.
    pub spi: [u8; 4],
    /// Sequence number, low half, network order.
    pub sequence: [u8; 4],
    /// Offset of the ESP header in the frame.
    pub offset: usize,
    /// Bytes from the ESP header to the end of the packet, at least 8.
    pub len: usize,
    /// The UDP header around it, if there is one.
    pub udp: Option<UdpEncap>,
}

/// What a frame is to evergate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// ESP, bare or in UDP 4500, with an SPI other than the heartbeat's.
    Esp(Esp),
    /// A heartbeat: ESP with SPI 0xFFFFFFFF.
    Heartbeat(Esp),
    /// Bare ESP that is a fragment.
    EspFragment,
    /// Bare ESP of less than 8 bytes.
    EspShort,
    /// UDP port 500, or port 4500 with the non-ESP marker (RFC 3948 section 2.2).
    Ike,
    /// A NAT keep-alive: one byte FF to UDP port 4500 (RFC 3948 section 2.3).
    KeepAlive,
    /// ARP for IPv4 on Ethernet.
    Arp {
        /// 1 = request, 2 = reply.
        operation: u16,
        /// Sender's protocol address.
        sender: [u8; 4],
        /// Target's protocol address.
        target: [u8; 4],
    },
    /// Neighbour solicitation or advertisement (RFC 4861 sections 4.3 and 4.4).
    Neighbour {
        /// True for a solicitation, false for an advertisement.
        solicitation: bool,
        /// The address that it is about.
        target: [u8; 16],
    },
    /// Anything else.
    Other,
}

/// Tells what a parsed frame is.
///
/// # Errors
/// [`Malformed`] if a transport header is cut short or its length is wrong.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(parsed: &Parsed, bytes: &B) -> Result<Class, Malformed> {
    let Some(ip) = &parsed.ip else {
        return match parsed.ether_type {
            ETHERTYPE_ARP => classify_arp(bytes, parsed.l3),
            _ => Ok(Class::Other),
        };
    };
    // A chain of headers so long is nobody's we know; the kernel may judge.
    if ip.l4 > MAX_HEADERS {
        return Ok(Class::Other);
    }
    match ip.protocol {
        IPPROTO_ESP => Ok(classify_esp(bytes, ip)),
        // The kernel can put fragments of UDP together; what comes out may be IKE.
        IPPROTO_UDP if ip.fragment == Fragment::None => classify_udp(bytes, ip),
        IPPROTO_ICMPV6 if ip.family == Family::V6 && ip.fragment == Fragment::None => {
            classify_icmpv6(bytes, ip)
        }
        _ => Ok(Class::Other),
    }
}

#[inline(always)]
fn esp_at<B: Bytes + ?Sized>(
    bytes: &B,
    offset: usize,
    len: usize,
    udp: Option<UdpEncap>,
) -> Option<Class> {
    if len < ESP_LEN {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = bytes.read::<ESP_LEN>(offset)?;
    let spi = [a, b, c, d];
    let esp = Esp {
        spi,
        sequence: [e, f, g, h],
        offset,
        len,
        udp,
    };
    Some(match u32::from_be_bytes(spi) {
        SPI_HEARTBEAT => Class::Heartbeat(esp),
        _ => Class::Esp(esp),
    })
}

#[inline(always)]
fn classify_esp<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Class {
    if ip.fragment != Fragment::None {
        return Class::EspFragment;
    }
    esp_at(bytes, ip.l4, ip.payload_len(), None).unwrap_or(Class::EspShort)
}

#[inline(always)]
fn classify_udp<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Result<Class, Malformed> {
    let payload = ip.payload_len();
    if payload < UDP_LEN {
        return Err(Malformed::TotalLength);
    }
    let ports = bytes.read_u32(ip.l4).ok_or(Malformed::Truncated)?;
    let length_checksum = bytes.read_u32(ip.l4 + 4).ok_or(Malformed::Truncated)?;
    let destination = ports as u16;
    if destination == PORT_IKE {
        return Ok(Class::Ike);
    }
    if destination != PORT_NAT_T {
        return Ok(Class::Other);
    }
    if (length_checksum >> 16) as usize != payload {
        return Err(Malformed::TotalLength);
    }
    let offset = ip.l4 + UDP_LEN;
    let len = payload - UDP_LEN;
    if len < 4 {
        return Ok(match (len, bytes.read::<1>(offset)) {
            (1, Some([0xFF])) => Class::KeepAlive,
            _ => Class::Other,
        });
    }
    let marker = bytes.read::<4>(offset).ok_or(Malformed::Truncated)?;
    if marker == [0; 4] {
        return Ok(Class::Ike);
    }
    let udp = UdpEncap {
        source: (ports >> 16) as u16,
        destination,
        checksum: length_checksum as u16,
        offset: ip.l4,
    };
    Ok(esp_at(bytes, offset, len, Some(udp)).unwrap_or(Class::EspShort))
}

/// RFC 826; only Ethernet and IPv4 are read.
#[inline(always)]
fn classify_arp<B: Bytes + ?Sized>(bytes: &B, l3: usize) -> Result<Class, Malformed> {
    let formats = bytes.read_u32(l3).ok_or(Malformed::Truncated)?;
    let lengths_operation = bytes.read_u32(l3 + 4).ok_or(Malformed::Truncated)?;
    // Ethernet and IPv4, addresses of 6 and 4 bytes.
    if formats != 0x0001_0800 || lengths_operation >> 16 != 0x0604 {
        return Ok(Class::Other);
    }
    let sender = bytes.read::<4>(l3 + 14).ok_or(Malformed::Truncated)?;
    let target = bytes.read::<4>(l3 + 24).ok_or(Malformed::Truncated)?;
    Ok(match lengths_operation as u16 {
        operation @ (ARP_REQUEST | ARP_REPLY) => Class::Arp {
            operation,
            sender,
            target,
        },
        _ => Class::Other,
    })
}

/// RFC 4861: a message about a neighbour has a hop limit of 255 and a code of 0, or is ignored.
#[inline(always)]
fn classify_icmpv6<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Result<Class, Malformed> {
    let payload = ip.payload_len();
    if payload < 2 {
        return Err(Malformed::TotalLength);
    }
    let [kind, code] = bytes.read::<2>(ip.l4).ok_or(Malformed::Truncated)?;
    if !matches!(kind, ND_SOLICITATION | ND_ADVERTISEMENT) || code != 0 || ip.ttl != 255 {
        return Ok(Class::Other);
    }
    if payload < 24 {
        return Err(Malformed::TotalLength);
    }
    let target = bytes.read::<16>(ip.l4 + 8).ok_or(Malformed::Truncated)?;
    Ok(Class::Neighbour {
        solicitation: kind == ND_SOLICITATION,
        target,
    })
}

/// Whether a packet carries a source route that is not used up: IPv4 options LSRR (131) and SSRR
/// (137), RFC 791 section 3.1, or an IPv6 routing header with segments left. Options that cannot
/// be read count as one.
#[inline(always)]
pub fn source_routed<B: Bytes + ?Sized>(parsed: &Parsed, ip: &Ip, bytes: &B) -> bool {
    if ip.family == Family::V6 {
        return ip.segments_left;
    }
    ip.header_len > IPV4_LEN && source_route_option(bytes, parsed.l3, ip.header_len)
}

/// A subprogram of its own in BPF, so that packets without options do not pay for it.
#[inline(never)]
fn source_route_option<B: Bytes + ?Sized>(bytes: &B, l3: usize, header_len: usize) -> bool {
    let mut at = IPV4_LEN;
    // 40 bytes of options are at most 40 options of one byte each.
    for _ in 0..40 {
        if at >= header_len {
            return false;
        }
        let Some([kind]) = bytes.read::<1>(l3 + at) else {
            return true;
        };
        at += match kind {
            0 => return false,
            1 => 1,
            131 | 137 => return true,
            _ => match bytes.read::<1>(l3 + at + 1) {
                Some([len]) if (2..=40).contains(&len) => usize::from(len),
                _ => return true,
            },
        };
    }
    false
}
