//! A gateway: responder, the worker's table of sessions, heartbeats answered as the NIC's program does.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate::ike::{Engine, Event, GatewayIdentity, IKE_PORT, Identity, Settings};
use evergate::sadb::{Producer, SessionId};
use evergate_common::heartbeat::{self, HEALTH_DRAINING, HEALTH_WELL};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::owner::Owner;
use super::session::Session;
use super::{Packet, RETRANSMIT, Step, gateway_address, source_and_destination};

/// How long a session that was replaced still receives.
const AFTERLIFE: Duration = Duration::from_secs(3);
/// What waits in the rings of one that does not run.
const RINGS: usize = 256;
const HEARTBEAT: [u8; 4] = [0xff; 4];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// Its rings fill up; the dead-man switch silences the NIC's program.
    Frozen,
    Dead,
}

pub(super) struct Gateway {
    address: IpAddr,
    engine: Engine,
    owner: Owner,
    sessions: BTreeMap<SessionId, Session>,
    by_spi: HashMap<u32, SessionId>,
    /// The newest session of each client.
    by_inner: HashMap<IpAddr, SessionId>,
    dying: Vec<(Instant, SessionId)>,
    state: State,
    links: bool,
    health: u8,
    waiting: Vec<(IpAddr, Packet)>,
    thawed_at: Option<Instant>,
    pub(super) wake_at: Option<Duration>,
}

fn engine(index: usize, rng: &mut StdRng) -> Engine {
    let mut settings = Settings::new(Identity::Fqdn(format!("gw{index}.example")));
    (settings.child_lifetime, settings.ike_lifetime) = (None, None);
    settings.retransmit = RETRANSMIT;
    settings.half_open_per_source = 64;
    settings.cookie_threshold = usize::MAX;
    Engine::new(settings, StdRng::from_rng(rng))
}

impl Gateway {
    pub(super) fn new(index: usize, mut rng: StdRng) -> Gateway {
        Gateway {
            address: gateway_address(index),
            engine: engine(index, &mut rng),
            owner: Owner::new(&mut rng),
            sessions: BTreeMap::new(),
            by_spi: HashMap::new(),
            by_inner: HashMap::new(),
            dying: Vec::new(),
            state: State::Runs,
            links: true,
            health: HEALTH_WELL,
            waiting: Vec::new(),
            thawed_at: None,
            wake_at: None,
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.state == State::Runs && self.health == HEALTH_WELL
    }

    pub(super) fn crash(&mut self) {
        self.state = State::Dead;
    }

    pub(super) fn freeze(&mut self) {
        if self.state == State::Runs {
            self.state = State::Frozen;
        }
    }

    pub(super) fn thaw(&mut self, now: Instant) {
        if self.state == State::Frozen {
            self.state = State::Runs;
            self.thawed_at = Some(now);
        }
    }

    /// After a crash: nothing is known any more.
    pub(super) fn restart(&mut self, rng: StdRng) {
        if self.state != State::Dead {
            return;
        }
        let IpAddr::V4(address) = self.address else {
            return;
        };
        let links = self.links;
        *self = Gateway::new(usize::from(address.octets()[3]) - 1, rng);
        self.links = links;
    }

    /// Whether all its links are up: with one down it answers no heartbeats.
    pub(super) fn link(&mut self, up: bool) {
        if up && !self.links {
            // What the LAN has said and heard meanwhile is not known.
            let sessions = self.sessions.values_mut();
            sessions.for_each(|session| session.announced = false);
        }
        self.links = up;
    }

    /// Whether it has this session, and is going to keep it.
    pub(super) fn keeps(&self, spi_in: u32) -> bool {
        let id = self.by_spi.get(&spi_in);
        id.is_some_and(|id| self.dying.iter().all(|(_, dying)| dying != id))
    }

    /// It takes no one any more, and wants to be left.
    pub(super) fn drain(&mut self, step: &mut Step<'_>) {
        if self.state != State::Runs {
            return;
        }
        self.health = HEALTH_DRAINING;
        let all: Vec<_> = self.sessions.values().map(|session| session.sa).collect();
        for sa in all {
            let itself = GatewayIdentity::Address(self.address);
            self.engine.redirect(step.now, sa, itself);
        }
        self.pump(step);
    }

    /// It takes clients again; those that left may stay where they are.
    pub(super) fn undrain(&mut self) {
        self.health = HEALTH_WELL;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        if self.state != State::Runs {
            return None;
        }
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        let dying = self.dying.iter().map(|(at, _)| *at).min();
        let thawed = self.thawed_at.filter(|_| !self.waiting.is_empty());
        ike.into_iter().chain(dying).chain(thawed).min()
    }

    pub(super) fn wake(&mut self, step: &mut Step<'_>) {
        if self.state != State::Runs {
            return;
        }
        for (from, packet) in std::mem::take(&mut self.waiting) {
            self.arrive(from, packet, step);
        }
        self.engine.handle_timeout(step.now, &mut self.owner);
        self.dying.sort();
        while let Some((at, id)) = self.dying.first().copied()
            && at <= step.now
        {
            self.dying.remove(0);
            self.end(id, true, step.now);
        }
        self.pump(step);
    }

    pub(super) fn arrive(&mut self, from: IpAddr, packet: Packet, step: &mut Step<'_>) {
        match self.state {
            State::Dead => return,
            State::Frozen => {
                if self.waiting.len() < RINGS {
                    self.waiting.push((from, packet));
                }
                return;
            }
            State::Runs => {}
        }
        match packet {
            Packet::Ike(t) => {
                let engine = &mut self.engine;
                engine.handle_datagram(step.now, t.remote, t.local, &t.data, &mut self.owner);
                self.pump(step);
            }
            Packet::Esp(bytes) if bytes.starts_with(&HEARTBEAT) => {
                step.out
                    .extend(self.reflect(&bytes).map(|answer| (from, answer)));
            }
            Packet::Esp(bytes) => self.open(bytes, step),
        }
    }

    fn reflect(&self, bytes: &[u8]) -> Option<Packet> {
        if !self.links {
            return None;
        }
        let spi = heartbeat::decode(bytes)?.spi;
        let session = self.by_spi.get(&u32::from_be_bytes(spi))?;
        let key = self.sessions.get(session)?.heartbeat_key;
        let answer = heartbeat::answer(bytes, &key, self.health).ok()?;
        Some(Packet::Esp(answer.to_vec()))
    }

    fn open(&mut self, bytes: Vec<u8>, step: &mut Step<'_>) {
        let spi = bytes.first_chunk().map(|spi| u32::from_be_bytes(*spi));
        let id = spi.and_then(|spi| self.by_spi.get(&spi).copied());
        let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) else {
            return;
        };
        let Some(inner) = session.open(bytes, step.watch) else {
            return;
        };
        let owned = session.spec.remote_inner.iter().map(|net| net.addr());
        if !session.announced {
            session.announced = true;
            step.announced.extend(owned.clone());
        }
        if let Some(inner) = inner {
            let source = source_and_destination(&inner).map(|(source, _)| source);
            let owned = source.is_some_and(|source| owned.clone().any(|own| own == source));
            step.watch
                .holds(owned, "a target hears from an address that no session owns");
            step.inner.push(inner);
        }
    }

