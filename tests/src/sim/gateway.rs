//! A gateway: responder, the worker's table of sessions, heartbeats answered as the NIC's program does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate::dataplane::Sending;
use evergate::ike::{Engine, Event, GatewayIdentity, Identity, NAT_T_PORT, Settings, Tickets};
use evergate::sadb::SessionId;
use evergate_common::heartbeat::{self, HEALTH_DRAINING, HEALTH_WELL};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::nat::{encapsulation, path};
use super::owner::Owner;
use super::owner::ticket_key;
use super::scenario::{Rekeying, Scenario, lifetimes};
use super::session::Session;
use super::table::Table;
use super::{Packet, RETRANSMIT, Step, gateway_address, source_and_destination};

/// What waits in the rings of one that does not run.
const RINGS: usize = 256;
/// Used tickets that it remembers.
const TICKETS: usize = 1 << 10;
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
    table: Table,
    rekeying: Option<Rekeying>,
    state: State,
    links: bool,
    health: u8,
    waiting: Vec<(IpAddr, Packet)>,
    thawed_at: Option<Instant>,
    pub(super) wake_at: Option<Duration>,
}

fn engine(index: usize, scenario: &Scenario, rng: &mut StdRng) -> Engine {
    let mut settings = Settings::new(Identity::Fqdn(format!("gw{index}.example")));
    (settings.child_lifetime, settings.ike_lifetime) = lifetimes(scenario.rekeying);
    settings.mobike = true;
    let tickets = scenario
        .tickets
        .then(|| Tickets::new(vec![ticket_key()], TICKETS));
    settings.tickets = tickets.map(Arc::new);
    settings.retransmit = RETRANSMIT;
    settings.half_open_per_source = 64;
    settings.cookie_threshold = usize::MAX;
    Engine::new(settings, StdRng::from_rng(rng))
}

