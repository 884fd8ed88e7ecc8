//! The packet filter of an edge: which packets of a user may be forwarded past the tunnel, by the user's
//! class.
//!
//! It is about packets on the outside that are for somebody else, and so would be forwarded as they are.
//! What is for the node itself is looked at only where a class has no encryption service.

use core::net::IpAddr;

use crate::maps::{Address, Local, address};
use crate::packet::{Bytes, Class, Family, classify, parse, v4_mapped};
use crate::reason::Counter;
use crate::verdict::unicast;
use crate::wire::*;

/// Classes that there can be, with [`DEFAULT`].
pub const MAX_CLASSES: u32 = 64;
/// The slot of the class of those who have none.
pub const DEFAULT: u32 = 0;
/// Networks of all classes together.
pub const MAX_DIRECT: u32 = 65_536;
/// Addresses of users, and of the node itself.
pub const MAX_USERS: u32 = 262_144;
/// What stands for an address that is the node's own, in place of a class.
pub const OWN: u32 = u32::MAX;

/// What is done with the packets of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// Everything passes.
    #[default]
    Off = 0,
    /// Everything has to go through the tunnel.
    Tunnel = 1,
    /// Some networks can be had directly, the rest through the tunnel.
    Split = 2,
    /// Some networks can be had directly, nothing else, and there is no tunnel.
    Plain = 3,
}

/// A class as the program needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct ClassEntry {
    rule: u8,
    reserved: [u8; 3],
    number: [u8; 4],
}

const _: () = assert!(size_of::<ClassEntry>() == 1 + 3 + 4);

impl ClassEntry {
    /// `number`: where its networks and counters are; of the default class that of the class whose rule it
    /// has.
    pub const fn new(rule: Rule, number: u32) -> Self {
        ClassEntry {
            rule: rule as u8,
            reserved: [0; 3],
            number: number.to_be_bytes(),
        }
    }

    #[inline(always)]
    const fn is(&self, rule: Rule) -> bool {
        self.rule == rule as u8
    }

    /// Where its networks and counters are.
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        u32::from_be_bytes(self.number)
    }
}

/// The key of a network that a class has directly: family and class, then the address.
pub type DirectKey = [u8; 20];

/// Bits of a [`DirectKey`] before the address.
pub const DIRECT_BITS: u32 = 32;

/// The key of an address among the networks of a class.
#[inline(always)]
pub fn direct_key(class: u32, family: Family, address: &Address) -> DirectKey {
    let family = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let mut key = [0; 20];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&(family << 24 | class).to_be_bytes());
    tail.copy_from_slice(address);
    key
}

/// The key of a network of a class, and how many of its bits count.
pub fn direct_net(class: u32, network: IpAddr, prefix: u8) -> (u32, DirectKey) {
    // IPv4 as ::ffff:a.b.c.d.
    let (family, before) = match network {
        IpAddr::V4(_) => (Family::V4, 96),
        IpAddr::V6(_) => (Family::V6, 0),
    };
    let key = direct_key(class, family, &address(network));
    (DIRECT_BITS + before + u32::from(prefix), key)
}

/// What happened to a packet of a class: an index among the counters of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hit {
    /// To a network that it has directly.
    Direct = 0,
    /// Past the tunnel, and refused.
    Refused = 1,
    /// IKE or ESP of a class that has no encryption service, and refused.
    Service = 2,
}

/// Counters of each class.
pub const HITS: u32 = 4;

/// Where a counter of a class is among those of all.
#[inline(always)]
pub const fn hit_slot(class: u32, hit: Hit) -> u32 {
    class * HITS + hit as u32
}

/// What the filter knows.
pub trait FilterWorld {
    /// The class of an address, or [`OWN`].
    fn user(&self, address: &Address) -> Option<u32>;
    /// What a class may.
    fn class(&self, number: u32) -> Option<&ClassEntry>;
    /// Whether a class has a network directly.
    fn direct(&self, key: &DirectKey) -> bool;
    /// What is addressed to the outside interface.
    fn local(&self) -> Option<&Local>;
}