    /// Another gateway has this inner address now.
    pub(super) fn hears_claim(&mut self, address: IpAddr) {
        for session in self.sessions.values_mut() {
            if session
                .spec
                .remote_inner
                .iter()
                .any(|net| net.addr() == address)
            {
                session.announced = false;
            }
        }
    }

    /// A target sends to a client.
    pub(super) fn answers_from_lan(&mut self, packet: Vec<u8>, step: &mut Step<'_>) {
        if self.state != State::Runs {
            return;
        }
        let client = source_and_destination(&packet).map(|(_, destination)| destination);
        let id = client.and_then(|client| self.by_inner.get(&client).copied());
        let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) else {
            return;
        };
        if let Some(sealed) = session.seal(Some(&packet), step.watch) {
            step.out
                .push((session.spec.outside_remote, Packet::Esp(sealed)));
        }
    }

    fn pump(&mut self, step: &mut Step<'_>) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Established {
                    id,
                    remote,
                    child,
                    exporter,
                    ..
                } => {
                    let ends = [self.address, remote.ip()];
                    let sadb = &mut self.owner.sadb;
                    let session = Session::new(sadb, id, ends, None, &child, &exporter);
                    self.take(session, step.now);
                }
                Event::Closed { id, .. } => {
                    let of_sa = self.sessions.values().filter(|session| session.sa == id);
                    let ids: Vec<_> = of_sa.map(|session| session.id).collect();
                    ids.into_iter().for_each(|id| self.end(id, false, step.now));
                }
                _ => {}
            }
        }
        while let Some(t) = self.engine.poll_transmit() {
            if t.remote.port() == IKE_PORT {
                step.out.push((t.remote.ip(), Packet::Ike(t)));
            }
        }
    }

    fn take(&mut self, session: Session, now: Instant) {
        for net in &session.spec.remote_inner {
            if let Some(old) = self.by_inner.insert(net.addr(), session.id) {
                self.dying.push((now + AFTERLIFE, old));
            }
        }
        self.by_spi.insert(session.spi_in(), session.id);
        self.sessions.insert(session.id, session);
    }

    fn end(&mut self, id: SessionId, close: bool, now: Instant) {
        self.dying.retain(|(_, dying)| *dying != id);
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.by_spi.remove(&session.spi_in());
        self.by_inner.retain(|_, newest| *newest != id);
        let _ = self.owner.sadb.remove(Producer::Ike, id);
        if close {
            self.engine.close(now, session.sa);
        }
    }
}
