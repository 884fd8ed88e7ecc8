//! How long packets toward each peer may be: what the [`PathMtu`] of a session wants done, and what is heard
//! about it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use evergate_common::reason::Counter;

use super::command::WorkerEvent;
use super::core::{Core, ETHERNET};
use super::handover::Note;
use super::net::quote::{Quoted, TooLong};
use super::pmtu::{BASE, PathMtu, Phase};
use super::session::Session;
use super::xsk::{CHUNK, HEADROOM, Umem};
use crate::esp::NEXT_DUMMY;
use crate::sadb::SessionId;

/// The longest IP packet that a frame has room for.
pub(super) const LONGEST: u32 = (CHUNK - HEADROOM - ETHERNET) as u32;

/// Probes whose answers are still believed.
const PROBES: usize = 4;

/// An ICMP error about a packet sent so many packets ago is too old.
const RECENT: u32 = 1 << 20;

/// How often a gateway looks after all its paths at most.
const PACE: Duration = Duration::from_secs(10);

/// A client's word is taken so often at most; an honest one repeats it after a second.
const HEAR_AGAIN: Duration = Duration::from_millis(500);

/// What a dummy packet begins with that tells the peer how long packets may be: this, then the size in four
/// bytes, in network order.
const SAYS: [u8; 4] = *b"EGM1";

/// Bytes of such a packet.
const SAYS_LEN: usize = 32;

/// A size that changed is told so often, a second apart: a packet may be lost.
const TIMES: u8 = 3;

/// A size that is less than the route's is told again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// How much of the discovery is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// A client probes, everybody listens to ICMP and to what clients say.
    #[default]
    Probe,
    /// Nobody probes.
    Follow,
    /// The routes alone count.
    Off,
}

/// The path toward a session's peer.
#[derive(Clone)]
pub(super) struct Path {
    pub(super) mtu: PathMtu,
    /// Counter, token and size of the last probes.
    pub(super) probes: ArrayVec<(u32, [u8; 8], u32), PROBES>,
    pub(super) counter: u32,
    /// The size that was told as an event.
    noted: u32,
    /// The size that the peer was told, how often, and when.
    said: (u32, u8, Instant),
}

impl Path {
    fn new(limit: u32, now: Instant) -> Self {
        Self {
            mtu: PathMtu::new(limit, now),
            probes: ArrayVec::new(),
            counter: 0,
            noted: limit,
            said: (limit, TIMES, now),
        }
    }

    /// Size of the probe with this counter and token.
    pub(super) fn sent(&self, counter: u32, token: Option<[u8; 8]>) -> Option<u32> {
        let fits = |probe: &&(u32, [u8; 8], u32)| {
            probe.0 == counter && token.is_none_or(|token| token == probe.1)
        };
        self.probes.iter().find(fits).map(|probe| probe.2)
    }
}

impl Session {
    /// Size of the longest IP packet toward the peer, and what is known of it.
    pub(super) fn path_size(&self) -> (u32, Phase) {
        let (size, phase) = match &self.path {
            Some(path) => (path.mtu.size(), path.mtu.phase()),
            None => (self.limit, Phase::Followed),
        };
        (size.min(self.path_told), phase)
    }

    /// Takes up the MTU of the outside's next hop. While there is no route the last one stays: a
    /// hole in the routing must not teach the stations an MTU of zero.
    pub(super) fn follow_mtu(&mut self, outside: u32, now: Instant) {
        if outside > 0 {
            self.limit = outside.min(LONGEST);
            if let Some(path) = &mut self.path {
                path.mtu.set_limit(self.limit, now);
            }
            self.fit();
        }
    }

    /// Whether its packets go that way already.
    pub(super) fn goes(&self, outside: u32, ethernet: Option<[u8; 14]>) -> bool {
        self.ethernet == ethernet && (outside == 0 || self.limit == outside.min(LONGEST))
    }

    /// Takes up what the path carries, as found here or by another worker.
    pub(super) fn fit(&mut self) {
        self.mtu = self.inner_mtu(self.path_size().0 as usize) as u32;
    }

    /// The peer is elsewhere: what was found is of no use.
    pub(super) fn forget_path(&mut self, now: Instant) {
        if let Some(path) = &mut self.path {
            path.mtu.restart(now);
            path.probes.clear();
        }
    }

