//! ICMP errors about inner packets that we can not carry (RFC 792, RFC 4443), and the limit on
//! how many of them we send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::checksum::{checksum, transport_v6};
use super::ip::{ICMP, ICMPV6, Ip};

/// Longest ICMP error over IPv4 (RFC 1812 section 4.3.2.3).
pub const MAX_V4: usize = 576;
/// Longest ICMP error over IPv6 (RFC 4443 section 2.4 (c)).
pub const MAX_V6: usize = 1280;
const TTL: u8 = 64;
/// Precedence of network control messages (RFC 1812 section 4.3.2.5).
const TOS: u8 = 0xc0;

/// What happened to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No route leads to its destination.
    NoRoute,
    /// The host does not answer, or no gateway leads there now.
    HostUnreachable,
    /// Policy forbids it.
    Prohibited,
    /// It is longer than `mtu` bytes and may not be fragmented.
    TooBig {
        /// The longest inner packet that fits.
        mtu: u16,
    },
    /// Its TTL or hop limit has run out.
    TimeExceeded,
}

impl Problem {
    /// Type, code and the second word of the ICMPv4 message.
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::Prohibited => (3, 13, 0),
            // RFC 1191 section 4: the low half is the next-hop MTU.
            Self::TooBig { mtu } => (3, 4, mtu as u32),
            Self::TimeExceeded => (11, 0, 0),
        }
    }

    /// Type, code and the second word of the ICMPv6 message.
    const fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::TooBig { mtu } => (2, 0, mtu as u32),
            Self::TimeExceeded => (3, 0, 0),
        }
    }
}

/// Why no error is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("the packet is malformed")]
    Malformed,
    #[error("it is an ICMP error itself")]
    AboutError,
    #[error("it is a fragment other than the first")]
    LaterFragment,
    #[error("it went to a multicast or broadcast address")]
    Destination,
    #[error("its source is no single host")]
    Source,
    #[error("our address is of the other family")]
    Family,
    #[error("the buffer is too short")]
    Buffer,
}

/// Writes the IP packet that tells the sender of `offending` (from its IP header on) of `problem`
/// into `out`, from our address `source`. Returns its length: at most [`MAX_V4`] or [`MAX_V6`].
/// It quotes as much of the packet as fits.
///
/// # Errors
/// One of the reasons of RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7 and RFC 4443
/// section 2.4 (e) not to answer. Whether a packet went to a subnet's or the link's broadcast
/// address only the caller can tell; ask with [`super::fib::Fib`] first.
pub fn build(
    problem: Problem,
    source: IpAddr,
    offending: &[u8],
    out: &mut [u8],
) -> Result<usize, NoAnswer> {
    let ip = Ip::parse(offending).ok_or(NoAnswer::Malformed)?;
    if ip.later_fragment {
        return Err(NoAnswer::LaterFragment);
    }
    let packet = offending.get(..ip.end).ok_or(NoAnswer::Malformed)?;
    let icmp_type = || {
        offending
            .get(..ip.end)
            .and_then(|all| all.get(ip.payload))
            .copied()
    };
    match (source, ip.source, ip.destination) {
        (IpAddr::V4(ours), IpAddr::V4(to), IpAddr::V4(destination)) => {
            // Unknown types count as errors: RFC 1122 lets us send nothing rather than too much.
            let query = |kind| matches!(kind, 0 | 8 | 9 | 10 | 13 | 14 | 15 | 16 | 17 | 18);
            if ip.protocol == ICMP && !query(icmp_type().ok_or(NoAnswer::Malformed)?) {
                return Err(NoAnswer::AboutError);
            }
            if destination.is_multicast() || destination.is_broadcast() {
                return Err(NoAnswer::Destination);
            }
            let class_e = to.octets()[0] >= 240;
            if to.octets()[0] == 0 || to.is_loopback() || to.is_multicast() || class_e {
                return Err(NoAnswer::Source);
            }
            write_v4(problem, ours, to, packet, out)
        }
        (IpAddr::V6(ours), IpAddr::V6(to), IpAddr::V6(destination)) => {
            // Errors are types below 128, and redirects; a payload too short for a type is none.
            let kind = icmp_type();
            if ip.protocol == ICMPV6 && kind.is_none_or(|kind| kind < 128 || kind == 137) {
                return Err(NoAnswer::AboutError);
            }
            // Section 2.4 (e.3): "Packet Too Big" is the exception that lets path MTU discovery
            // work for multicast.
            if destination.is_multicast() && !matches!(problem, Problem::TooBig { .. }) {
                return Err(NoAnswer::Destination);
            }
            if to.is_unspecified() || to.is_loopback() || to.is_multicast() {
                return Err(NoAnswer::Source);
            }
            write_v6(problem, ours, to, packet, out)
        }
        _ => Err(NoAnswer::Family),
    }
}

