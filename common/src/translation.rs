//! The relay of IKE by address translation: an edge gives the messages of clients another destination, the
//! address of an authority that stands for this edge, and answers from there the address that the edges share.
//! The kernel forwards both. Nothing is kept on the edge, and nothing of a message is changed but addresses.

use core::net::IpAddr;

use crate::checksum::Change;
use crate::maps::{Address, Local, address, halves};
use crate::packet::{
    Bytes, BytesMut, Family, Fragment, Ip, MAX_HEADERS, Parsed, parse, source_routed,
};
use crate::reason::Counter;
use crate::steering::{GATEWAY_SLOTS, ike_number};
use crate::verdict::unicast;
use crate::wire::*;

/// Authorities whose answers an edge can know.
pub const MAX_AUTHORITIES: usize = 8;
/// Clients are shared out among authorities by as many slots.
pub const CLIENT_SLOTS: u32 = 1024;
/// Slots of the map of destinations: those of numbers in SPIs come before those of clients.
pub const TOWARD_SLOTS: u32 = GATEWAY_SLOTS + CLIENT_SLOTS;

/// Bytes of an IKE header (RFC 7296 section 3.1).
const IKE_HEADER: usize = 28;

/// The slot of a client, for messages that name no authority yet.
#[inline(always)]
pub const fn client_slot(client: &Address) -> u32 {
    let [first, second] = halves(client);
    ((first ^ second).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as u32
}

/// The addresses that an edge translates, beside the destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Translation {
    shared: Address,
    answers: [Address; MAX_AUTHORITIES],
}

const _: () = assert!(size_of::<Translation>() == 16 + 16 * MAX_AUTHORITIES);

impl Translation {
    /// `shared`: the address that the edges share. `answers`: those that stand for this edge at authorities,
    /// of the same family; only the first [`MAX_AUTHORITIES`] are taken.
    pub fn new(shared: IpAddr, answers: &[IpAddr]) -> Self {
        let mut translation = Translation {
            shared: address(shared),
            ..Translation::default()
        };
        for (slot, ip) in translation.answers.iter_mut().zip(answers) {
            *slot = address(*ip);
        }
        translation
    }

    #[inline(always)]
    fn is_shared(&self, address: &Address) -> bool {
        u128::from_ne_bytes(self.shared) == u128::from_ne_bytes(*address)
    }

    /// An unused slot holds `::`, which is nobody's.
    #[inline(always)]
    fn has_answers_from(&self, source: &Address) -> bool {
        let wanted = u128::from_ne_bytes(*source);
        for own in &self.answers {
            if u128::from_ne_bytes(*own) == wanted {
                return wanted != 0;
            }
        }
        false
    }
}

/// What an edge that translates knows.
pub trait Translates {
    /// The addresses.
    fn translation(&self) -> Option<&Translation>;
    /// Where messages of this slot of [`TOWARD_SLOTS`] go; `::`: nowhere.
    fn toward(&self, slot: u32) -> Option<Address>;
    /// What is addressed to the interface that answers come by.
    fn local(&self) -> Option<&Local>;
}

/// A message, or part of one, whose source or destination is another one from now on. No enum: the verifier wants
/// all of it written, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readdressed {
    /// What is counted.
    pub counter: Counter,
    family: Family,
    l3: usize,
    /// Where the address is, from the IP header on.
    at: usize,
    to: Address,
    /// Where the UDP header is; 0: in another fragment.
    udp: usize,
}

