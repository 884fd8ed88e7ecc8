//! ICMP errors that say that a packet of ours was too long (RFC 792, RFC 1191, RFC 4443 section 3.2): what a
//! router says, and as much of the packet as it quotes.

use std::net::IpAddr;

use evergate_common::heartbeat::MAGIC;
use evergate_common::wire::{IPPROTO_ESP, IPPROTO_UDP, SPI_HEARTBEAT};

use super::checksum::checksum;
use super::frame::{take, take_u16};
use super::ip::ICMP;

/// Types and codes of ICMP.
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const FRAGMENTATION_NEEDED: u8 = 4;
pub(crate) const PACKET_TOO_BIG: u8 = 2;

/// What a router says about a packet of ours. Nobody has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// MTU of the link that it did not fit; 0 if the router does not know (RFC 1191 section 5).
    pub mtu: u32,
    /// Where the packet came from: one of our addresses.
    pub source: IpAddr,
    /// Where it was sent.
    pub destination: IpAddr,
    /// UDP ports, source and destination, if it was ESP in UDP.
    pub ports: Option<(u16, u16)>,
    /// What is quoted of the ESP packet; routers need not quote that of ESP in UDP.
    pub esp: Option<Quoted>,
}

/// An ESP packet that was quoted; numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    /// ESP of a session.
    Esp {
        /// The SPI that it was sent on.
        spi: u32,
        /// Its sequence number, low half.
        sequence: u32,
    },
    /// A heartbeat.
    Heartbeat {
        /// Its counter.
        counter: u32,
        /// Its token, if so much is quoted.
        token: Option<[u8; 8]>,
    },
}

/// Reads an ICMPv4 message from its IP header on, as a raw socket hears it. `None` if it says anything else,
/// is damaged, contradicts itself, or is about a packet that is neither ESP nor UDP.
#[must_use]
pub fn read_v4(packet: &[u8]) -> Option<TooLong> {
    let [first] = take::<1>(packet, 0)?;
    let [protocol] = take::<1>(packet, 9)?;
    let header = usize::from(first & 15) * 4;
    if first >> 4 != 4 || header < 20 || protocol != ICMP {
        return None;
    }
    let message = packet.get(header..)?;
    let [kind, code] = take::<2>(message, 0)?;
    // Raw sockets hear what the kernel has not looked at.
    if (kind, code) != (UNREACHABLE, FRAGMENTATION_NEEDED) || checksum(message) != 0 {
        return None;
    }
    quoted(message.get(8..)?, take_u16(message, 6)?.into())
}

/// The same for an ICMPv6 message from its own header on. The kernel has checked its checksum.
#[must_use]
pub fn read_v6(message: &[u8]) -> Option<TooLong> {
    let [kind, _code] = take::<2>(message, 0)?;
    if kind != PACKET_TOO_BIG {
        return None;
    }
    let mtu = u32::from_be_bytes(take(message, 4)?);
    quoted(message.get(8..)?, mtu)
}

/// Reads the quoted packet: headers as we write them, without options or extensions.
fn quoted(packet: &[u8], mtu: u32) -> Option<TooLong> {
    let [first] = take::<1>(packet, 0)?;
    let (source, destination, protocol, length, payload): (IpAddr, IpAddr, _, _, _) =
        match first >> 4 {
            4 => {
                let [protocol] = take::<1>(packet, 9)?;
                let (from, to) = (take::<4>(packet, 12)?, take::<4>(packet, 16)?);
                let length = usize::from(take_u16(packet, 2)?);
                (from.into(), to.into(), protocol, length, 20)
            }
            6 => {
                let [protocol] = take::<1>(packet, 6)?;
                let (from, to) = (take::<16>(packet, 8)?, take::<16>(packet, 24)?);
                let length = usize::from(take_u16(packet, 4)?) + 40;
                (from.into(), to.into(), protocol, length, 40)
            }
            _ => return None,
        };
    // What fits is not too long.
    if usize::try_from(mtu).ok()? >= length || first >> 4 == 4 && first & 15 != 5 {
        return None;
    }
    let (ports, esp) = match protocol {
        IPPROTO_ESP => (None, Some(esp(packet.get(payload..)?)?)),
        IPPROTO_UDP => {
            let ports = (take_u16(packet, payload)?, take_u16(packet, payload + 2)?);
            (Some(ports), packet.get(payload + 8..).and_then(esp))
        }
        _ => return None,
    };
    Some(TooLong {
        mtu,
        source,
        destination,
        ports,
        esp,
    })
}

fn esp(bytes: &[u8]) -> Option<Quoted> {
    let spi = u32::from_be_bytes(take(bytes, 0)?);
    let sequence = u32::from_be_bytes(take(bytes, 4)?);
    if spi != SPI_HEARTBEAT {
        return Some(Quoted::Esp { spi, sequence });
    }
    let keyed = take::<4>(bytes, 8) == Some(MAGIC);
    Some(Quoted::Heartbeat {
        counter: sequence,
        token: take::<8>(bytes, 20).filter(|_| keyed),
    })
}

#[cfg(test)]
#[path = "quote_tests.rs"]
mod tests;
