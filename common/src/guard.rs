//! The guard before IKE: while it is up, a first message (a request of IKE_SA_INIT or, with a ticket,
//! of IKE_SESSION_RESUME) without a right cookie does not reach user space. It is answered on the spot
//! with a cookie (RFC 7296 section 2.6), in no more bytes than it had, and nothing is kept.
//!
//! User space makes the same cookies from the same keys, so that whoever got one from either may
//! return it to either.

use crate::checksum::{Sum, fold};
use crate::maps::{Address, halves};
use crate::packet::{Bytes, BytesMut, Family, Ip, Parsed, parse};
use crate::reason::Counter;
use crate::siphash::siphash24_of_5;
use crate::verdict::unicast;
use crate::wire::*;

/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 8;
/// Bytes of the nonce that a cookie covers: its first ones, and the fewest that it can have (RFC 7296
/// section 3.9).
pub const NONCE_LEN: usize = 16;

/// Bytes of an IKE header (RFC 7296 section 3.1).
const HEADER: usize = 28;
/// Bytes of a COOKIE notification with a cookie of ours (section 3.10).
const NOTIFY: usize = 8 + COOKIE_LEN;
/// Bytes of the answer.
const ANSWER: usize = HEADER + NOTIFY;
const IKE_SA_INIT: u8 = 34;
const IKE_SESSION_RESUME: u8 = 38;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
const PAYLOAD_NONCE: u8 = 40;
const PAYLOAD_NOTIFY: u8 = 41;
const COOKIE: u16 = 16390;
/// Payloads up to the nonce; initiators send three or four.
const MOST_PAYLOADS: usize = 8;
/// A first message that is longer is not looked at.
const LONGEST: usize = 1500;

/// The cookie for a first message from `source`: SipHash-2-4 over address, SPI and the beginning of
/// the nonce, as the RFC proposes.
#[inline(always)]
pub fn cookie(
    key: &[u8; 16],
    source: &Address,
    spi_i: [u8; 8],
    nonce: [u8; NONCE_LEN],
) -> [u8; COOKIE_LEN] {
    let [first, second] = halves(source);
    let [third, fourth] = halves(&nonce);
    let words = [first, second, u64::from_le_bytes(spi_i), third, fourth];
    siphash24_of_5(key, words).to_le_bytes()
}

/// Whether the guard is up, and the keys of its cookies.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Guard {
    current: [u8; 16],
    before: [u8; 16],
    up: [u8; 8],
}

impl Guard {
    /// A guard that is up. `current` makes cookies; those that `before` has made count too.
    pub const fn up(current: [u8; 16], before: [u8; 16]) -> Self {
        Guard {
            current,
            before,
            up: [1, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// A guard that lets everything pass.
    pub const fn down() -> Self {
        Guard {
            current: [0; 16],
            before: [0; 16],
            up: [0; 8],
        }
    }

    /// Whether first messages must bring a cookie.
    #[inline(always)]
    pub const fn is_up(&self) -> bool {
        self.up[0] != 0
    }
}

impl core::fmt::Debug for Guard {
    // The keys are secrets: they never show.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard")
            .field("up", &self.is_up())
            .finish_non_exhaustive()
    }
}

const _: () = assert!(size_of::<Guard>() == 16 + 16 + 8);

/// A first message that is to be answered with a cookie: where its headers are, and the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    l3: usize,
    family: Family,
    marker: bool,
    exchange: u8,
    spi_i: [u8; 8],
    cookie: [u8; COOKIE_LEN],
}

/// What the guard says to an IKE message that is addressed to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is none of the guard's business, or has a right cookie: leave it to user space.
    Pass(Counter),
    /// Ask for a cookie.
    Ask(Question),
    /// It can not be answered.
    Refuse,
}

/// Judges a message on an IKE port that is addressed to the node, while the guard is up.
#[inline(always)]
pub fn judge<B: Bytes + ?Sized>(bytes: &B, guard: &Guard) -> Judged {
    let parsed = parse(bytes).ok();
    let judged = parsed.and_then(|parsed| look(bytes, &parsed, guard));
    judged.unwrap_or(Judged::Refuse)
}

