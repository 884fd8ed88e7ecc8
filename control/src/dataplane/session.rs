//! Sessions as a worker has them: expanded keys, windows, headers made ready.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use thiserror::Error;

use super::command::Sending;
use super::handover::FIRST;
use super::paths::{Path, same_path};
use super::view::Traffic;
use crate::esp::{
    Backend, InboundSa, MixedFamilies, OutboundSa, Outer, OuterConfig, WrongKeyLength,
};
use crate::sadb::{SadbError, SessionId, SessionSpec, UdpEncap, spi_place};

/// Heartbeats whose answers are still believed.
const TOKENS: usize = 16;

/// A peer that roams moves at most so often: each move costs the core's time.
const STAY: Duration = Duration::from_millis(100);

/// Seconds between two looks at a session: one that is idle for so long, or twice as long, sleeps.
const LOOKS: usize = 300;

/// So far beyond the last slot may the place of an inbound SPI be.
const GAP: usize = 1024;

/// Why a session can not be used.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    /// Its key does not fit the cipher.
    #[error(transparent)]
    Key(#[from] WrongKeyLength),
    /// Its receiving side.
    #[error(transparent)]
    Inbound(#[from] SadbError),
    /// Its outer addresses.
    #[error(transparent)]
    Outer(#[from] MixedFamilies),
}

/// A session in a worker.
pub(super) struct Session {
    pub(super) spec: Arc<SessionSpec>,
    pub(super) group: usize,
    /// The worker that has its SAs; the others only know where they are.
    pub(super) worker: usize,
    pub(super) inbound: Option<InboundSa>,
    pub(super) outbound: Option<OutboundSa>,
    pub(super) outer: Outer,
    /// Where the peer is; it may have moved since the session was made.
    pub(super) peer_at: SocketAddr,
    moved: Option<Instant>,
    /// The port that it is sent from, if that is not the one that it shares with IKE.
    port: Option<u16>,
    /// Ethernet header toward the peer, if its next hop is resolved.
    pub(super) ethernet: Option<[u8; 14]>,
    /// Largest inner packet in bytes.
    pub(super) mtu: usize,
    /// MTU of the outside's next hop; 0 if there never was one.
    pub(super) limit: u32,
    /// What is known of the path behind it, if that is anything.
    pub(super) path: Option<Box<Path>>,
    /// What another worker has found out about it.
    pub(super) path_told: Option<u32>,
    /// When its client last said something about it.
    pub(super) path_heard: Option<Instant>,
    /// It is among those that are looked after.
    pub(super) followed: bool,
    /// The longest inner packet since the path was looked at.
    pub(super) longest: usize,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    pub(super) last_heard: Option<Instant>,
    /// An authenticated packet came in this batch.
    pub(super) heard: bool,
    /// Counter and token of the last heartbeats: an answer must carry them.
    tokens: VecDeque<(u32, [u8; 8])>,
    /// On a gateway: the LAN was told that the peer's inner addresses are here.
    pub(super) announced: bool,
    pub(super) sending: Sending,
    /// Packets when it was last looked whether the session rests.
    packets_then: u64,
}

impl Session {
    /// A session whose SAs another worker has.
    pub(super) fn elsewhere(spec: Arc<SessionSpec>, group: usize) -> Result<Self, SessionError> {
        Self::with(spec, group, None, None)
    }

    /// A session whose SAs this worker has.
    pub(super) fn new(
        spec: Arc<SessionSpec>,
        group: usize,
        backend: Backend,
    ) -> Result<Self, SessionError> {
        let inbound = spec
            .inbound
            .as_ref()
            .map(|sa| sa.receiver(backend))
            .transpose()?;
        let outbound = spec
            .outbound
            .as_ref()
            .map(|sa| sa.sender(backend))
            .transpose()?;
        Self::with(spec, group, inbound, outbound)
    }

    fn with(
        spec: Arc<SessionSpec>,
        group: usize,
        inbound: Option<InboundSa>,
        outbound: Option<OutboundSa>,
    ) -> Result<Self, SessionError> {
        let outer = spec.outer()?;
        let asks = spec.gateway.is_some() && outbound.is_some();
        Ok(Self {
            peer_at: spec.peer_at(),
            moved: None,
            port: None,
            spec,
            group,
            worker: FIRST,
            inbound,
            outbound,
            outer,
            ethernet: None,
            mtu: 0,
            limit: 0,
            path: None,
            path_told: None,
            path_heard: None,
            followed: false,
            longest: 0,
            received: Traffic::default(),
            sent: Traffic::default(),
            last_heard: None,
            heard: false,
            // Only a gateway is asked whether it lives.
            tokens: match asks {
                true => VecDeque::with_capacity(TOKENS),
                false => VecDeque::new(),
            },
            announced: false,
            sending: Sending::AtOnce,
            packets_then: 0,
        })
    }

    /// Whether it can send by itself, here or in another worker.
    pub(super) fn sends(&self) -> bool {
        self.spec.outbound.is_some() && self.spec.lane == 0
    }

    /// Lets the SAs sleep if they have carried nothing since the last look.
    fn look(&mut self) {
        let opened = self.inbound.as_ref().map_or(0, InboundSa::packets);
        let sealed = self.outbound.as_ref().map_or(0, OutboundSa::sequence);
        let packets = opened.wrapping_add(sealed);
        if packets == std::mem::replace(&mut self.packets_then, packets) {
            self.inbound.iter_mut().for_each(InboundSa::sleep);
            self.outbound.iter_mut().for_each(OutboundSa::sleep);
        }
    }

    /// Remembers a heartbeat that is sent.
    pub(super) fn asked(&mut self, count: u32, token: [u8; 8]) {
        if self.tokens.len() >= TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back((count, token));
    }

    /// Whether this is the token of a heartbeat that was sent lately. Several clusters may watch
    /// one gateway, each with its own count: only the token says which heartbeat is answered.
    pub(super) fn has_asked(&self, count: u32, token: [u8; 8]) -> bool {
        self.tokens.contains(&(count, token))
    }
}

impl Session {
    /// Sends to `remote` from now on, with ESP in UDP as before. Says whether that is news.
    pub(super) fn move_to(&mut self, remote: SocketAddr, now: Instant) -> bool {
        // Of the other IP version nothing can have come: the address is one that we heard from.
        let outer = self.outer_to(remote, self.port);
        let Some(outer) = outer.filter(|_| remote != self.peer_at) else {
            return false;
        };
        // What a client has found is mostly its own link's, and it does not know of its NAT's doings, so
        // it would not say it again.
        let told = self.path_size().1 == super::pmtu::Phase::Followed;
        if !same_path(self.peer_at, remote) && !told {
            self.forget_path(now);
        }
        (self.outer, self.peer_at) = (outer, remote);
        // What waits in another queue from before must not move it back at once.
        self.moved = Some(now);
        true
    }

    /// The header of ESP in UDP toward `remote`, from this port or from the one that is shared.
    fn outer_to(&self, remote: SocketAddr, port: Option<u16>) -> Option<Outer> {
        let encap = UdpEncap {
            local_port: port.unwrap_or(self.spec.encap?.local_port),
            remote_port: remote.port(),
        };
        let (local, remote) = (self.spec.outside_local, remote.ip());
        Outer::new(&OuterConfig::new(local, remote, Some(encap))).ok()
    }

    /// The port that it is sent from, if that is not the one that it shares with IKE.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Sends from this port, or from the one that is shared, from now on. Says whether that is news.
    pub(super) fn use_port(&mut self, port: Option<u16>) -> bool {
        if port == self.port {
            return false;
        }
        let Some(outer) = self.outer_to(self.peer_at, port) else {
            return false;
        };
        (self.outer, self.port) = (outer, port);
        true
    }

    /// Goes between other outer addresses, as `spec` says, from now on.
    pub(super) fn relocate(
        &mut self,
        spec: Arc<SessionSpec>,
        now: Instant,
    ) -> Result<(), MixedFamilies> {
        self.outer = spec.outer()?;
        self.peer_at = spec.peer_at();
        self.forget_path(now);
        self.port = None;
        // What is still on its way from before must not move it back.
        self.moved = None;
        self.spec = spec;
        Ok(())
    }

    /// Whether a packet from `source` moves the session there. It must be authentic, and have the
    /// newest sequence number of all.
    pub(super) fn may_follow(&mut self, source: SocketAddr, now: Instant) -> bool {
        // A client's gateway is known by its address, which stays.
        let gateway = self.spec.gateway.is_some() && source.ip() != self.peer_at.ip();
        let settled = self.moved.is_none_or(|at| now >= at + STAY);
        // A client with a port of its own is behind the same address.
        let port =
            self.spec.own_port && self.spec.gateway.is_none() && source.ip() == self.peer_at.ip();
        let moves = (self.spec.roams || port) && source != self.peer_at && !gateway && settled;
        if moves {
            self.moved = Some(now);
        }
        moves
    }
}

/// All sessions of a worker, by name, by inbound SPI and by gateway.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Session>>,
    /// Slots without a session.
    free: BTreeSet<usize>,
    by_id: HashMap<SessionId, usize>,
    /// Those that are not in the place that their inbound SPI names.
    by_spi: FxHashMap<u32, usize>,
    by_gateway: HashMap<IpAddr, usize>,
    /// The first slot that was looked at last.
    look_at: usize,
    /// Which worker this is, of so many.
    worker: usize,
    workers: usize,
}

impl Sessions {
    /// Those that a worker has or knows of, of so many workers.
    pub(super) fn of_worker(worker: usize, workers: usize) -> Self {
        Self {
            worker,
            workers,
            ..Self::default()
        }
    }

    /// Where a session with this inbound SPI lies, if it is this worker's and the place was free.
    #[inline]
    fn place(&self, spi: u32) -> Option<usize> {
        let place = spi_place(spi) as usize;
        match self.workers {
            0 | 1 => Some(place),
            workers => (place % workers == self.worker).then(|| place / workers),
        }
    }

    /// Adds a session; one with the same name gives way.
    pub(super) fn insert(&mut self, session: Session) -> usize {
        self.remove(session.spec.id);
        let index = self.slot_for(&session);
        self.by_id.insert(session.spec.id, index);
        if let Some(inbound) = &session.inbound
            && self.place(inbound.spi()) != Some(index)
        {
            self.by_spi.insert(inbound.spi(), index);
        }
        if let Some(gateway) = session.spec.gateway
            && session.spec.lane == 0
        {
            // Heartbeats too go by the session that is sent on.
            match session.sending {
                Sending::AtOnce => self.by_gateway.insert(gateway, index),
                _ => Some(*self.by_gateway.entry(gateway).or_insert(index)),
            };
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(session);
        }
        index
    }

    /// The place of its inbound SPI, if it is free; else any.
    fn slot_for(&mut self, session: &Session) -> usize {
        let place = session.inbound.as_ref().and_then(|sa| self.place(sa.spi()));
        // Drawn places come from the lowest on; an SPI that somebody chose may have any.
        if let Some(place) = place.filter(|place| *place < self.slots.len() + GAP) {
            for index in self.slots.len()..=place {
                self.slots.push(None);
                self.free.insert(index);
            }
            if self.free.remove(&place) {
                return place;
            }
        }
        self.free.pop_last().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let index = self.by_id.remove(&id)?;
        let session = self.slots.get_mut(index).and_then(Option::take)?;
        self.free.insert(index);
        // A newer session may have taken over an entry.
        if let Some(inbound) = &session.inbound
            && self.by_spi.get(&inbound.spi()) == Some(&index)
        {
            self.by_spi.remove(&inbound.spi());
        }
        if let Some(gateway) = session.spec.gateway
            && self.by_gateway.get(&gateway) == Some(&index)
        {
            match self.newest_with(gateway) {
                Some(survivor) => self.by_gateway.insert(gateway, survivor),
                None => self.by_gateway.remove(&gateway),
            };
        }
        Some(session)
    }

    /// The youngest session with a gateway that can send, one that may do so first.
    fn newest_with(&self, gateway: IpAddr) -> Option<usize> {
        let with = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let session = slot.as_ref()?;
            let fits = session.spec.gateway == Some(gateway) && session.sends();
            fits.then_some((session.sending, session.spec.id, index))
        });
        with.max().map(|(.., index)| index)
    }

    /// This session is the one to reach its gateway by.
    pub(super) fn lead(&mut self, index: usize) {
        let gateway = self.get(index).and_then(|session| session.spec.gateway);
        if let Some(gateway) = gateway {
            self.by_gateway.insert(gateway, index);
        }
    }

    /// Called once a second: looks at every [`LOOKS`]th session, another part each time. One that carried
    /// nothing since it was looked at last gives back its expanded keys and its window.
    pub(super) fn look(&mut self) {
        self.look_at = (self.look_at + 1) % LOOKS;
        let part = self.slots.iter_mut().skip(self.look_at).step_by(LOOKS);
        part.flatten().for_each(Session::look);
    }

    /// The session with a gateway that sends with this SPI. There are few.
    pub(super) fn sending_to(&self, gateway: IpAddr, spi: u32) -> Option<usize> {
        let mut slots = self.slots.iter();
        slots.position(|slot| {
            slot.as_ref().is_some_and(|session| {
                let outbound = session.outbound.as_ref().map(|sa| sa.spi());
                session.spec.gateway == Some(gateway) && outbound == Some(spi)
            })
        })
    }

    pub(super) fn by_id(&self, id: SessionId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    #[inline]
    pub(super) fn by_spi(&self, spi: u32) -> Option<usize> {
        let place = self.place(spi);
        let session = place.and_then(|place| self.get(place));
        let inbound = session.and_then(|session| session.inbound.as_ref());
        match inbound.is_some_and(|sa| sa.spi() == spi) {
            true => place,
            false => self.by_spi.get(&spi).copied(),
        }
    }

    /// The session with this name, to change.
    pub(super) fn by_id_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id(id).and_then(|index| self.get_mut(index))
    }

    /// The session by which a gateway is reached, to change.
    pub(super) fn by_gateway_mut(&mut self, gateway: IpAddr) -> Option<&mut Session> {
        self.by_gateway(gateway)
            .and_then(|index| self.get_mut(index))
    }

    /// The worker that has the SAs of a session, if it is another one.
    pub(super) fn elsewhere(&self, index: usize) -> Option<usize> {
        let worker = self.get(index)?.worker;
        (worker != self.worker).then_some(worker)
    }

    pub(super) fn by_gateway(&self, gateway: IpAddr) -> Option<usize> {
        self.by_gateway.get(&gateway).copied()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Session> {
        self.slots.get(index).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Session> {
        self.slots.get_mut(index).and_then(Option::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }

    /// The youngest session of a group that can send, one that may do so first.
    pub(super) fn newest_of(&self, group: usize) -> Option<SessionId> {
        let of_group = self.iter().filter(|s| s.group == group && s.sends());
        let newest = of_group.max_by_key(|session| (session.sending, session.spec.id));
        newest.map(|session| session.spec.id)
    }

    /// The inner addresses of a group's sessions, or of all, are no longer announced.
    pub(super) fn unannounce(&mut self, group: Option<Option<usize>>) {
        for session in self.slots.iter_mut().flatten() {
            if group.is_none_or(|group| group == Some(session.group)) {
                session.announced = false;
            }
        }
    }

    /// Indexes of all sessions; for loops that change them.
    pub(super) fn indexes(&self) -> std::ops::Range<usize> {
        0..self.slots.len()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
