//! A front before encryption nodes: what comes for the shared address goes to one of them, all of one client
//! to the same.
//!
//! Slots of clients lead to nodes; user space fills the table, and changes what leads to a node that has died.
//! A packet goes to the node as between [gateways that share an address](crate::steering), and is sent on once
//! at most.

use crate::maps::{Address, halves};
use crate::packet::{Bytes, Family, Fragment, Ip, MAX_HEADERS, Parsed, parse, v4_mapped};
use crate::reason::Counter;
use crate::steering::{Group, HIGHEST_NUMBER, Steered};
use crate::verdict::sent_on;
use crate::wire::*;

/// Slots of clients, a power of two: so many that shares are even, and few are in one that moves.
pub const SLOTS: u32 = 4096;
/// In place of a node's number: none lives.
pub const NO_NODE: u8 = 0;
/// In place of its own number: a front that is no node itself.
pub const NO_SHARE: u8 = u8::MAX;
/// In heartbeats of a front, in place of the SPI of a session (network order). RFC 4303 section 2.1 leaves it
/// to each implementation, and it is on no wire.
pub const FRONT_SPI: [u8; 4] = [0; 4];

const _: () = assert!(SLOTS.is_power_of_two() && HIGHEST_NUMBER < NO_SHARE);

/// ICMP errors that quote what they are about (RFC 792): unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
/// The same of ICMPv6 (RFC 4443).
const ICMPV6_ERRORS: core::ops::RangeInclusive<u8> = 1..=4;
/// Neighbour discovery is between this host and the next (RFC 4861).
const ND: core::ops::RangeInclusive<u8> = 133..=137;
/// Bytes of ICMP before the packet that it quotes.
const ICMP_LEN: usize = 8;

/// What a front knows besides.
pub trait Front: Group {
    /// Its own number among the nodes, or [`NO_SHARE`].
    fn own_share(&self) -> u8;
    /// The number of the node that a slot leads to.
    fn leads_to(&self, slot: u32) -> Option<u8>;
}

/// The slot of a client. `port`: what a NAT has made of its port 4500, else 0.
#[inline(always)]
pub const fn slot_of(client: &Address, port: u16) -> u32 {
    let [first, second] = halves(client);
    // The finish of MurmurHash3: each bit of the key changes each bit of the result half of the time.
    let mut hash = first.rotate_left(32) ^ second ^ (port as u64).rotate_left(24);
    hash = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    (hash >> 33) as u32 & (SLOTS - 1)
}

/// Decides about a frame on the outside interface of a front. With [`Counter::Passed`] it stays here; if it
/// goes nowhere anything else is dropped.
#[inline(always)]
pub fn judge<'a, B, W>(bytes: &B, world: &'a W) -> Steered<'a>
where
    B: Bytes + ?Sized,
    W: Front,
{
    let stays = Steered::stays(Counter::Passed);
    let Ok(parsed) = parse(bytes) else {
        return stays;
    };
    let Some(ip) = &parsed.ip else {
        return stays;
    };
    if !for_nodes(world, &parsed, ip) {
        return stays;
    }
    let Some((client, port)) = client(bytes, ip) else {
        return stays;
    };
    let own = world.own_share();
    // From another front: for this node, or for nobody.
    if sent_on(world, &parsed.mac_destination, &parsed.mac_source) {
        return match own {
            NO_SHARE => Steered::stays(Counter::SteerAstray),
            _ => stays,
        };
    }
    let number = match world.leads_to(slot_of(&client, port)) {
        None | Some(NO_NODE) => return Steered::stays(Counter::FrontNoNode),
        Some(number) if number == own => return stays,
        Some(number) => number,
    };
    match world.gateway(number) {
        Some(node) if node.exists() => Steered::toward(node, &parsed, ip),
        _ => Steered::stays(Counter::SteerSilent),
    }
}

/// Whether a packet is for the shared address, not for the front's own.
#[inline(always)]
fn for_nodes<W: Front>(world: &W, parsed: &Parsed, ip: &Ip) -> bool {
    let shared = world
        .local()
        .is_some_and(|local| local.has_mac(&parsed.mac_destination) && local.owns(&ip.destination));
    shared && world.own_address() != Some(ip.destination)
}

