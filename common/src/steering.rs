//! Steering between gateways that share one outside address: what arrives at a gateway that does not
//! own the SPI goes to its owner, by another link address on one segment, in IP beyond it.
//!
//! The SPIs that a gateway of such a group issues, of ESP and of IKE, carry its number in their highest
//! bits. A packet is steered once at most: what another gateway has sent on, and is not for this one
//! either, is dropped.

use crate::checksum::{Sum, fold};
use crate::heartbeat::Keyed;
use crate::maps::{Address, address};
use crate::packet::{Bytes, BytesMut, Class, Family, Ip, Parsed, classify, parse, v4_mapped};
use crate::reason::Counter;
use crate::verdict::{Action, OutsideWorld, lower_v4, lower_v6, sent_on};
use crate::wire::*;
use core::net::IpAddr;

/// High bits of an SPI that are the number of the gateway that has issued it.
pub const NUMBER_BITS: u32 = 6;
/// The highest number of a gateway; the lowest is 1. So that neither reserved SPIs nor that of
/// heartbeats are ever a gateway's.
pub const HIGHEST_NUMBER: u8 = (1 << NUMBER_BITS) - 2;
/// Slots of the map of gateways.
pub const GATEWAY_SLOTS: u32 = 1 << NUMBER_BITS;

/// Bytes of an IKE header (RFC 7296 section 3.1).
const IKE_HEADER: usize = 28;
const FLAG_INITIATOR: u8 = 0x08;

/// The number that an SPI carries (network order; of IKE the first four bytes).
#[inline(always)]
pub const fn number_of(spi: [u8; 4]) -> u8 {
    spi[0] >> (8 - NUMBER_BITS)
}

/// An SPI of ESP with the number of the gateway that issues it, and all other bits as they were.
#[must_use]
pub const fn numbered(spi: u32, number: u8) -> u32 {
    spi & (u32::MAX >> NUMBER_BITS) | (number as u32) << (32 - NUMBER_BITS)
}

/// The key of a link address in the map of stations.
#[inline(always)]
pub const fn station(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// How to get to another gateway of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Gateway {
    way: u8,
    reserved: u8,
    mtu: [u8; 2],
    mac_destination: [u8; 6],
    mac_source: [u8; 6],
    source: Address,
    destination: Address,
    interface: [u8; 4],
    zero: [u8; 4],
}

const _: () = assert!(size_of::<Gateway>() == 1 + 1 + 2 + 6 + 6 + 16 + 16 + 4 + 4);

impl Gateway {
    const SILENT: u8 = 1;
    const ETHERNET: u8 = 2;
    const IPV4: u8 = 3;
    const IPV6: u8 = 4;

    /// A gateway that no way leads to now: what is for it is dropped.
    pub const fn silent() -> Self {
        Gateway {
            way: Self::SILENT,
            reserved: 0,
            mtu: [0; 2],
            mac_destination: [0; 6],
            mac_source: [0; 6],
            source: [0; 16],
            destination: [0; 16],
            interface: [0; 4],
            zero: [0; 4],
        }
    }

    /// A gateway on the node's own segment, at this link address; `source` is the node's own.
    pub const fn on_segment(destination: [u8; 6], source: [u8; 6]) -> Self {
        Gateway {
            way: Self::ETHERNET,
            mac_destination: destination,
            mac_source: source,
            ..Self::silent()
        }
    }

    /// The same beyond the segment, or if that is wished: packets go in IP between these addresses, of
    /// one family, if they fit into `mtu` bytes with it. The link addresses are the next hop's and the
    /// node's own.
    pub const fn in_ip(mut self, source: IpAddr, destination: IpAddr, mtu: u16) -> Self {
        self.way = match destination {
            IpAddr::V4(_) => Self::IPV4,
            IpAddr::V6(_) => Self::IPV6,
        };
        self.mtu = mtu.to_be_bytes();
        self.source = address(source);
        self.destination = address(destination);
        self
    }

    /// The same by another interface than the one that packets come by; the link addresses are of its network.
    #[must_use]
    pub const fn by_interface(mut self, index: u32) -> Self {
        self.interface = index.to_be_bytes();
        self
    }

    /// Whether the group has such a gateway.
    #[inline(always)]
    pub const fn exists(&self) -> bool {
        self.way != 0
    }

