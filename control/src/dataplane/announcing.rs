//! A gateway's duties on the LAN: it answers ARP and neighbour discovery for the inner addresses
//! of the clients that are active on it, and announces them, so that the answers of targets find
//! the gateway that a client uses *now*.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate_common::reason::Counter;

use super::command::WorkerEvent;
use super::core::{Core, ETHERNET, Way};
use super::handover::{FIRST, Note};
use super::net::announce::{Activation, Announcer, FRAME};
use super::net::arp::{Arp, Operation};
use super::net::groups::Groups as Memberships;
use super::net::nd::{Message, Nd};
use super::session::Session;
use super::xsk::{Frame, HEADROOM, Umem};

/// A station that asks for an address twice within this time got no answer.
const ASKED_AGAIN: Duration = Duration::from_millis(2500);

/// How many askers are remembered.
const ASKERS: usize = 64;

/// The LAN interface of a gateway.
pub(super) struct Lan {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub(super) mtu: usize,
    /// Its own addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The kernel forwards: inner packets are handed to it as they are.
    pub(super) routed: bool,
    pub(super) announcer: Announcer,
    /// Multicast groups that questions for inner IPv6 addresses go to.
    memberships: Memberships,
    /// Who asked for which address when, while no session for it was there.
    askers: Vec<(IpAddr, [u8; 6], Instant)>,
}

impl Lan {
    pub(super) fn new(
        index: u32,
        mac: [u8; 6],
        mtu: usize,
        addresses: Vec<IpAddr>,
        routed: bool,
        announcer: Announcer,
    ) -> Self {
        Self {
            index,
            mac,
            mtu,
            addresses,
            routed,
            announcer,
            memberships: Memberships::new(index),
            askers: Vec::with_capacity(ASKERS),
        }
    }

    /// Lets questions for an inner address reach this NIC: those of IPv6 are multicast.
    fn listen_for(&mut self, address: IpAddr) {
        let IpAddr::V6(address) = address else { return };
        if let Err(error) = self.memberships.join(address) {
            tracing::warn!(
                "questions for {address} may not be heard on the LAN: joining its multicast group \
                 failed: {error}"
            );
        }
    }

    /// The counterpart of `listen_for`.
    fn stop_listening_for(&mut self, address: IpAddr) {
        if let IpAddr::V6(address) = address {
            self.memberships.leave(address);
        }
    }

    /// An own address of the same family.
    pub(super) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| a.is_ipv4() == other.is_ipv4())
    }

    /// Whether this is a repeated question, which says that nobody answers.
    fn asked_again(&mut self, address: IpAddr, asker: [u8; 6], now: Instant) -> bool {
        self.askers
            .retain(|(_, _, at)| now.saturating_duration_since(*at) < ASKED_AGAIN);
        if let Some(at) = self
            .askers
            .iter()
            .position(|(a, m, _)| *a == address && *m == asker)
        {
            self.askers.swap_remove(at);
            return true;
        }
        if self.askers.len() < ASKERS {
            self.askers.push((address, asker, now));
        }
        false
    }
}

/// The address that a station asks for, and the station.
fn question(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    if let Ok(arp) = Arp::parse(frame) {
        let asks = arp.operation == Operation::Request && arp.sender != arp.target;
        return asks.then_some((IpAddr::V4(arp.target), arp.sender_mac));
    }
    let nd = Nd::parse(frame).ok()?;
    // One from the unspecified address only checks for a duplicate (RFC 4862 section 5.4).
    let asks = matches!(nd.message, Message::Solicitation { .. }) && !nd.source.is_unspecified();
    asks.then_some((IpAddr::V6(nd.target), nd.ethernet.source))
}

/// The address that a station says it has.
fn claimed(frame: &[u8]) -> Option<IpAddr> {
    if let Ok(arp) = Arp::parse(frame) {
        return Some(IpAddr::V4(arp.sender));
    }
    let nd = Nd::parse(frame).ok()?;
    Some(match nd.message {
        Message::Solicitation { .. } => nd.source.into(),
        Message::Advertisement { .. } => nd.target.into(),
    })
}