/// Decides about a message that [`outside`](crate::verdict::outside) has found to be IKE's and the node's, and
/// that the [guard](crate::guard::judge) lets pass if it is up.
///
/// # Errors
/// Why it stays as it is: dropped by [`Counter::IkeNoAuthority`], else left to the kernel.
#[inline(always)]
pub fn toward<B, W>(bytes: &B, world: &W) -> Result<Readdressed, Counter>
where
    B: Bytes + ?Sized,
    W: Translates,
{
    // Nothing of this is news, or it had not come here.
    let parsed = parse(bytes).map_err(|_| Counter::Malformed)?;
    let ip = parsed.ip.as_ref().ok_or(Counter::Passed)?;
    let translation = world.translation().ok_or(Counter::Passed)?;
    if !translation.is_shared(&ip.destination) || !forwardable(&parsed, ip, bytes) {
        return Err(Counter::Passed);
    }
    // No answer would get back: the kernel may judge.
    if !unicast(ip.family, &ip.source) || translation.is_shared(&ip.source) {
        return Err(Counter::Passed);
    }
    let ports = bytes.read_u32(ip.l4).ok_or(Counter::Malformed)?;
    let before = match ports as u16 {
        PORT_NAT_T => UDP_LEN + 4,
        _ => UDP_LEN,
    };
    if ip.payload_len() < before + IKE_HEADER {
        return Err(Counter::Passed);
    }
    let (slot, counter) = match ike_number(bytes, ip) {
        Some(number) => (u32::from(number), Counter::IkeTranslated),
        None => (
            GATEWAY_SLOTS + client_slot(&ip.source),
            Counter::IkeFirstTranslated,
        ),
    };
    let to = world.toward(slot).ok_or(Counter::IkeNoAuthority)?;
    if u128::from_ne_bytes(to) == 0 {
        return Err(Counter::IkeNoAuthority);
    }
    Ok(Readdressed {
        counter,
        family: ip.family,
        l3: parsed.l3,
        at: match ip.family {
            Family::V4 => 16,
            Family::V6 => 24,
        },
        to,
        udp: ip.l4,
    })
}

/// Looks whether a frame on the interface toward an authority is an answer: UDP from one of its addresses that
/// stand for this edge, from a port of IKE, or a later fragment of such.
#[inline(always)]
pub fn back<B, W>(bytes: &B, world: &W) -> Option<Readdressed>
where
    B: Bytes + ?Sized,
    W: Translates,
{
    let parsed = parse(bytes).ok()?;
    let ip = parsed.ip.as_ref()?;
    let translation = world.translation()?;
    if !translation.has_answers_from(&ip.source)
        || !world.local()?.has_mac(&parsed.mac_destination)
        || !unicast(ip.family, &ip.destination)
        || !forwardable(&parsed, ip, bytes)
    {
        return None;
    }
    let udp = match ip.fragment {
        // These addresses send nothing else by UDP.
        Fragment::Later => 0,
        Fragment::None | Fragment::First => {
            let [p0, p1] = bytes.read::<2>(ip.l4)?;
            if !matches!(u16::from_be_bytes([p0, p1]), PORT_IKE | PORT_NAT_T) {
                return None;
            }
            ip.l4
        }
    };
    Some(Readdressed {
        counter: Counter::IkeReturned,
        family: ip.family,
        l3: parsed.l3,
        at: match ip.family {
            Family::V4 => 12,
            Family::V6 => 8,
        },
        to: translation.shared,
        udp,
    })
}

/// UDP that goes straight to the destination that it names: with a source route its checksum would be about
/// another one.
#[inline(always)]
fn forwardable<B: Bytes + ?Sized>(parsed: &Parsed, ip: &Ip, bytes: &B) -> bool {
    ip.protocol == IPPROTO_UDP && ip.l4 <= MAX_HEADERS && !source_routed(parsed, ip, bytes)
}

impl Readdressed {
    /// Writes the other address, and the checksums that go with it. `None` if the frame ends too early.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<()> {
        // Known to whoever has decided, not to the BPF verifier.
        if self.l3 > ETHERNET_LEN + VLAN_LEN {
            return None;
        }
        let (l3, at) = (self.l3, self.l3 + self.at);
        // Before anything is written: half an address would be worse than none.
        let sum = match self.udp {
            0 => 0,
            udp => bytes.read_u16(udp + 6)?,
        };
        let change = match self.family {
            Family::V4 => {
                let [.., a, b, c, d] = self.to;
                let change = Change::new().four(bytes.read(at)?, [a, b, c, d]);
                let header = bytes.read_u16(l3 + 10)?;
                bytes.write(l3 + 10, change.apply(header).to_be_bytes())?;
                bytes.write(at, [a, b, c, d])?;
                change
            }
            Family::V6 => {
                let [first, second] = eights(self.to);
                let change = Change::new()
                    .eight(bytes.read(at)?, first)
                    .eight(bytes.read(at + 8)?, second);
                bytes.write(at, first)?;
                bytes.write(at + 8, second)?;
                change
            }
        };
        match self.udp {
            0 => Some(()),
            udp => bytes.write(udp + 6, change.apply_udp(sum).to_be_bytes()),
        }
    }
}

/// Both halves of an address, as they stand.
#[inline(always)]
fn eights(address: Address) -> [[u8; 8]; 2] {
    let whole = u128::from_be_bytes(address);
    [
        ((whole >> 64) as u64).to_be_bytes(),
        (whole as u64).to_be_bytes(),
    ]
}

#[cfg(test)]
mod tests;
