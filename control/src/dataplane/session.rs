//! Sessions as a worker has them: expanded keys, windows, headers made ready.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};
use thiserror::Error;

use super::awake::{Awake, Rest, sas};
use super::command::Sending;
use super::handover::FIRST;
use super::paths::{Path, same_path};
use super::view::{PIECE, Traffic};
use crate::esp::{Backend, MixedFamilies, Outer, OuterConfig, WrongKeyLength};
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

/// Counter and token of heartbeats.
type Tokens = ArrayVec<(u32, [u8; 8]), TOKENS>;

/// A session in a worker. There may be a million, most of them idle.
pub(super) struct Session {
    pub(super) spec: Arc<SessionSpec>,
    group: u32,
    /// The worker that has its SAs; the others only know where they are.
    pub(super) worker: u16,
    pub(super) here: bool,
    pub(super) backend: Backend,
    /// What carries its packets, while there are any.
    pub(super) awake: Option<Box<Awake>>,
    pub(super) rest: Rest,
    /// Of the SA that receives, if it is here; else 0, which is no SPI.
    pub(super) spi: u32,
    /// Where the peer is; it may have moved since the session was made.
    at: (IpAddr, u16),
    /// The port that it is sent from, if that is not the one that it shares with IKE.
    port: Option<u16>,
    /// Ethernet header toward the peer, if its next hop is resolved.
    pub(super) ethernet: Option<[u8; 14]>,
    /// Largest inner packet in bytes.
    pub(super) mtu: u32,
    /// MTU of the outside's next hop; 0 if there never was one.
    pub(super) limit: u32,
    /// What is known of the path behind it, if that is anything.
    pub(super) path: Option<Box<Path>>,
    /// How long packets on it may be, as another worker has found out; at first any.
    pub(super) path_told: u32,
    /// It is among those that are looked after.
    pub(super) followed: bool,
    /// The longest inner packet since the path was looked at.
    pub(super) longest: u32,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    pub(super) last_heard: Option<Instant>,
    /// An authenticated packet came in this batch.
    pub(super) heard: bool,
    /// Counter and token of the last heartbeats: an answer must carry them.
    tokens: Option<Box<Tokens>>,
    /// On a gateway: the LAN was told that the peer's inner addresses are here.
    pub(super) announced: bool,
    pub(super) sending: Sending,
}

// So many bytes times all clients.
const _: () = assert!(size_of::<Option<Session>>() == 168);

impl Session {
    /// A session whose SAs another worker has.
    pub(super) fn elsewhere(spec: Arc<SessionSpec>, group: usize) -> Result<Self, SessionError> {
        spec.outer()?;
        Ok(Self::with(spec, group, Backend::default(), false))
    }

    /// A session whose SAs this worker has.
    pub(super) fn new(
        spec: Arc<SessionSpec>,
        group: usize,
        backend: Backend,
    ) -> Result<Self, SessionError> {
        // Made to see that nothing is wrong with them; what carries packets is made for the first of them.
        sas(&spec, backend)?;
        spec.outer()?;
        Ok(Self::with(spec, group, backend, true))
    }

    fn with(spec: Arc<SessionSpec>, group: usize, backend: Backend, here: bool) -> Self {
        let inbound = spec.inbound.as_ref().filter(|_| here);
        let asks = here && spec.gateway.is_some() && spec.outbound.is_some();
        Self {
            at: apart(spec.peer_at()),
            spi: inbound.map_or(0, |sa| sa.spi),
            port: None,
            spec,
            group: group as u32,
            worker: FIRST as u16,
            here,
            backend,
            awake: None,
            rest: Rest::default(),
            ethernet: None,
            mtu: 0,
            limit: 0,
            path: None,
            path_told: u32::MAX,
            followed: false,
            longest: 0,
            received: Traffic::default(),
            sent: Traffic::default(),
            last_heard: None,
            heard: false,
            // Only a gateway is asked whether it lives.
            tokens: asks.then(Box::default),
            announced: false,
            sending: Sending::AtOnce,
        }
    }

    /// Whether it can send by itself, here or in another worker.
    pub(super) fn sends(&self) -> bool {
        self.spec.outbound.is_some() && self.spec.lane == 0
    }

    /// Remembers a heartbeat that is sent.
    pub(super) fn asked(&mut self, count: u32, token: [u8; 8]) {
        if let Some(tokens) = &mut self.tokens {
            if tokens.is_full() {
                tokens.remove(0);
            }
            tokens.push((count, token));
        }
    }

