//! Which inner addresses are reached through this gateway, told to the stations of the LAN.
//!
//! A client's inner address is on the gateway that the client uses now. That gateway answers ARP
//! and neighbour solicitations for it and announces it when it becomes active; one that hears
//! another station claim the address yields: it has moved.
//!
//! # Who yields
//! A claim carries no time, so the order of two claims follows from who heard whom:
//! 1. Active for [`GRACE`] or longer: yield. A claim sent before ours has arrived by then, so this
//!    one is later, and the later claimant wins.
//! 2. Active for less, and the claimant is who had announced the address before we took it: keep.
//!    Its words (a repeat, an answer) crossed our announcement.
//! 3. Active for less, and the claimant is another: both took the address at the same moment. The
//!    lower MAC yields, so exactly one stays.
//!
//! Whoever keeps in case 2 or 3 announces once more at the end of its grace, so that the last
//! word on the wire is the winner's; a loser that still holds on is past its own grace by then
//! and yields by rule 1. Nobody ever defends an address beyond that, so two gateways can not
//! fight. If frames are lost and the wrong one yields, the client's next authenticated packet
//! makes the right one claim again.
//!
//! The rules hold while a frame takes less than half of [`GRACE`] from a sender's clock to the
//! receiver's. A worker that was stopped for longer must call [`Announcer::overslept`] before it
//! looks at its rings.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::arp::{self, Arp, Operation};
use super::frame::{Ethernet, Mac, Tag};
use super::nd::{self, Message, Nd};

/// How long after activation a foreign claim may be older than ours.
pub const GRACE: Duration = Duration::from_millis(10);
/// Announcements after the first, counted from activation; a lost frame costs one step.
pub const REPEATS: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_secs(1),
];
/// A repeat later than this is not sent: whoever overslept does not know what happened since.
const LATE: Duration = Duration::from_millis(10);
/// Announcements of one address are at least this far apart, however often it changes hands.
const MIN_GAP: Duration = Duration::from_millis(5);
/// After oversleeping, only listen for so long.
const MUTE: Duration = Duration::from_millis(5);
/// A buffer of this size holds any frame written here.
pub const FRAME: usize = 96;

/// What came of [`Announcer::activate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The address is active now; frames are due.
    New,
    /// It was active already.
    Already,
    /// No room for another address.
    Full,
}

/// What came of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// The length of the answer written to the caller's buffer.
    pub reply: Option<usize>,
    /// The address that has moved to another station; it is no longer active here.
    pub yielded: Option<Yielded>,
}

/// An address that another station claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yielded {
    pub address: IpAddr,
    pub to: Mac,
}

#[derive(Debug)]
struct Active {
    since: Instant,
    /// Who had the address before us.
    before: Option<Mac>,
    /// When the next announcement is due; `None` after the last.
    due: Option<Instant>,
    /// Whether it is the first, which is sent however late.
    first: bool,
    /// IPv4: the request form went out, the reply form is next.
    second_form: bool,
    /// A claim was kept against: announce once more at the end of the grace.
    contested: bool,
}

#[derive(Debug, Default)]
struct Entry {
    active: Option<Active>,
    /// Who claimed the address last while it was not active here.
    owner: Option<Mac>,
    announced: Option<Instant>,
}

/// The announcer of one inside interface. It owns no socket and no clock: every `now` must not be
/// before the one of the call before.
///
/// Feed it each ARP and neighbour discovery frame with [`on_frame`](Self::on_frame), *before*
/// asking [`poll`](Self::poll) for frames to send; call `poll` until it gives none after each
/// `activate` and at [`next_deadline`](Self::next_deadline).
#[derive(Debug)]
pub struct Announcer {
    mac: Mac,
    vlan: Option<u16>,
    capacity: usize,
    entries: HashMap<IpAddr, Entry>,
    due: BTreeSet<(Instant, IpAddr)>,
    muted_until: Option<Instant>,
}