/// The eight bytes of an ICMP header with its checksum still zero.
fn header((kind, code, word): (u8, u8, u32)) -> [u8; 8] {
    let [a, b, c, d] = word.to_be_bytes();
    [kind, code, 0, 0, a, b, c, d]
}

fn write_v4(
    problem: Problem,
    from: Ipv4Addr,
    to: Ipv4Addr,
    packet: &[u8],
    out: &mut [u8],
) -> Result<usize, NoAnswer> {
    let quoted = packet.get(..MAX_V4 - 28).unwrap_or(packet);
    let length = 28 + quoted.len();
    let out = out.get_mut(..length).ok_or(NoAnswer::Buffer)?;
    let total = u16::try_from(length).map_err(|_| NoAnswer::Buffer)?;
    let (ip, icmp) = out.split_at_mut(20);
    ip.copy_from_slice(&[
        0x45, TOS, 0, 0, 0, 0, 0x40, 0, TTL, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    icmp[..8].copy_from_slice(&header(problem.v4()));
    icmp[8..].copy_from_slice(quoted);
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(length)
}

fn write_v6(
    problem: Problem,
    from: Ipv6Addr,
    to: Ipv6Addr,
    packet: &[u8],
    out: &mut [u8],
) -> Result<usize, NoAnswer> {
    let quoted = packet.get(..MAX_V6 - 48).unwrap_or(packet);
    let length = 48 + quoted.len();
    let out = out.get_mut(..length).ok_or(NoAnswer::Buffer)?;
    let payload = u16::try_from(length - 40).map_err(|_| NoAnswer::Buffer)?;
    let (ip, icmp) = out.split_at_mut(40);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, TTL]);
    ip[4..6].copy_from_slice(&payload.to_be_bytes());
    ip[8..24].copy_from_slice(&from.octets());
    ip[24..40].copy_from_slice(&to.octets());
    icmp[..8].copy_from_slice(&header(problem.v6()));
    icmp[8..].copy_from_slice(quoted);
    let sum = transport_v6(from, to, ICMPV6, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(length)
}

/// A token bucket: at most `burst` at once and `per_second` in the long run (RFC 4443
/// section 2.4 (f), RFC 1812 section 4.3.2.8).
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Time that one token takes to grow; `None` if none grow.
    cost: Option<Duration>,
    /// The bucket's depth in time.
    depth: Duration,
    /// When the bucket was, or will be, empty.
    empty: Instant,
}

impl RateLimit {
    /// A full bucket. With 0 `per_second`, `allow` never is true.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let cost = Duration::from_secs(1).checked_div(per_second);
        let depth = cost.unwrap_or_default().saturating_mul(burst);
        Self {
            cost,
            depth,
            empty: now.checked_sub(depth).unwrap_or(now),
        }
    }

    /// Takes a token if there is one.
    pub fn allow(&mut self, now: Instant) -> bool {
        let Some(cost) = self.cost else { return false };
        // What grew past the depth is lost.
        if let Some(oldest) = now.checked_sub(self.depth) {
            self.empty = self.empty.max(oldest);
        }
        let after = self.empty + cost;
        if after > now {
            return false;
        }
        self.empty = after;
        true
    }
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
