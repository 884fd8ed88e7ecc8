//! Next hops in use: a cache in front of the routes, and the word to the kernel that they are
//! needed, because it does not see what is sent by AF_XDP.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::core::{ETHERNET, ethernet};
use super::net::fib::{Fib, Refusal, Resolution};
use super::net::fib_watch::InUse;

/// Destinations that are remembered.
const CAPACITY: usize = 8192;

/// A next hop in use is reported this often.
const REPORT: Duration = Duration::from_secs(1);

/// How an inner packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// By the LAN interface, with this Ethernet header.
    Ready([u8; ETHERNET]),
    /// By the LAN interface, once the kernel has resolved the next hop.
    Unresolved,
    /// To this host itself.
    Local,
    /// Not by the LAN interface.
    Elsewhere(Option<Refusal>),
}

struct Known {
    hop: Hop,
    next: IpAddr,
    reported: Instant,
}

/// The cache of a worker.
pub(super) struct Hops {
    known: FxHashMap<IpAddr, Known>,
    in_use: InUse,
}

impl Hops {
    pub(super) fn new(in_use: InUse) -> Self {
        let mut known = FxHashMap::default();
        known.reserve(CAPACITY);
        Self { known, in_use }
    }

    /// Routes or neighbours have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// How a packet for `destination` leaves by interface `lan`.
    pub(super) fn lookup(&mut self, fib: &Fib, lan: u32, destination: IpAddr, now: Instant) -> Hop {
        if let Some(known) = self.known.get_mut(&destination) {
            if now.saturating_duration_since(known.reported) >= REPORT {
                known.reported = now;
                self.in_use.report(lan, known.next);
            }
            return known.hop;
        }
        let way = fib.lookup(destination);
        let hop = match way.resolution {
            Resolution::Resolved(mac) if way.interface == lan => match way.source_mac {
                Some(source) => Hop::Ready(ethernet(mac, source, destination.is_ipv6())),
                None => Hop::Unresolved,
            },
            Resolution::Unresolved(_) if way.interface == lan => Hop::Unresolved,
            Resolution::Local => Hop::Local,
            Resolution::Unreachable(refusal) => Hop::Elsewhere(Some(refusal)),
            _ => Hop::Elsewhere(None),
        };
        let next = way.next(destination);
        if matches!(hop, Hop::Ready(_) | Hop::Unresolved) {
            self.in_use.report(lan, next);
        }
        if matches!(hop, Hop::Ready(_)) {
            // Full: start anew; whoever scans the LAN gains nothing.
            if self.known.len() >= CAPACITY {
                self.known.clear();
            }
            self.known.insert(
                destination,
                Known {
                    hop,
                    next,
                    reported: now,
                },
            );
        }
        hop
    }

    /// The outside next hop toward a peer carries traffic.
    pub(super) fn report(&self, interface: u32, next: IpAddr) {
        self.in_use.report(interface, next);
    }
}