impl Core {
    /// An authenticated packet came by this session: its client is active here.
    pub(super) fn client_sends(&mut self, index: usize, now: Instant) {
        let Some(lan) = &mut self.lan else {
            return;
        };
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let left = |group: usize| self.groups.get(group).is_some_and(|group| group.left);
        if session.announced && !(session.spec.shared && left(session.group())) {
            return;
        }
        session.announced = true;
        let Some(state) = self.groups.get_mut(session.group()) else {
            return;
        };
        state.left = false;
        let group = state.id;
        if self.worker != FIRST {
            return self.tell(FIRST, Note::ClientSends(group));
        }
        let spec = std::sync::Arc::clone(&session.spec);
        let hosts = spec
            .remote_inner
            .iter()
            .filter(|p| p.prefix_len() == p.max_prefix_len());
        let mut full = false;
        for prefix in hosts.clone() {
            match lan.announcer.activate(prefix.addr(), now) {
                Activation::New => lan.listen_for(prefix.addr()),
                Activation::Already => {}
                Activation::Full => full = true,
            }
        }
        if full {
            self.count(Counter::AnnounceFull);
        }
        for prefix in hosts {
            let address = prefix.addr();
            self.send_event(WorkerEvent::InnerActive {
                group,
                address,
                here: true,
            });
        }
    }

    /// The LAN was out of reach: what was announced meanwhile went unheard, and so did the claims of
    /// others. Each address is announced again as soon as its client speaks.
    pub(super) fn announce_anew(&mut self) {
        let Some(lan) = &mut self.lan else { return };
        let active: Vec<IpAddr> = lan.announcer.active().collect();
        for address in active {
            lan.announcer.deactivate(address);
            lan.stop_listening_for(address);
        }
        self.sessions.unannounce(None);
        self.tell_all(Note::Unannounced(None));
    }

    /// A session that was announced is gone. What a newer session of the same client announces
    /// stays.
    pub(super) fn withdraw(&mut self, session: &Session) {
        let Some(lan) = &mut self.lan else { return };
        for prefix in &session.spec.remote_inner {
            let elsewhere = self
                .sessions
                .iter()
                .any(|other| other.announced && other.spec.remote_inner.contains(prefix));
            if elsewhere {
                continue;
            }
            if lan.announcer.is_active(prefix.addr()) {
                lan.stop_listening_for(prefix.addr());
            }
            lan.announcer.forget(prefix.addr());
        }
    }

    /// The numbers of a shared session are this node's no longer: where they went its client has gone, unless
    /// another session of it is in use here.
    pub(super) fn client_left(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        if !std::mem::take(&mut session.announced) {
            return;
        }
        let group = session.group();
        if self.is_first() {
            return self.client_has_left(group);
        }
        if !self.in_use(group)
            && let Some(group) = self.groups.get(group).map(|group| group.id)
        {
            self.tell(FIRST, Note::ClientLeft(group));
        }
    }

    /// The client of a group has gone to another gateway, unless a session of the first worker is in use.
    pub(super) fn client_has_left(&mut self, group: usize) {
        if self.in_use(group) {
            return;
        }
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        state.left = true;
        let (id, prefixes) = (state.id, state.prefixes.clone());
        // A session of it that another worker has, and that is in use, announces it anew.
        self.tell_all(Note::Left(id));
        for prefix in &prefixes {
            let address = prefix.addr();
            let Some(lan) = &mut self.lan else { return };
            if prefix.prefix_len() == prefix.max_prefix_len() && lan.announcer.is_active(address) {
                lan.announcer.deactivate(address);
                lan.stop_listening_for(address);
                self.send_event(WorkerEvent::InnerActive {
                    group: id,
                    address,
                    here: false,
                });
            }
        }
    }

    /// Whether a session that a group sends on carries packets of its client in this worker.
    pub(super) fn in_use(&self, group: usize) -> bool {
        let Some(state) = self.groups.get(group).filter(|state| !state.left) else {
            return false;
        };
        let mut sessions = state.active.iter().chain(&state.rare().lanes);
        sessions.any(|id| {
            let index = self.sessions.by_id(*id);
            let session = index.and_then(|index| self.sessions.get(index));
            session.is_some_and(|session| session.announced && session.may_be_used())
        })
    }