/// What the filter makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// It has nothing to say.
    Aside,
    /// It may pass, counted as a direct one of this class.
    Direct(u32),
    /// It is dropped, for this reason, and counted as a refused one of this class.
    Refused(u32, Counter),
    /// It is dropped and counted if it [is of the encryption service](is_service), which this class has not.
    NoService(u32),
}

/// Decides about a frame on the outside interface.
#[inline(always)]
pub fn judge<B, W>(bytes: &B, world: &W) -> Filtered
where
    B: Bytes + ?Sized,
    W: FilterWorld,
{
    let Some((mac, family, source, destination)) = addresses(bytes) else {
        return Filtered::Aside;
    };
    // Not for us to forward; or never forwarded by anybody.
    if !world.local().is_none_or(|local| local.has_mac(&mac)) || stays(family, &destination) {
        return Filtered::Aside;
    }
    let number = world.user(&source).filter(|number| *number != OWN);
    let Some(class) = world.class(number.unwrap_or(DEFAULT)) else {
        return Filtered::Aside;
    };
    if class.is(Rule::Off) {
        return Filtered::Aside;
    }
    let number = class.number();
    let own = world.local().is_some_and(|l| l.has_address(&destination))
        || world.user(&destination) == Some(OWN);
    if own {
        return match class.is(Rule::Plain) {
            true => Filtered::NoService(number),
            false => Filtered::Aside,
        };
    }
    if class.is(Rule::Tunnel) {
        return Filtered::Refused(number, Counter::FilterTunnel);
    }
    match world.direct(&direct_key(number, family, &destination)) {
        true => Filtered::Direct(number),
        false => Filtered::Refused(number, Counter::FilterUnlisted),
    }
}

/// Link destination, family, source and destination. Read without the rest of the headers: what the parser
/// does not understand must not get by.
#[inline(always)]
fn addresses<B: Bytes + ?Sized>(bytes: &B) -> Option<([u8; 6], Family, Address, Address)> {
    let mac = bytes.read::<6>(0)?;
    match bytes.read_u16(12)? {
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN => {
            let ether_type = bytes.read_u16(VLAN_LEN + 12)?;
            ip_addresses(bytes, mac, ether_type, ETHERNET_LEN + VLAN_LEN)
        }
        ether_type => ip_addresses(bytes, mac, ether_type, ETHERNET_LEN),
    }
}

#[inline(always)]
fn ip_addresses<B: Bytes + ?Sized>(
    bytes: &B,
    mac: [u8; 6],
    ether_type: u16,
    l3: usize,
) -> Option<([u8; 6], Family, Address, Address)> {
    Some(match ether_type {
        ETHERTYPE_IPV4 => {
            let source = v4_mapped(bytes.read::<4>(l3 + 12)?);
            let destination = v4_mapped(bytes.read::<4>(l3 + 16)?);
            (mac, Family::V4, source, destination)
        }
        ETHERTYPE_IPV6 => {
            let source = bytes.read::<16>(l3 + 8)?;
            let destination = bytes.read::<16>(l3 + 24)?;
            (mac, Family::V6, source, destination)
        }
        _ => return None,
    })
}

/// Whether a packet to this address stays on its link, or on its host: neighbour discovery, DHCP.
#[inline(always)]
fn stays(family: Family, destination: &Address) -> bool {
    let [a, b, ..] = *destination;
    let [.., c, d, _, _] = *destination;
    !unicast(family, destination)
        || match family {
            Family::V4 => c == 169 && d == 254,
            Family::V6 => a == 0xFE && b & 0xC0 == 0x80,
        }
}

/// Whether a frame is of the encryption service: IKE, ESP, what keeps a NAT open.
#[inline(always)]
pub fn is_service<B: Bytes + ?Sized>(bytes: &B) -> bool {
    let Ok(parsed) = parse(bytes) else {
        return false;
    };
    match classify(&parsed, bytes) {
        Ok(class) => !matches!(
            class,
            Class::Arp { .. } | Class::Neighbour { .. } | Class::Other
        ),
        Err(_) => false,
    }
}