/// Whose packet it is: the client's address, and its port where a NAT tells clients apart. `None`: of the
/// link alone.
#[inline(always)]
fn client<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Option<(Address, u16)> {
    // All fragments go one way, and the later ones have no ports.
    if ip.fragment != Fragment::None || ip.l4 > MAX_HEADERS {
        return Some((ip.source, 0));
    }
    let quoted = match (ip.family, ip.protocol) {
        (_, IPPROTO_UDP) => {
            let ports = bytes.read_u32(ip.l4).unwrap_or_default();
            let port = match ports as u16 {
                PORT_NAT_T => translated((ports >> 16) as u16),
                _ => 0,
            };
            return Some((ip.source, port));
        }
        (Family::V4, IPPROTO_ICMP) => match bytes.read::<1>(ip.l4) {
            Some([kind]) if ICMP_ERRORS.contains(&kind) => quoted_v4(bytes, ip.l4 + ICMP_LEN),
            _ => None,
        },
        (Family::V6, IPPROTO_ICMPV6) => match bytes.read::<1>(ip.l4) {
            Some([kind]) if ND.contains(&kind) => return None,
            Some([kind]) if ICMPV6_ERRORS.contains(&kind) => quoted_v6(bytes, ip.l4 + ICMP_LEN),
            _ => None,
        },
        _ => None,
    };
    // An error is about what a node has sent to a client: for that node.
    Some(quoted.unwrap_or((ip.source, 0)))
}

/// A port 4500 that no NAT has changed says nothing: the same client's ESP may come bare.
#[inline(always)]
const fn translated(port: u16) -> u16 {
    match port {
        PORT_NAT_T => 0,
        port => port,
    }
}

/// Where a quoted packet was sent.
#[inline(always)]
fn quoted_v4<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Option<(Address, u16)> {
    let [first] = bytes.read::<1>(at)?;
    let fragment = bytes.read_u16(at + 6)? & 0x1FFF;
    let [protocol] = bytes.read::<1>(at + 9)?;
    let destination = v4_mapped(bytes.read::<4>(at + 16)?);
    let ports = match (protocol, fragment) {
        (IPPROTO_UDP, 0) => bytes.read_far::<4>(at + usize::from(first & 0x0F) * 4),
        _ => None,
    };
    Some((destination, quoted_port(ports)))
}

#[inline(always)]
fn quoted_v6<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Option<(Address, u16)> {
    let [protocol] = bytes.read::<1>(at + 6)?;
    let destination = bytes.read::<16>(at + 24)?;
    let ports = match protocol {
        IPPROTO_UDP => bytes.read::<4>(at + IPV6_LEN),
        _ => None,
    };
    Some((destination, quoted_port(ports)))
}

/// The client's port in the ports of a quoted packet.
#[inline(always)]
fn quoted_port(ports: Option<[u8; 4]>) -> u16 {
    let ports = u32::from_be_bytes(ports.unwrap_or_default());
    match (ports >> 16) as u16 {
        PORT_NAT_T => translated(ports as u16),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::address;
    use core::net::{IpAddr, Ipv4Addr};
    use std::vec;

    /// Clients of one network, and clients behind one NAT, spread over all slots.
    #[test]
    fn slots_are_even() {
        let mut of_addresses = vec![0_u32; SLOTS as usize];
        let mut of_ports = of_addresses.clone();
        for low in 0..=u16::MAX {
            let [a, b] = low.to_be_bytes();
            let client = address(IpAddr::V4(Ipv4Addr::new(198, 51, a, b)));
            of_addresses[slot_of(&client, 0) as usize] += 1;
            let nat = address(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)));
            of_ports[slot_of(&nat, low) as usize] += 1;
        }
        for counts in [of_addresses, of_ports] {
            let expected = 65_536.0 / f64::from(SLOTS);
            let square = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
            let chi: f64 = counts.iter().map(square).sum();
            // Mean 4095, deviation 90.5.
            assert!((chi - 4095.0).abs() < 6.0 * 90.5, "{chi}");
        }
    }
}