    /// ARP or neighbour discovery about an inner address.
    pub(super) fn neighbour_frame(
        &mut self,
        frame: &mut Frame,
        umem: &mut Umem,
        now: Instant,
    ) -> Way {
        let Some(lan) = &mut self.lan else {
            return Way::Drop(Counter::NotOurs);
        };
        let mut answer = [0; FRAME];
        let bytes = &*umem.packet(frame);
        let heard = lan.announcer.on_frame(bytes, now, &mut answer);
        let gone = claimed(bytes).filter(|address| lan.announcer.owner(*address).is_some());
        let unanswered = question(bytes).filter(|(target, asker)| {
            !lan.announcer.is_active(*target) && lan.asked_again(*target, *asker, now)
        });
        if let Some(length) = heard.reply {
            self.push_frame(&answer[..length], umem);
        }
        if let Some(yielded) = heard.yielded {
            self.moved_away(yielded.address);
        }
        if let Some((target, _)) = unanswered {
            self.nobody_answers(target, now);
        }
        if let Some(address) = gone {
            self.pass_on(address, umem, now);
        }
        Way::Done
    }

    /// Another gateway has a client now: what waits here for numbers of its session goes there.
    fn pass_on(&mut self, client: IpAddr, umem: &mut Umem, now: Instant) {
        let group = self.groups.lookup(client);
        let group = group.and_then(|group| self.groups.get(group));
        let index = group.and_then(|group| self.sessions.by_id(group.active?));
        let session = index.and_then(|index| self.sessions.get(index));
        let spi = session.filter(|session| session.spec.shared && !session.has_numbers());
        if let Some(spi) = spi.map(|session| session.spi) {
            self.release(spi, umem, now);
        }
    }

    /// The header of a packet to a client whose session has no numbers here, toward the gateway that has told
    /// the LAN that the client is there. The packet's TTL is lowered each time it goes on, so it ends.
    pub(super) fn toward_owner(&self, client: IpAddr) -> Option<[u8; ETHERNET]> {
        let lan = self.lan.as_ref()?;
        let to = lan.announcer.owner(client)?;
        let mut header = [0; ETHERNET];
        let (macs, kind) = header.split_at_mut(2 * to.len());
        let (destination, source) = macs.split_at_mut(to.len());
        destination.copy_from_slice(&to);
        source.copy_from_slice(&lan.mac);
        let ethertype: u16 = if client.is_ipv4() { 0x0800 } else { 0x86dd };
        kind.copy_from_slice(&ethertype.to_be_bytes());
        Some(header)
    }

    /// A station of the LAN asks for an inner address in vain. Whoever has a session with its
    /// client takes it up; else one is made.
    fn nobody_answers(&mut self, target: IpAddr, now: Instant) {
        let Some(group) = self.groups.lookup(target) else {
            return;
        };
        let Some(state) = self.groups.get(group) else {
            return;
        };
        match state.active.and_then(|id| self.sessions.by_id(id)) {
            Some(index) if self.sessions.get(index).is_some_and(Session::may_be_used) => {
                self.client_sends(index, now);
            }
            // Another gateway has it, or none yet.
            Some(_) => {}
            None if state.on_demand => self.want(group, now),
            None => {}
        }
    }

    /// Another gateway has this inner address now.
    fn moved_away(&mut self, address: IpAddr) {
        if let Some(lan) = &mut self.lan {
            lan.stop_listening_for(address);
        }
        for index in self.sessions.indexes() {
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            let owns = session
                .spec
                .remote_inner
                .iter()
                .any(|prefix| prefix.addr() == address);
            if !owns || !session.announced {
                continue;
            }
            session.announced = false;
            if let Some(group) = self.groups.get(session.group()).map(|group| group.id) {
                self.tell_all(Note::Unannounced(Some(group)));
                self.send_event(WorkerEvent::InnerActive {
                    group,
                    address,
                    here: false,
                });
            }
        }
    }

    /// Sends the announcements that are due.
    pub(super) fn announce(&mut self, umem: &mut Umem, now: Instant) {
        let mut out = [0; FRAME];
        while let Some(length) = self
            .lan
            .as_mut()
            .and_then(|lan| lan.announcer.poll(now, &mut out))
        {
            self.push_frame(&out[..length], umem);
        }
    }

    /// When [`Self::announce`] has something to send.
    pub(super) fn announce_deadline(&self) -> Option<Instant> {
        self.lan.as_ref()?.announcer.next_deadline()
    }

    fn push_frame(&mut self, bytes: &[u8], umem: &mut Umem) {
        let Some(mut frame) = umem.take() else {
            return self.count(Counter::NoFrame);
        };
        let range = HEADROOM..HEADROOM + bytes.len();
        umem.chunk_mut(&frame)[range.clone()].copy_from_slice(bytes);
        frame.set_range(range);
        self.push(frame, Way::Lan);
    }
}