#[inline(always)]
fn look<B: Bytes + ?Sized>(bytes: &B, parsed: &Parsed, guard: &Guard) -> Option<Judged> {
    let ip = parsed.ip.as_ref()?;
    let ports = bytes.read_u32(ip.l4)?;
    let marker = ports as u16 == PORT_NAT_T;
    let before = if marker { UDP_LEN + 4 } else { UDP_LEN };
    let start = ip.l4 + before;
    let [next, version, exchange, flags] = bytes.read::<4>(start + 16)?;
    // Answers to requests of our own are among these.
    let first = exchange == IKE_SA_INIT || exchange == IKE_SESSION_RESUME;
    if !first || flags & FLAG_RESPONSE != 0 {
        return Some(Judged::Pass(Counter::Passed));
    }
    let spi_i = bytes.read::<8>(start)?;
    let length = bytes.read_u32(start + 24)? as usize;
    let fits = length <= LONGEST && ip.payload_len() == before + length;
    if version >> 4 != 2
        || flags & FLAG_INITIATOR == 0
        || bytes.read::<8>(start + 8)? != [0; 8]
        || bytes.read::<4>(start + 20)? != [0; 4]
        || !fits
        || !plain_headers(parsed, ip)
    {
        return None;
    }
    let end = start + length;
    let nonce = find_nonce(bytes, next, start + HEADER, end)?;
    if let Some(found) = returned(bytes, next, start + HEADER) {
        let right = |key| cookie(key, &ip.source, spi_i, nonce) == found;
        if right(&guard.current) || right(&guard.before) {
            return Some(Judged::Pass(Counter::IkeCookie));
        }
    }
    Some(Judged::Ask(Question {
        l3: parsed.l3,
        family: ip.family,
        marker,
        exchange,
        spi_i,
        cookie: cookie(&guard.current, &ip.source, spi_i, nonce),
    }))
}

/// Whether the answer can have the same headers: no IP options or extension headers, from one host
/// to one host.
#[inline(always)]
fn plain_headers(parsed: &Parsed, ip: &Ip) -> bool {
    let header_len = match ip.family {
        Family::V4 => IPV4_LEN,
        Family::V6 => IPV6_LEN,
    };
    let [d0, ..] = parsed.mac_destination;
    let [s0, ..] = parsed.mac_source;
    ip.header_len == header_len
        && (d0 | s0) & 1 == 0
        && unicast(ip.family, &ip.source)
        && unicast(ip.family, &ip.destination)
        && ip.source != ip.destination
}

/// The cookie that a first message brings back: its first payload, if it has the length of ours.
#[inline(always)]
fn returned<B: Bytes + ?Sized>(bytes: &B, next: u8, at: usize) -> Option<[u8; COOKIE_LEN]> {
    if next != PAYLOAD_NOTIFY {
        return None;
    }
    let [_, _, l0, l1, _, spi_size, t0, t1] = bytes.read::<8>(at)?;
    let ours = u16::from_be_bytes([l0, l1]) as usize == NOTIFY
        && spi_size == 0
        && u16::from_be_bytes([t0, t1]) == COOKIE;
    if ours { bytes.read(at + 8) } else { None }
}

/// The beginning of the nonce; `None` if there is none within the message.
#[inline(always)]
fn find_nonce<B: Bytes + ?Sized>(
    bytes: &B,
    mut next: u8,
    mut at: usize,
    end: usize,
) -> Option<[u8; NONCE_LEN]> {
    for _ in 0..MOST_PAYLOADS {
        let [following, _, l0, l1] = bytes.read_far::<4>(at)?;
        let length = u16::from_be_bytes([l0, l1]) as usize;
        if !(4..=LONGEST).contains(&length) || at + length > end {
            return None;
        }
        if next == PAYLOAD_NONCE {
            return if length < 4 + NONCE_LEN {
                None
            } else {
                bytes.read_far(at + 4)
            };
        }
        if following == 0 {
            return None;
        }
        (next, at) = (following, at + length);
    }
    None
}