    /// Bytes of the IP header around what goes there; 0 on the segment.
    #[inline(always)]
    const fn outer_len(&self) -> usize {
        match self.way {
            Self::IPV4 => IPV4_LEN,
            Self::IPV6 => IPV6_LEN,
            _ => 0,
        }
    }
}

/// What a gateway of a group knows besides.
pub trait Group: OutsideWorld {
    /// The node's own number.
    fn number(&self) -> u8;
    /// The owner of an SPI of ESP (network order), whatever the SPI itself says.
    fn owner(&self, spi: &[u8; 4]) -> Option<u8>;
    /// The way to another gateway.
    fn gateway(&self, number: u8) -> Option<&Gateway>;
    /// Where other gateways send packets in IP.
    fn own_address(&self) -> Option<Address>;
}

/// What becomes of a packet whose SPI has no security association here, and of messages of IKE. No enum:
/// the verifier wants all of it written, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered<'a> {
    /// What is counted. [`Counter::Passed`] is a message of IKE for this node, which the
    /// [guard](crate::guard::judge) may judge, [`Counter::EspUnknown`] goes to the worker; with no gateway
    /// anything else is dropped.
    pub counter: Counter,
    gateway: Option<&'a Gateway>,
    l3: usize,
    family: Family,
    total_len: u16,
}

/// Whether a decision of [`outside`](crate::verdict::outside) stands only if no other gateway owns the
/// packet.
#[inline(always)]
pub fn asks(decision: &Result<Action, Counter>) -> bool {
    matches!(
        decision,
        Err(Counter::UnknownSpi | Counter::HeartbeatUnknownSpi)
            | Ok(Action::Steer(Counter::EspUnknown) | Action::Guard)
    )
}

/// Decides about a frame that [`asks`].
#[inline(always)]
pub fn judge<'a, B, W>(bytes: &B, world: &'a W) -> Steered<'a>
where
    B: Bytes + ?Sized,
    W: Group,
{
    let mut steered = Steered::stays(Counter::Malformed);
    // Nothing of this is news, or it had not come here.
    let Ok(parsed) = parse(bytes) else {
        return steered;
    };
    let Some(ip) = &parsed.ip else {
        return steered;
    };
    let owner = match classify(&parsed, bytes) {
        Ok(Class::Esp(esp)) => {
            steered.counter = match world.shared() {
                true => Counter::EspUnknown,
                false => Counter::UnknownSpi,
            };
            Some(owner_of(world, &esp.spi))
        }
        Ok(Class::Heartbeat(esp)) => {
            steered.counter = Counter::HeartbeatUnknownSpi;
            let request = Keyed::read(bytes, &esp);
            request.map(|request| owner_of(world, &request.spi))
        }
        Ok(Class::Ike) => {
            steered.counter = Counter::Passed;
            ike_number(bytes, ip)
        }
        _ => None,
    };
    let Some(owner) = owner.filter(|owner| *owner != world.number()) else {
        return steered;
    };
    let Some(gateway) = world.gateway(owner).filter(|gateway| gateway.exists()) else {
        return steered;
    };
    if sent_on(world, &parsed.mac_destination, &parsed.mac_source) {
        return Steered::stays(Counter::SteerAstray);
    }
    Steered::toward(gateway, &parsed, ip)
}

#[inline(always)]
fn owner_of<W: Group>(world: &W, spi: &[u8; 4]) -> u8 {
    match world.owner(spi) {
        Some(owner) => owner,
        None => number_of(*spi),
    }
}

/// The number in the receiver's SPI of a message of IKE; `None` if it has none yet.
#[inline(always)]
pub(crate) fn ike_number<B: Bytes + ?Sized>(bytes: &B, ip: &Ip) -> Option<u8> {
    let ports = bytes.read_u32(ip.l4)?;
    let before = match ports as u16 {
        PORT_NAT_T => UDP_LEN + 4,
        _ => UDP_LEN,
    };
    if ip.payload_len() < before + IKE_HEADER {
        return None;
    }
    let start = ip.l4 + before;
    let [_, _, _, flags] = bytes.read::<4>(start + 16)?;
    // What the original initiator sends is for the responder, and the other way round (RFC 7296
    // section 3.1).
    let spi = match flags & FLAG_INITIATOR != 0 {
        true => start + 8,
        false => start,
    };
    let spi = bytes.read::<8>(spi)?;
    let [a, b, c, d, ..] = spi;
    (spi != [0; 8]).then_some(number_of([a, b, c, d]))
}