    /// Whether a router may say this about a packet that we sent on this session lately.
    fn has_sent(&self, said: &TooLong) -> bool {
        let Some(own) = self.sends_with() else {
            return false;
        };
        let ports = self
            .spec
            .encap
            .map(|encap| self.port().unwrap_or(encap.local_port))
            .map(|local| (local, self.peer_at().port()));
        if said.destination != self.peer_at().ip() || said.ports != ports {
            return false;
        }
        match said.esp {
            Some(Quoted::Esp { spi, sequence }) => {
                let ago = (self.sealed() as u32).wrapping_sub(sequence);
                spi == own && ago <= RECENT
            }
            Some(Quoted::Heartbeat { counter, token }) => {
                let path = self.path.as_ref();
                path.is_some_and(|path| path.sent(counter, token).is_some())
            }
            // No more than ports is quoted: anybody can guess them. A probe shows in a round trip whether
            // it is true, so only where there are any.
            None => self
                .path
                .as_ref()
                .is_some_and(|path| path.mtu.phase() != Phase::Followed),
        }
    }
}

impl Core {
    /// The path of a session, from now on looked after.
    pub(super) fn path_of(&mut self, index: usize, now: Instant) -> Option<&mut Path> {
        let session = self.sessions.get_mut(index)?;
        if session.limit == 0 {
            return None;
        }
        if !std::mem::replace(&mut session.followed, true) {
            self.paths.push(index);
        }
        // A gateway has many paths and probes none: what it was told is forgotten some seconds late.
        let pace = match self.lan {
            Some(_) => PACE,
            None => Duration::ZERO,
        };
        self.paths_at = self.paths_at.min(now + pace);
        let limit = session.limit;
        let path = session
            .path
            .get_or_insert_with(|| Box::new(Path::new(limit, now)));
        Some(path)
    }

    /// A session takes the place of another one with the same peer: what is known of the path stays true.
    pub(super) fn inherit_path(&mut self, session: &mut Session, now: Instant) {
        let known = self
            .paths
            .iter()
            .filter_map(|index| self.sessions.get(*index));
        let mut same = known.filter(|other| {
            other.group() == session.group() && other.peer_at() == session.peer_at()
        });
        if let Some(mut path) = same.find_map(|other| other.path.clone()) {
            // They were sent on the other one.
            path.probes.clear();
            path.mtu.pause();
            session.path = Some(path);
            self.paths_at = now;
        }
        if session.spec.lane > 0 {
            let told = self
                .groups
                .get(session.group())
                .map(|group| &group.rare().paths_told);
            let gateway = session.spec.gateway;
            let mut told = told.into_iter().flatten();
            let told = told.find(|(at, _)| *at == gateway);
            session.path_told = told.map_or(u32::MAX, |(_, size)| *size);
        }
        session.fit();
    }

    /// Looks after the path of a session that came with one.
    pub(super) fn adopt_path(&mut self, index: usize) {
        if let Some(session) = self.sessions.get_mut(index)
            && session.path.is_some()
            && !std::mem::replace(&mut session.followed, true)
        {
            self.paths.push(index);
        }
    }

    /// A router says that a packet to the peer of these sessions was too long.
    pub(super) fn told_too_long(&mut self, sessions: &[SessionId], said: &TooLong, now: Instant) {
        let of = |core: &Self, id: &SessionId| {
            let index = core.sessions.by_id(*id)?;
            core.sessions.get(index)?.has_sent(said).then_some(index)
        };
        let Some(index) = sessions.iter().find_map(|id| of(self, id)) else {
            return self.count(Counter::IcmpIgnored);
        };
        self.count(Counter::IcmpHeard);
        let Some(session) = self.sessions.get(index) else {
            return;
        };
        // What is true of a lane is its session's to find out.
        if session.spec.lane > 0
            && let Some(group) = self.groups.get(session.group()).map(|group| group.id)
        {
            return self.tell_all(Note::TooLong(group, session.spec.gateway, said.mtu));
        }
        self.follow_too_long(index, said.mtu, now);
    }

    /// A router says that packets of this session may be no longer.
    pub(super) fn follow_too_long(&mut self, index: usize, mtu: u32, now: Instant) {
        if let Some(path) = self.path_of(index, now) {
            path.mtu.on_too_long(mtu, now);
        }
        self.path_changed(index, now);
    }

    /// A dummy packet of a client, from its content on: it may say how long packets to it may be.
    pub(super) fn heard_dummy(&mut self, index: usize, content: [u8; 8], now: Instant) {
        let [a, b, c, d, size @ ..] = content;
        if [a, b, c, d] != SAYS || self.lan.is_none() || self.discovery == Discovery::Off {
            return;
        }
        let size = u32::from_be_bytes(size);
        // Most have nothing to say that the route does not.
        let news = self.sessions.get_mut(index).is_some_and(|session| {
            if session.path.is_none() && size >= session.limit {
                return false;
            }
            // However often somebody says something: it costs work, in this worker and in others.
            let Some(awake) = session.awake() else {
                return false;
            };
            let often = awake.path_heard.is_some_and(|at| now < at + HEAR_AGAIN);
            if !often {
                awake.path_heard = Some(now);
            }
            !often
        });
        if news && let Some(path) = self.path_of(index, now) {
            path.mtu.on_said(size, now);
            self.path_changed(index, now);
        }
    }