impl Question {
    /// Turns the first message in the frame into the request for a cookie; yields the bytes that the
    /// frame then has. `None` if the frame ends too early, which one that was judged does not.
    #[inline(always)]
    pub fn apply<B: BytesMut + ?Sized>(&self, bytes: &mut B) -> Option<usize> {
        // Known to whoever has judged, not to the BPF verifier.
        if self.l3 > ETHERNET_LEN + VLAN_LEN {
            return None;
        }
        let mac_destination: [u8; 6] = bytes.read(0)?;
        let mac_source: [u8; 6] = bytes.read(6)?;
        bytes.write(0, mac_source)?;
        bytes.write(6, mac_destination)?;
        let marker_len = if self.marker { 4 } else { 0 };
        let udp_len = (UDP_LEN + marker_len + ANSWER) as u16;
        let (l4, pseudo) = match self.family {
            Family::V4 => (self.turn_v4(bytes, udp_len)?, Sum(0)),
            Family::V6 => self.turn_v6(bytes, udp_len)?,
        };
        let ports = bytes.read_u32(l4)?.rotate_left(16).to_be_bytes();
        bytes.write(l4, ports)?;
        if self.marker {
            bytes.write(l4 + UDP_LEN, [0; 4])?;
        }
        let at = l4 + UDP_LEN + marker_len;
        let [s0, s1] = COOKIE.to_be_bytes();
        let kinds = [PAYLOAD_NOTIFY, 0x20, self.exchange, FLAG_RESPONSE];
        let length = (ANSWER as u32).to_be_bytes();
        let notify = [0, 0, 0, NOTIFY as u8, 0, 0, s0, s1];
        bytes.write(at, self.spi_i)?;
        bytes.write(at + 8, [0; 8])?;
        bytes.write(at + 16, kinds)?;
        bytes.write(at + 20, [0; 4])?;
        bytes.write(at + 24, length)?;
        bytes.write(at + HEADER, notify)?;
        bytes.write(at + HEADER + 8, self.cookie)?;
        let sum = Sum(pseudo.0 + u32::from(udp_len))
            .four(ports)
            .eight(self.spi_i)
            .four(kinds)
            .four(length)
            .eight(notify)
            .eight(self.cookie);
        // Over IPv4 a UDP checksum may be absent (RFC 768); over IPv6 it may not (RFC 8200 section
        // 8.1), and one of zero is sent as all ones.
        let checksum = match (self.family, !fold(sum.0)) {
            (Family::V4, _) => 0,
            (Family::V6, 0) => 0xFFFF,
            (Family::V6, sum) => sum,
        };
        bytes.write(
            l4 + 4,
            (u32::from(udp_len) << 16 | u32::from(checksum)).to_be_bytes(),
        )?;
        Some(l4 + usize::from(udp_len))
    }

    /// A fresh IPv4 header back to the source; yields where UDP starts.
    #[inline(always)]
    fn turn_v4<B: BytesMut + ?Sized>(&self, bytes: &mut B, udp_len: u16) -> Option<usize> {
        let l3 = self.l3;
        let source: [u8; 4] = bytes.read(l3 + 12)?;
        let destination: [u8; 4] = bytes.read(l3 + 16)?;
        let total_len = IPV4_LEN as u16 + udp_len;
        let first = (0x4500_0000 | u32::from(total_len)).to_be_bytes();
        // No identification, "don't fragment".
        let second = [0, 0, 0x40, 0];
        let sum = Sum(0).four(first).four(second);
        let sum = sum.four([64, IPPROTO_UDP, 0, 0]);
        let [c0, c1] = (!fold(sum.four(source).four(destination).0)).to_be_bytes();
        bytes.write(l3, first)?;
        bytes.write(l3 + 4, second)?;
        bytes.write(l3 + 8, [64, IPPROTO_UDP, c0, c1])?;
        bytes.write(l3 + 12, destination)?;
        bytes.write(l3 + 16, source)?;
        Some(l3 + IPV4_LEN)
    }

    /// A fresh IPv6 header back to the source; yields where UDP starts, and the sum of the pseudo
    /// header (RFC 8200 section 8.1).
    #[inline(always)]
    fn turn_v6<B: BytesMut + ?Sized>(&self, bytes: &mut B, udp_len: u16) -> Option<(usize, Sum)> {
        let l3 = self.l3;
        let source: [u8; 16] = bytes.read(l3 + 8)?;
        let destination: [u8; 16] = bytes.read(l3 + 24)?;
        let [l0, l1] = udp_len.to_be_bytes();
        bytes.write(l3, [0x60, 0, 0, 0, l0, l1, IPPROTO_UDP, 64])?;
        bytes.write(l3 + 8, destination)?;
        bytes.write(l3 + 24, source)?;
        let sum = Sum(u32::from(IPPROTO_UDP) + u32::from(udp_len));
        Some((l3 + IPV6_LEN, sum.sixteen(source).sixteen(destination)))
    }
}