    /// Whether this is the token of a heartbeat that was sent lately. Several clusters may watch
    /// one gateway, each with its own count: only the token says which heartbeat is answered.
    pub(super) fn has_asked(&self, count: u32, token: [u8; 8]) -> bool {
        let mut tokens = self.tokens.iter().flat_map(|tokens| tokens.iter());
        tokens.any(|asked| *asked == (count, token))
    }

    /// The same, and it was not answered before.
    pub(super) fn was_asked(&mut self, count: u32, token: [u8; 8]) -> bool {
        let asked = self.has_asked(count, token);
        if let Some(tokens) = &mut self.tokens {
            tokens.retain(|asked| *asked != (count, token));
        }
        asked
    }
}

impl Session {
    /// Sends to `remote` from now on, with ESP in UDP as before. Says whether that is news.
    pub(super) fn move_to(&mut self, remote: SocketAddr, now: Instant) -> bool {
        // Of the other IP version nothing can have come: the address is one that we heard from.
        let outer = self.outer_to(remote, self.port);
        let Some(outer) = outer.filter(|_| remote != self.peer_at()) else {
            return false;
        };
        // What a client has found is mostly its own link's, and it does not know of its NAT's doings, so
        // it would not say it again.
        let told = self.path_size().1 == super::pmtu::Phase::Followed;
        if !same_path(self.peer_at(), remote) && !told {
            self.forget_path(now);
        }
        self.at = apart(remote);
        if let Some(awake) = self.awake() {
            awake.outer = outer;
            // What waits in another queue from before must not move it back at once.
            awake.moved = Some(now);
        }
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

    /// Where its group lies.
    #[inline]
    pub(super) fn group(&self) -> usize {
        self.group as usize
    }

    /// Where the peer is.
    #[inline]
    pub(super) fn peer_at(&self) -> SocketAddr {
        self.at.into()
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
        let Some(outer) = self.outer_to(self.peer_at(), port) else {
            return false;
        };
        self.port = port;
        if let Some(awake) = &mut self.awake {
            awake.outer = outer;
        }
        true
    }

    /// Goes between other outer addresses, as `spec` says, from now on.
    pub(super) fn relocate(
        &mut self,
        spec: Arc<SessionSpec>,
        now: Instant,
    ) -> Result<(), MixedFamilies> {
        let outer = spec.outer()?;
        self.at = apart(spec.peer_at());
        self.forget_path(now);
        self.port = None;
        self.spec = spec;
        if let Some(awake) = &mut self.awake {
            // What is still on its way from before must not move it back.
            (awake.outer, awake.moved) = (outer, None);
        }
        Ok(())
    }

    /// Whether a packet from `source` moves the session there. It must be authentic, and have the
    /// newest sequence number of all.
    pub(super) fn may_follow(&mut self, source: SocketAddr, now: Instant) -> bool {
        // A client's gateway is known by its address, which stays.
        let gateway = self.spec.gateway.is_some() && source.ip() != self.peer_at().ip();
        // A client with a port of its own is behind the same address.
        let port =
            self.spec.own_port && self.spec.gateway.is_none() && source.ip() == self.peer_at().ip();
        if !(self.spec.roams || port) || source == self.peer_at() || gateway {
            return false;
        }
        let Some(awake) = self.awake() else {
            return false;
        };
        let settled = awake.moved.is_none_or(|at| now >= at + STAY);
        if settled {
            awake.moved = Some(now);
        }
        settled
    }
}

/// An address and a port take less room than a socket's address.
fn apart(at: SocketAddr) -> (IpAddr, u16) {
    (at.ip(), at.port())
}

/// All sessions of a worker, by name, by inbound SPI and by gateway.
#[derive(Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Session>>,
    /// Slots without a session.
    free: BTreeSet<usize>,
    /// Slots of sessions, which know their names.
    by_id: HashTable<u32>,
    /// Those that are not in the place that their inbound SPI names.
    by_spi: FxHashMap<u32, u32>,
    by_gateway: HashMap<IpAddr, usize>,
    /// The first slot that was looked at last.
    look_at: usize,
    /// Which worker this is, of so many.
    worker: usize,
    workers: usize,
    /// Whether any of so many slots has changed since it was shown.
    changed: Vec<bool>,
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
        let slots = &self.slots;
        let hash_of = |at: &u32| {
            let session = slots.get(*at as usize).and_then(Option::as_ref);
            session.map_or(0, |session| FxBuildHasher.hash_one(session.spec.id))
        };
        let hash = FxBuildHasher.hash_one(session.spec.id);
        self.by_id.insert_unique(hash, index as u32, hash_of);
        if session.spi != 0 && self.place(session.spi) != Some(index) {
            self.by_spi.insert(session.spi, index as u32);
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
        let pieces = self.slots.len().div_ceil(PIECE);
        if self.changed.len() < pieces {
            self.changed.resize(pieces, true);
        }
        self.changes(index);
        index
    }