impl<'a> Steered<'a> {
    /// A packet that goes to nobody.
    #[inline(always)]
    pub(crate) const fn stays(counter: Counter) -> Self {
        Steered {
            counter,
            gateway: None,
            l3: ETHERNET_LEN,
            family: Family::V4,
            total_len: 0,
        }
    }

    /// A packet for another gateway, if it can go there.
    #[inline(always)]
    pub(crate) fn toward(gateway: &'a Gateway, parsed: &Parsed, ip: &Ip) -> Self {
        let outer_len = gateway.outer_len();
        let most = u16::from_be_bytes(gateway.mtu) as usize;
        if ip.ttl <= 1 {
            return Self::stays(Counter::SteerTtl);
        }
        if gateway.way == Gateway::SILENT || !gateway.exists() {
            return Self::stays(Counter::SteerSilent);
        }
        if outer_len > 0 && outer_len + ip.total_len > most {
            return Self::stays(Counter::SteerTooBig);
        }
        Steered {
            counter: match outer_len {
                0 => Counter::SteerSent,
                _ => Counter::SteerWrapped,
            },
            gateway: Some(gateway),
            l3: parsed.l3,
            family: ip.family,
            total_len: ip.total_len as u16,
        }
    }

    /// Whether the frame goes to another gateway, after [`Self::apply`].
    #[inline(always)]
    pub fn goes(&self) -> bool {
        self.gateway.is_some()
    }

    /// The interface that it goes by; 0: the one that it has come by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        self.gateway
            .map_or(0, |gateway| u32::from_be_bytes(gateway.interface))
    }

    /// Bytes by which the frame has to grow at its beginning.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.gateway.map_or(0, Gateway::outer_len)
    }

    /// Readies a frame that has grown by [`Self::room`]. `None` if it ends too early, which one that
    /// was decided about does not.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        // Known to whoever has judged, not to the BPF verifier.
        if self.l3 > ETHERNET_LEN + VLAN_LEN {
            return None;
        }
        let (gateway, l3) = (self.gateway?, self.l3);
        let room = gateway.outer_len();
        let inner = match self.family {
            Family::V4 => {
                lower_v4(bytes, l3 + room)?;
                IPPROTO_IPV4
            }
            Family::V6 => {
                lower_v6(bytes, l3 + room)?;
                IPPROTO_IPV6
            }
        };
        if room > 0 && l3 > ETHERNET_LEN {
            let tag = bytes.read::<4>(room + 12)?;
            bytes.write(12, tag)?;
        }
        bytes.write(0, gateway.mac_destination)?;
        bytes.write(6, gateway.mac_source)?;
        match gateway.way {
            Gateway::IPV4 => self.wrap_v4(bytes, gateway, inner),
            Gateway::IPV6 => self.wrap_v6(bytes, gateway, inner),
            _ => Some(()),
        }
    }

    /// RFC 2003: a header of its own, which may not be cut. Its congestion field says that marks would
    /// be lost, which RFC 6040 calls the compatibility mode.
    #[inline(always)]
    fn wrap_v4<B: BytesMut + ?Sized>(
        &self,
        bytes: &mut B,
        gateway: &Gateway,
        protocol: u8,
    ) -> Option<()> {
        let l3 = self.l3;
        let [.., s0, s1, s2, s3] = gateway.source;
        let [.., d0, d1, d2, d3] = gateway.destination;
        let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
        let total_len = self.total_len.wrapping_add(IPV4_LEN as u16);
        let first = (0x4500_0000 | u32::from(total_len)).to_be_bytes();
        let second = [0, 0, 0x40, 0];
        let sum = Sum(0).four(first).four(second);
        let sum = sum.four([64, protocol, 0, 0]);
        let [c0, c1] = (!fold(sum.four(source).four(destination).0)).to_be_bytes();
        bytes.write(l3 - 2, ETHERTYPE_IPV4.to_be_bytes())?;
        bytes.write(l3, first)?;
        bytes.write(l3 + 4, second)?;
        bytes.write(l3 + 8, [64, protocol, c0, c1])?;
        bytes.write(l3 + 12, source)?;
        bytes.write(l3 + 16, destination)
    }

    /// RFC 2473.
    #[inline(always)]
    fn wrap_v6<B: BytesMut + ?Sized>(
        &self,
        bytes: &mut B,
        gateway: &Gateway,
        protocol: u8,
    ) -> Option<()> {
        let l3 = self.l3;
        let [l0, l1] = self.total_len.to_be_bytes();
        bytes.write(l3 - 2, ETHERTYPE_IPV6.to_be_bytes())?;
        bytes.write(l3, [0x60, 0, 0, 0, l0, l1, protocol, 64])?;
        bytes.write(l3 + 8, gateway.source)?;
        bytes.write(l3 + 24, gateway.destination)
    }
}