impl Gateway {
    pub(super) fn new(index: usize, scenario: &Scenario, mut rng: StdRng) -> Gateway {
        Gateway {
            address: gateway_address(index),
            engine: engine(index, scenario, &mut rng),
            owner: Owner::new(&mut rng),
            table: Table::default(),
            rekeying: scenario.rekeying,
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
    pub(super) fn restart(&mut self, scenario: &Scenario, rng: StdRng) {
        if self.state != State::Dead {
            return;
        }
        let IpAddr::V4(address) = self.address else {
            return;
        };
        let links = self.links;
        *self = Gateway::new(usize::from(address.octets()[3]) - 1, scenario, rng);
        self.links = links;
    }

    /// Whether all its links are up: with one down it answers no heartbeats.
    pub(super) fn link(&mut self, up: bool) {
        if up && !self.links {
            // What the LAN has said and heard meanwhile is not known.
            let sessions = self.table.iter_mut();
            sessions.for_each(|session| session.announced = false);
        }
        self.links = up;
    }

    /// Whether it has this session, is going to keep it, and knows that its client is there.
    pub(super) fn keeps(&self, spi_in: u32, client: IpAddr) -> bool {
        let id = self.table.by_spi(spi_in);
        let kept = id.filter(|id| !self.table.dies(*id));
        let session = kept.and_then(|id| self.table.get(id));
        session.is_some_and(|session| session.spec.outside_remote == client)
    }

    /// It takes no one any more, and wants to be left.
    pub(super) fn drain(&mut self, step: &mut Step<'_>) {
        if self.state != State::Runs {
            return;
        }
        self.health = HEALTH_DRAINING;
        for sa in self.table.sas() {
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
        let dying = self.table.next();
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
        let [dying, retired] = self.table.due(step.now);
        dying
            .into_iter()
            .for_each(|id| self.end(id, true, step.now));
        for id in retired {
            self.table.remove(&mut self.owner.sadb, id);
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
                    .extend(self.reflect(from, &bytes).map(|answer| (from, answer)));
            }
            Packet::Esp(bytes) => self.open(from, bytes, step),
        }
    }

    fn reflect(&self, from: IpAddr, bytes: &[u8]) -> Option<Packet> {
        if !self.links {
            return None;
        }
        let spi = heartbeat::decode(bytes)?.spi;
        let session = self.table.by_spi(u32::from_be_bytes(spi))?;
        let session = self.table.get(session)?;
        if session.spec.outside_remote != from {
            return None;
        }
        let key = session.heartbeat_key;
        let answer = heartbeat::answer(bytes, &key, self.health).ok()?;
        Some(Packet::Esp(answer.to_vec()))
    }

    fn open(&mut self, from: IpAddr, bytes: Vec<u8>, step: &mut Step<'_>) {
        let spi = bytes.first_chunk().map(|spi| u32::from_be_bytes(*spi));
        let id = spi.and_then(|spi| self.table.by_spi(spi));
        let Some(session) = id.and_then(|id| self.table.get_mut(id)) else {
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
        let (id, sa) = (session.id, session.sa);
        let elsewhere = session.spec.outside_remote != from;
        if session.spec.roams && session.newest && elsewhere {
            let remote = SocketAddr::new(from, NAT_T_PORT);
            self.table.follow(&mut self.owner.sadb, id, remote);
            self.engine.peer_moved(step.now, sa, remote);
            step.watch.moves += 1;
        }
        self.table.heard(id);
        self.judge_traffic(id, step);
    }

    /// Fresh keys, where the old ones have protected enough.
    fn judge_traffic(&mut self, id: SessionId, step: &mut Step<'_>) {
        if let Some(rekeying) = self.rekeying
            && let Some(session) = self.table.get(id)
            && session.has_carried(rekeying.packets)
        {
            self.engine
                .rekey_child(step.now, session.sa, session.spi_in());
            self.pump(step);
        }
    }

    /// Another gateway has this inner address now.
    pub(super) fn hears_claim(&mut self, address: IpAddr) {
        for session in self.table.iter_mut() {
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
        let Some(session) = client.and_then(|client| self.table.leading(client)) else {
            return;
        };
        let id = session.id;
        if let Some(sealed) = session.seal(Some(&packet), step.watch) {
            step.out
                .push((session.spec.outside_remote, Packet::Esp(sealed)));
        }
        self.judge_traffic(id, step);
    }

    fn pump(&mut self, step: &mut Step<'_>) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Established {
                    id,
                    local,
                    remote,
                    nat,
                    child,
                    exporter,
                    ..
                } => {
                    let ends = [self.address, remote.ip()];
                    let sadb = &mut self.owner.sadb;
                    let keys = (&child, &exporter);
                    let encap = encapsulation(nat, local, remote);
                    let session = Session::new(sadb, step.watch, id, ends, None, keys, encap);
                    self.take(session, step.now);
                }
                Event::Relocated {
                    id,
                    local,
                    remote,
                    nat,
                } => {
                    step.watch.moves += 1;
                    let path = path(nat, local, remote);
                    self.table.relocate(&mut self.owner.sadb, id, &path);
                }
                Event::Moved { id: sa, remote } => {
                    step.watch.moves += 1;
                    for id in self.table.all_of(sa) {
                        self.table.follow(&mut self.owner.sadb, id, remote);
                    }
                }
                Event::ChildRekeyed {
                    id: sa,
                    child,
                    outbound,
                    exporter,
                    ..
                } => {
                    let (sadb, made) = (&mut self.owner.sadb, (sa, &child, &exporter));
                    self.table.rekeyed(sadb, step.watch, made, outbound);
                }
                Event::ChildClosed { id: sa, spi_in, .. } => {
                    let of = (sa, self.engine.is_established(sa));
                    if let Some(id) = self.table.child_closed(of, spi_in, step.now) {
                        self.end(id, true, step.now);
                    }
                }
                Event::ChildFailed { spi_in, .. } => self.owner.sadb.release_spi(spi_in),
                Event::Closed { id: sa, .. } => {
                    if let Some(id) = self.table.of_sa(sa).map(|session| session.id) {
                        self.end(id, false, step.now);
                    }
                }
                _ => {}
            }
        }
        while let Some(t) = self.engine.poll_transmit() {
            if !t.is_keep_alive() {
                step.out.push((t.remote.ip(), Packet::Ike(t)));
            }
        }
    }

    fn take(&mut self, mut session: Session, now: Instant) {
        let others = self.table.others(session.place, session.sa);
        if !others.is_empty() {
            session.sending = Sending::WhenHeard;
        }
        self.table.insert(session);
        others
            .into_iter()
            .for_each(|id| self.table.let_die(id, now));
    }

    fn end(&mut self, id: SessionId, close: bool, now: Instant) {
        let Some(sa) = self.table.get(id).map(|session| session.sa) else {
            return;
        };
        if close {
            self.engine.close(now, sa);
        }
        for id in self.table.all_of(sa) {
            self.table.remove(&mut self.owner.sadb, id);
        }
    }
}