impl Announcer {
    /// `mac` is the interface's own; `vlan` the VLAN (1 to 4094) that it lives in, if tagged;
    /// `capacity` how many addresses may be known at once.
    #[must_use]
    pub fn new(mac: Mac, vlan: Option<u16>, capacity: usize) -> Self {
        Self {
            mac,
            vlan,
            capacity,
            entries: HashMap::new(),
            due: BTreeSet::new(),
            muted_until: None,
        }
    }

    /// Takes note of an address that may become active here (a session for it exists), so that
    /// claims to it are remembered. False if there is no room.
    pub fn register(&mut self, address: IpAddr) -> bool {
        if !self.entries.contains_key(&address) {
            if self.entries.len() >= self.capacity {
                return false;
            }
            self.entries.insert(address, Entry::default());
        }
        true
    }

    /// Forgets the address: its session is gone.
    pub fn forget(&mut self, address: IpAddr) {
        self.deactivate(address);
        self.entries.remove(&address);
    }

    /// The client that owns `address` uses this gateway now: call it whenever an authenticated
    /// packet from `address` arrives while it is not active. Announcements are due at once.
    pub fn activate(&mut self, address: IpAddr, now: Instant) -> Activation {
        if !self.register(address) {
            return Activation::Full;
        }
        let Some(entry) = self.entries.get_mut(&address) else {
            return Activation::Full;
        };
        if entry.active.is_some() {
            return Activation::Already;
        }
        let due = entry.announced.map_or(now, |last| now.max(last + MIN_GAP));
        entry.active = Some(Active {
            since: now,
            before: entry.owner.take(),
            due: Some(due),
            first: true,
            second_form: false,
            contested: false,
        });
        self.due.insert((due, address));
        Activation::New
    }

    /// The address is no longer active here; it stays registered. Nothing is sent.
    pub fn deactivate(&mut self, address: IpAddr) {
        let active = self
            .entries
            .get_mut(&address)
            .and_then(|entry| entry.active.take());
        if let Some(due) = active.and_then(|active| active.due) {
            self.due.remove(&(due, address));
        }
    }

    #[must_use]
    pub fn is_active(&self, address: IpAddr) -> bool {
        self.entries
            .get(&address)
            .is_some_and(|entry| entry.active.is_some())
    }