    /// What may be sent is another size, perhaps.
    pub(super) fn path_changed(&mut self, index: usize, now: Instant) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        session.fit();
        let (size, phase) = session.path_size();
        let id = session.spec.id;
        let Some(path) = &mut session.path else {
            return;
        };
        let before = std::mem::replace(&mut path.noted, size);
        if path.said.0 != size {
            path.said = (size, 0, now);
        }
        let (group, gateway, lane) = (session.group(), session.spec.gateway, session.spec.lane);
        if before != size && lane == 0 {
            self.tell_lanes(group, gateway, size);
        }
        if before != size {
            self.send_event(WorkerEvent::PathMtu {
                session: id,
                before,
                size,
                phase,
            });
        }
    }

    /// After every batch: lets the paths have their time.
    pub(super) fn follow_paths(&mut self, umem: &mut Umem, now: Instant) {
        if now < self.paths_at {
            return;
        }
        self.paths_at = now + Duration::from_secs(3600);
        let earliest = match self.lan {
            Some(_) => now + PACE,
            None => now,
        };
        let mut at = 0;
        while let Some(&index) = self.paths.get(at) {
            match self.follow_path(index, umem, now) {
                true => at += 1,
                false => {
                    self.paths.swap_remove(at);
                    if let Some(session) = self.sessions.get_mut(index) {
                        session.followed = false;
                    }
                }
            }
        }
        self.paths_at = self.paths_at.max(earliest);
    }

    /// Whether there is anything left to look after.
    fn follow_path(&mut self, index: usize, umem: &mut Umem, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let heard = session.last_heard;
        let Some(path) = &mut session.path else {
            return false;
        };
        let probe = path.mtu.poll(now, heard);
        let deadline = path.mtu.next_deadline();
        self.path_changed(index, now);
        if let Some(size) = probe {
            self.send_probe(index, size, umem);
        }
        if let Some((at, _)) = deadline {
            self.paths_at = self.paths_at.min(at);
        }
        let Some(session) = self.sessions.get_mut(index) else {
            return false;
        };
        let rests = session
            .path
            .as_ref()
            .is_some_and(|path| path.mtu.is_trivial());
        if rests {
            session.path = None;
        }
        !rests
    }

    /// Once a second: the paths that carry a client's traffic are probed, the others rest; and its gateways
    /// are told what was found.
    pub(super) fn choose_paths(&mut self, umem: &mut Umem, now: Instant) {
        if !self.is_first() {
            self.tell_of_long();
        }
        if self.discovery == Discovery::Probe {
            for at in 0..self.groups.watched().len() {
                let Some(&group) = self.groups.watched().get(at) else {
                    break;
                };
                self.probe_path(group, now);
            }
        }
        for at in 0..self.paths.len() {
            let Some(&index) = self.paths.get(at) else {
                break;
            };
            let probed = self.is_probed(index);
            let Some(session) = self.sessions.get_mut(index) else {
                continue;
            };
            let longest = std::mem::take(&mut session.longest) as usize;
            let long = longest > session.inner_mtu(BASE as usize);
            let Some(path) = &mut session.path else {
                continue;
            };
            if long {
                path.mtu.on_long();
                self.paths_at = now;
            }
            if !probed {
                path.mtu.pause();
                continue;
            }
            let (size, times, said_at) = path.said;
            let less = size < session.limit && now >= said_at + SAY_AGAIN;
            if times < TIMES || less {
                path.said = (size, times.saturating_add(1).min(TIMES), now);
                self.say(index, size, umem);
            }
        }
    }

    /// Tells a gateway how long packets may be, by a dummy packet: it is as authentic as any other.
    fn say(&mut self, index: usize, size: u32, umem: &mut Umem) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        let Some(outbound) = session.outbound() else {
            return;
        };
        let Some(frame) = umem.take() else {
            return self.count(Counter::NoFrame);
        };
        let at = HEADROOM..HEADROOM + SAYS_LEN;
        let chunk = umem.chunk_mut(&frame);
        if let Some(content) = chunk.get_mut(at.clone()) {
            content.fill(0);
            content[..4].copy_from_slice(&SAYS);
            content[4..8].copy_from_slice(&size.to_be_bytes());
        }
        match outbound.seal(chunk, at, NEXT_DUMMY) {
            Ok(esp) => self.send_esp(index, frame, esp, umem),
            Err(_) => umem.free(frame),
        }
    }
}

/// Whether two addresses of a peer are the ends of one path: a NAT's port says nothing about it.
pub(super) fn same_path(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip()
}