/// A packet in IP from another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapping {
    ours: bool,
    l3: usize,
    outer_len: usize,
    ether_type: u16,
}

/// Looks whether a frame is a packet in IP from another gateway of the group. Headers with options, and
/// fragments, are none that a gateway makes: the kernel may judge.
#[inline(always)]
pub fn wrapped<B, W>(bytes: &B, world: &W) -> Option<Wrapping>
where
    B: Bytes + ?Sized,
    W: Group,
{
    let mut ether_type = bytes.read_u16(12)?;
    let mut l3 = ETHERNET_LEN;
    if ether_type == ETHERTYPE_VLAN || ether_type == ETHERTYPE_SERVICE_VLAN {
        l3 = ETHERNET_LEN + VLAN_LEN;
        ether_type = bytes.read_u16(l3 - 2)?;
    }
    let (protocol, outer_len, source, destination) = match ether_type {
        ETHERTYPE_IPV4 => {
            let first = bytes.read_u32(l3)?;
            let [_, protocol] = bytes.read::<2>(l3 + 8)?;
            let fragment = bytes.read_u16(l3 + 6)? & 0x3FFF;
            if first >> 24 != 0x45 || fragment != 0 {
                return None;
            }
            let source = v4_mapped(bytes.read(l3 + 12)?);
            let destination = v4_mapped(bytes.read(l3 + 16)?);
            (protocol, IPV4_LEN, source, destination)
        }
        ETHERTYPE_IPV6 => {
            let [version, _, _, _, _, _, protocol, _] = bytes.read::<8>(l3)?;
            if version >> 4 != 6 {
                return None;
            }
            let source = bytes.read::<16>(l3 + 8)?;
            let destination = bytes.read::<16>(l3 + 24)?;
            (protocol, IPV6_LEN, source, destination)
        }
        _ => return None,
    };
    let ether_type = match protocol {
        IPPROTO_IPV4 => ETHERTYPE_IPV4,
        IPPROTO_IPV6 => ETHERTYPE_IPV6,
        _ => return None,
    };
    let local = world.local()?;
    if !local.has_mac(&bytes.read(0)?)
        || world.own_address()? != destination
        || !world.address(&source).gateway()
    {
        return None;
    }
    let inner = l3 + outer_len;
    let destination = match ether_type {
        ETHERTYPE_IPV4 => bytes.read(inner + 16).map(v4_mapped),
        _ => bytes.read::<16>(inner + 24),
    };
    Some(Wrapping {
        ours: destination.is_some_and(|destination| local.has_address(&destination)),
        l3,
        outer_len,
        ether_type,
    })
}

impl Wrapping {
    /// Whether the packet is for the shared address; anything else is dropped.
    #[inline(always)]
    pub fn ours(&self) -> bool {
        self.ours
    }

    /// Bytes that have to be cut off at the beginning of the frame, after [`Self::apply`].
    #[inline(always)]
    pub fn excess(&self) -> usize {
        self.outer_len
    }

    /// Writes a link header before the inner packet. It says that the frame comes from this node itself,
    /// so that it is known to have been sent on.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        let own: [u8; 6] = bytes.read(0)?;
        let at = self.outer_len;
        if self.l3 > ETHERNET_LEN {
            let tag = bytes.read::<4>(12)?;
            bytes.write(at + 12, tag)?;
            bytes.write(at + 16, self.ether_type.to_be_bytes())?;
        } else {
            bytes.write(at + 12, self.ether_type.to_be_bytes())?;
        }
        bytes.write(at, own)?;
        bytes.write(at + 6, own)
    }
}