    /// The station that has claimed an address last, which is not active here.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<Mac> {
        self.entries.get(&address)?.owner
    }

    /// The addresses that are active here, in no order.
    pub fn active(&self) -> impl Iterator<Item = IpAddr> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.active.is_some())
            .map(|(a, _)| *a)
    }

    /// This thread was stopped for longer than a heartbeat takes to be missed: addresses may have
    /// moved. For a few milliseconds nothing is answered or announced, and any claim is believed.
    pub fn overslept(&mut self, now: Instant) {
        self.muted_until = Some(now + MUTE);
    }

    fn is_muted(&self, now: Instant) -> bool {
        self.muted_until.is_some_and(|until| now < until)
    }

    /// When `poll` has the next frame; `None` if nothing is planned.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        Some(self.muted_until.map_or(*due, |until| until.max(*due)))
    }

    /// Writes the next announcement that is due into `out`, at least [`FRAME`] bytes, and returns
    /// its length.
    pub fn poll(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.is_muted(now) {
            return None;
        }
        self.muted_until = None;
        // Ends: each turn moves an address to a later time or out of the set.
        loop {
            let (due, address) = *self.due.first()?;
            if due > now {
                return None;
            }
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&address) else {
                continue;
            };
            let Some(active) = entry.active.as_mut() else {
                continue;
            };
            let stale = !active.first && !active.second_form && now.duration_since(due) > LATE;
            let both_forms = address.is_ipv4() && !stale;
            let form = if active.second_form {
                Operation::Reply
            } else {
                Operation::Request
            };
            if both_forms && !active.second_form {
                active.second_form = true;
            } else {
                active.advance();
            }
            if let Some(next) = active.due {
                self.due.insert((next, address));
            }
            if stale {
                continue;
            }
            entry.announced = Some(now);
            let tag = self.vlan.map(Tag::vlan);
            return match address {
                IpAddr::V4(address) => arp::announcement(form, address, self.mac, tag, out),
                IpAddr::V6(address) => nd::announcement(address, self.mac, tag, out),
            };
        }
    }

    /// Takes a frame from the inside interface: ARP or neighbour discovery, anything else is
    /// ignored. An answer is written into `out`, at least [`FRAME`] bytes.
    pub fn on_frame(&mut self, frame: &[u8], now: Instant, out: &mut [u8]) -> Heard {
        if let Ok(arp) = Arp::parse(frame) {
            if !self.is_ours(&arp.ethernet) || arp.sender_mac == self.mac {
                return Heard::default();
            }
            // RFC 5227 section 2.4: any ARP packet with our address as its sender is a conflict.
            let yielded = self.claim(IpAddr::V4(arp.sender), arp.sender_mac, now);
            let answer = arp.sender != arp.target && self.answers(IpAddr::V4(arp.target), now);
            let reply = if answer {
                arp.reply(self.mac, out)
            } else {
                None
            };
            Heard { reply, yielded }
        } else if let Ok(nd) = Nd::parse(frame) {
            if !self.is_ours(&nd.ethernet) || nd.ethernet.source == self.mac {
                return Heard::default();
            }
            let (address, mac, asks) = match nd.message {
                Message::Solicitation { source_mac } => (nd.source, source_mac, true),
                Message::Advertisement { target_mac, .. } => (nd.target, target_mac, false),
            };
            let mac = mac.unwrap_or(nd.ethernet.source);
            let yielded = self.claim(IpAddr::V6(address), mac, now);
            let answer = asks && nd.source != nd.target && self.answers(nd.target.into(), now);
            let reply = if answer {
                nd.reply(self.mac, out)
            } else {
                None
            };
            Heard { reply, yielded }
        } else {
            Heard::default()
        }
    }

    fn answers(&self, address: IpAddr, now: Instant) -> bool {
        self.is_active(address) && !self.is_muted(now)
    }

    /// Whether the frame is in our VLAN. VLAN 0 is a tag with a priority only.
    fn is_ours(&self, ethernet: &Ethernet) -> bool {
        let id = ethernet.tag.map_or(0, |tag| tag.tci & 0x0fff);
        id == self.vlan.unwrap_or(0)
    }

    /// The station `mac` says that `address` is there.
    fn claim(&mut self, address: IpAddr, mac: Mac, now: Instant) -> Option<Yielded> {
        if mac == self.mac {
            return None;
        }
        let muted = self.is_muted(now);
        let entry = self.entries.get_mut(&address)?;
        let Some(active) = entry.active.as_mut() else {
            entry.owner = Some(mac);
            return None;
        };
        let grace_end = active.since + GRACE;
        let keep = active.before == Some(mac) || self.mac > mac;
        if muted || now >= grace_end || !keep {
            self.deactivate(address);
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.owner = Some(mac);
            }
            return Some(Yielded { address, to: mac });
        }
        active.contested = true;
        // What is due sooner plans the last word when it is sent.
        if active.due.is_none_or(|due| due > grace_end) {
            if let Some(due) = active.due.replace(grace_end) {
                self.due.remove(&(due, address));
            }
            self.due.insert((grace_end, address));
        }
        None
    }
}

impl Active {
    /// Plans the announcement after the one that was due.
    fn advance(&mut self) {
        self.first = false;
        self.second_form = false;
        let last_word = self.contested.then_some(GRACE);
        let done = self.due.take();
        self.due = last_word
            .into_iter()
            .chain(REPEATS)
            .map(|after| self.since + after)
            .find(|next| done.is_none_or(|done| *next > done));
    }
}

#[cfg(test)]
#[path = "announce_tests.rs"]
mod tests;