    /// The place of its inbound SPI, if it is free; else any.
    fn slot_for(&mut self, session: &Session) -> usize {
        let place = self.place(session.spi).filter(|_| session.spi != 0);
        // Drawn places come from the lowest on; an SPI that somebody chose may have any. Those that are left
        // free for others are few in all.
        let most = self.slots.len() + GAP.saturating_sub(self.free.len());
        if let Some(place) = place.filter(|place| *place < most.max(self.slots.len())) {
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
        let index = self.by_id(id)?;
        let hash = FxBuildHasher.hash_one(id);
        if let Ok(entry) = self.by_id.find_entry(hash, |at| *at == index as u32) {
            entry.remove();
        }
        let session = self.slots.get_mut(index).and_then(Option::take)?;
        self.changes(index);
        self.free.insert(index);
        // A newer session may have taken over an entry.
        if self.by_spi.get(&session.spi) == Some(&(index as u32)) {
            self.by_spi.remove(&session.spi);
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
                session.spec.gateway == Some(gateway) && session.sends_with() == Some(spi)
            })
        })
    }

    pub(super) fn by_id(&self, id: SessionId) -> Option<usize> {
        let here = |at: &u32| {
            let session = self.get(*at as usize);
            session.is_some_and(|session| session.spec.id == id)
        };
        let found = self.by_id.find(FxBuildHasher.hash_one(id), here);
        found.map(|at| *at as usize)
    }

    #[inline]
    pub(super) fn by_spi(&self, spi: u32) -> Option<usize> {
        let place = self.place(spi);
        let session = place.and_then(|place| self.get(place));
        match session.is_some_and(|session| session.spi == spi) {
            true => place,
            false => self.by_spi.get(&spi).map(|at| *at as usize),
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
        let worker = usize::from(self.get(index)?.worker);
        (worker != self.worker).then_some(worker)
    }

    pub(super) fn by_gateway(&self, gateway: IpAddr) -> Option<usize> {
        self.by_gateway.get(&gateway).copied()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Session> {
        self.slots.get(index).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Session> {
        self.changes(index);
        self.slots.get_mut(index).and_then(Option::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }

    /// The youngest session of a group that can send, one that may do so first.
    pub(super) fn newest_of(&self, group: usize) -> Option<SessionId> {
        let of_group = self.iter().filter(|s| s.group() == group && s.sends());
        let newest = of_group.max_by_key(|session| (session.sending, session.spec.id));
        newest.map(|session| session.spec.id)
    }

    /// The inner addresses of a group's sessions, or of all, are no longer announced.
    pub(super) fn unannounce(&mut self, group: Option<Option<usize>>) {
        self.changed.fill(true);
        for session in self.slots.iter_mut().flatten() {
            if group.is_none_or(|group| group == Some(session.group())) {
                session.announced = false;
            }
        }
    }

    #[inline]
    fn changes(&mut self, index: usize) {
        if let Some(changed) = self.changed.get_mut(index / PIECE) {
            *changed = true;
        }
    }

    /// Sessions in pieces of [`PIECE`] slots, of those that have changed since the last call; all do if `all`.
    pub(super) fn take_changed(
        &mut self,
        all: bool,
    ) -> impl Iterator<Item = Option<impl Iterator<Item = &Session>>> {
        let pieces = self.slots.chunks(PIECE).zip(&mut self.changed);
        pieces.map(move |(slots, changed)| {
            let changed = std::mem::take(changed) || all;
            changed.then(|| slots.iter().flatten())
        })
    }

    /// Indexes of all sessions; for loops that change them.
    pub(super) fn indexes(&self) -> std::ops::Range<usize> {
        0..self.slots.len()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
