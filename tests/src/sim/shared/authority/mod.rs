//! The authority: IKE engine, ledger, and between them what `control/src/node/authority/` does.

mod edges;
mod pairs;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evergate::cluster::repository::{Stored, Write};
use evergate::cluster::wire::{Down, Relayed, Up};
use evergate::cluster::{EdgeId, Kept, Ledger, Order, Parting, Reached, Run, Terms, ToEdge};
use evergate::ike::{Engine, Event, Identity, SaId, Settings, Transmit};
use evergate::node::Held;
use evergate::sadb::{Path, SessionId, SessionSpec};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::nat::path;
use super::super::owner::Owner;
use super::super::scenario::{Rekeying, lifetimes};
use super::super::table::AFTERLIFE;
use super::super::{RETRANSMIT, client_inner};
use super::store::{Disk, Writer};
use super::{Scenario, Step};
use pairs::Shared;

const TICK: Duration = Duration::from_millis(200);
/// So many pairs are told at once, and after such a pause the next ones.
const PIECE: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);
/// Clients that are silent for so long are asked whether they live.
const LIVENESS: Duration = Duration::from_secs(30);

/// A pair of SAs of a session.
#[derive(Clone)]
struct Live {
    sa: SaId,
    client: String,
    spec: Arc<SessionSpec>,
    retired: bool,
    redundant: bool,
    alive: Instant,
    asked: Instant,
}

#[derive(Default)]
struct Known {
    connected: bool,
    run: Option<Run>,
    from_pair: Option<u32>,
}

pub(super) struct Authority {
    engine: Engine,
    owner: Owner,
    rekeying: Option<Rekeying>,
    everywhere: bool,
    live: BTreeMap<SessionId, Live>,
    by_sa: BTreeMap<SaId, SessionId>,
    shared: BTreeMap<u32, Shared>,
    ledger: Ledger,
    edges: Vec<Known>,
    storing: HashMap<u64, (u32, Kept)>,
    writes: u64,
    pub(super) writer: Writer,
    batch: HashMap<SocketAddr, EdgeId>,
    heard_by: HashMap<SaId, EdgeId>,
    at: HashMap<SocketAddr, SaId>,
    places: HashMap<SaId, SocketAddr>,
    held: Held,
    dying: Vec<(Instant, SessionId)>,
    retired: Vec<(Instant, SessionId)>,
    tick: Instant,
    tell_at: Option<Instant>,
    pub(super) out: Vec<(usize, Down)>,
    pub(super) rekeys: u64,
    pub(super) given_up: u64,
}

impl Authority {
    /// One that goes on with what the repository has.
    pub(super) fn new(
        scenario: &Scenario,
        disk: &mut Disk,
        rng: &mut StdRng,
        step: &mut Step<'_>,
    ) -> Self {
        let mut settings = Settings::new(Identity::Fqdn("gw.example".to_owned()));
        (settings.child_lifetime, settings.ike_lifetime) = lifetimes(scenario.rekeying);
        settings.mobike = true;
        settings.lanes = 1;
        settings.retransmit = RETRANSMIT;
        settings.half_open_per_source = 64;
        settings.cookie_threshold = usize::MAX;
        let mut terms: Terms = scenario.terms.clone();
        if scenario.lies {
            // Else an end that is told so late is not taken for that of a process, whoever lies.
            terms.alone = Duration::from_secs(60);
        }
        let mut authority = Authority {
            engine: Engine::new(settings, StdRng::from_rng(rng)),
            owner: Owner::new(rng),
            rekeying: scenario.rekeying,
            everywhere: scenario.everywhere,
            live: BTreeMap::new(),
            by_sa: BTreeMap::new(),
            shared: BTreeMap::new(),
            ledger: Ledger::new(terms),
            edges: (0..scenario.edges).map(|_| Known::default()).collect(),
            storing: HashMap::new(),
            writes: 0,
            writer: Writer::default(),
            batch: HashMap::new(),
            heard_by: HashMap::new(),
            at: HashMap::new(),
            places: HashMap::new(),
            held: Held::default(),
            dying: Vec::new(),
            retired: Vec::new(),
            tick: step.now,
            tell_at: None,
            out: Vec::new(),
            rekeys: 0,
            given_up: 0,
        };
        let unix = step.unix;
        disk.pairs.retain(|_, stored| stored.pair.expires > unix);
        let stored: Vec<Stored> = disk.pairs.values().cloned().collect();
        stored.into_iter().for_each(|pair| authority.restore(pair));
        authority.pump(step);
        authority
    }

    /// Whether it has an IKE SA that the client with this outbound SPI can use.
    pub(super) fn knows(&self, spi: u32) -> bool {
        let sa = self.shared.get(&spi).and_then(|shared| shared.sa);
        sa.is_some_and(|sa| self.engine.is_established(sa))
    }

    pub(super) fn owner_of(&self, spi: u32) -> Option<usize> {
        self.ledger.owner(spi).map(|edge| usize::from(edge.0))
    }

    /// Pairs that it has.
    pub(super) fn size(&self) -> usize {
        self.shared.len()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        let ends = self.dying.iter().chain(&self.retired);
        let ends = ends.map(|(at, _)| *at).min();
        let all = [
            ike,
            ends,
            self.ledger.deadline(),
            self.held.deadline(),
            self.tell_at,
            Some(self.tick),
        ];
        all.into_iter().flatten().min()
    }

    pub(super) fn wake(&mut self, step: &mut Step<'_>) {
        self.on_time(step);
        self.pump(step);
    }

    fn on_time(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        self.engine.handle_timeout(now, &mut self.owner);
        self.ledger.poll(now);
        self.go_on_telling(now);
        if now >= self.tick {
            self.tick = now + TICK;
            self.ask_the_silent(now);
            self.let_expired_go(step);
        }
    }

    fn ask_the_silent(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for live in self.live.values_mut().filter(|live| !live.retired) {
            if now >= live.alive.max(live.asked) + LIVENESS {
                live.asked = now;
                silent.push(live.sa);
            }
        }
        for sa in silent {
            self.engine.check_liveness(now, sa);
        }
    }

    /// An edge has connected, and what was read of its connection then.
    pub(super) fn connected(&mut self, edge: usize, step: &mut Step<'_>) {
        let known = &mut self.edges[edge];
        known.connected = true;
        known.from_pair = self.everywhere.then_some(0);
        self.on_time(step);
        self.pump(step);
    }

    pub(super) fn ended(&mut self, edge: usize, parting: Parting, step: &mut Step<'_>) {
        let known = &mut self.edges[edge];
        known.connected = false;
        known.from_pair = None;
        if let Some(run) = known.run.take() {
            self.ledger.gone(id(edge), run, parting, step.now);
        }
        self.held.gone(id(edge));
        self.on_time(step);
        self.pump(step);
    }

    /// The notary of a dead edge has spoken.
    pub(super) fn testified(
        &mut self,
        edge: usize,
        run: Run,
        reached: &[Reached],
        step: &mut Step<'_>,
    ) {
        self.ledger.testified(id(edge), run, reached);
        self.on_time(step);
        self.pump(step);
    }

    /// What an edge has said, as much as there is.
    pub(super) fn hear(&mut self, edge: usize, messages: Vec<Up>, step: &mut Step<'_>) {
        let mut datagrams = Vec::new();
        for message in messages {
            datagrams.extend(self.on_up(edge, message, step));
        }
        for Relayed {
            local,
            remote,
            data,
        } in datagrams
        {
            self.engine
                .handle_datagram(step.now, local, remote, &data, &mut self.owner);
        }
        self.on_time(step);
        self.pump(step);
    }

    /// These writes are durable.
    pub(super) fn stored(&mut self, done: Vec<u64>, step: &mut Step<'_>) {
        for number in done {
            if let Some((spi, kept)) = self.storing.remove(&number) {
                self.ledger.stored(spi, kept);
            }
            self.on_time(step);
            self.pump(step);
        }
    }

    /// It is about to end.
    pub(super) fn farewell(&mut self) {
        for edge in 0..self.edges.len() {
            self.tell(edge, Down::Leaving);
        }
    }

    fn tell(&mut self, edge: usize, message: Down) {
        if self.edges[edge].connected {
            self.out.push((edge, message));
        }
    }

    fn tell_all(&mut self, message: &Down) {
        for edge in 0..self.edges.len() {
            self.tell(edge, message.clone());
        }
    }

    fn write(&mut self, write: Write) -> u64 {
        self.writes += 1;
        self.writer.write(self.writes, write);
        self.writes
    }

    fn pump(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        loop {
            let mut worked = false;
            while let Some(event) = self.engine.poll_event() {
                worked = true;
                self.on_ike(event, step);
            }
            while let Some(order) = self.ledger.order() {
                worked = true;
                self.carry_out(order, step);
            }
            while let Some(transmit) = self.engine.poll_transmit() {
                worked = true;
                self.transmit(transmit);
            }
            let (mut messages, _) = self.held.release(now);
            // The order in which peers are released is nobody's matter, but a run must repeat itself.
            messages.sort_by_key(|(_, transmit)| transmit.remote);
            for (edge, transmit) in messages {
                self.relay(edge, transmit);
            }
            if let Some(id) = due(&mut self.dying, now) {
                worked = true;
                self.end_session(id, true, step);
            }
            if let Some(id) = due(&mut self.retired, now) {
                worked = true;
                self.remove_pair(id);
            }
            if !worked {
                break;
            }
        }
        self.batch.clear();
    }

    fn carry_out(&mut self, order: Order, step: &mut Step<'_>) {
        let quiet = matches!(
            order,
            Order::Send {
                message: ToEdge::Acknowledge { .. },
                ..
            }
        );
        if !quiet {
            trace!("{:?} authority: {order:?}", step.world);
        }
        match order {
            Order::Send { edge, message } => {
                self.tell(usize::from(edge.0), Down::Numbers(message));
            }
            Order::Store { spi, kept } => {
                let number = self.write(Write::Kept { spi, kept });
                self.storing.insert(number, (spi, kept));
            }
            Order::Erase { spi } => {
                self.write(Write::Erase { spi });
            }
            Order::Rekey { spi, lost } => {
                let shared = self.shared.get(&spi);
                let session = shared.map(|shared| shared.session);
                if let Some(shared) = shared.filter(|s| lost > 0 && s.sa.is_none()) {
                    // Nobody can give it fresh keys. Without it its client finds out, and comes anew.
                    self.given_up += 1;
                    let session = shared.session;
                    return self.forget(session, spi);
                }
                let live = session.and_then(|session| self.live.get(&session));
                if let Some(live) = live.filter(|live| !live.retired) {
                    self.rekeys += 1;
                    self.engine.rekey_child(step.now, live.sa, spi);
                }
            }
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        let remote = transmit.remote;
        let known = self.at.get(&remote).and_then(|sa| self.heard_by.get(sa));
        let connected = |edge: &EdgeId| self.edges[usize::from(edge.0)].connected;
        let by_now = self.batch.get(&remote).or(known).copied();
        let any = || (0..self.edges.len()).map(id).find(|edge| connected(edge));
        let Some(edge) = by_now.filter(connected).or_else(any) else {
            return;
        };
        if let Some(transmit) = self.held.hold(edge, transmit) {
            self.relay(edge, transmit);
        }
    }

    fn relay(&mut self, edge: EdgeId, transmit: Transmit) {
        let Transmit {
            local,
            remote,
            data,
        } = transmit;
        let relayed = Relayed {
            local,
            remote,
            data,
        };
        self.tell(usize::from(edge.0), Down::Ike(relayed));
    }

    fn on_ike(&mut self, event: Event, step: &mut Step<'_>) {
        trace!(
            "{:?} authority: {}",
            step.world,
            format!("{event:?}").chars().take(60).collect::<String>()
        );
        let now = step.now;
        match event {
            Event::Established { .. } => self.established(event, step),
            Event::ChildAdded { .. } | Event::ChildRekeyed { .. } => self.succeeded(event, step),
            Event::ChildFailed { spi_in, .. } => self.owner.sadb.release_spi(spi_in),
            Event::ChildClosed { id, spi_in, .. } => self.child_closed(id, spi_in, step),
            Event::Relocated {
                id,
                local,
                remote,
                nat,
            } => {
                step.watch.moves += 1;
                let path: Path = path(nat, local, remote);
                self.relocated(id, &path, step);
                self.now_at(remote, id);
            }
            Event::Moved { id, remote } => {
                step.watch.moves += 1;
                for pair in self.all_of(id) {
                    self.move_pair(pair, remote, None, step);
                }
            }
            Event::Alive { id } => {
                if let Some(live) = self.by_sa.get(&id).and_then(|id| self.live.get_mut(id)) {
                    live.alive = now;
                }
            }
            Event::Failed {
                spi_in: Some(spi), ..
            } => self.owner.sadb.release_spi(spi),
            Event::Closed { id, reason, .. } => {
                trace!("{:?} authority: closed {reason}", step.world);
                match self.by_sa.get(&id).copied() {
                    Some(session) => self.end_session(session, false, step),
                    None => {
                        for pair in self.all_of(id) {
                            self.remove_pair(pair);
                        }
                        self.forget_place(id);
                    }
                }
            }
            _ => {}
        }
    }

    fn all_of(&self, sa: SaId) -> Vec<SessionId> {
        let all = self.live.iter().filter(|(_, live)| live.sa == sa);
        all.map(|(id, _)| *id).collect()
    }

    fn now_at(&mut self, remote: SocketAddr, sa: SaId) {
        if let Some(before) = self.places.insert(sa, remote)
            && before != remote
            && self.at.get(&before) == Some(&sa)
        {
            self.at.remove(&before);
        }
        self.at.insert(remote, sa);
    }

    fn forget_place(&mut self, sa: SaId) {
        self.heard_by.remove(&sa);
        if let Some(remote) = self.places.remove(&sa)
            && self.at.get(&remote) == Some(&sa)
        {
            self.at.remove(&remote);
        }
    }

    /// A session that was replaced only receives for a while.
    fn let_die(&mut self, id: SessionId, now: Instant) {
        if !self.dying.iter().any(|(_, dying)| *dying == id) {
            self.dying.push((now + AFTERLIFE, id));
        }
    }

    /// Clients have one inner address each.
    fn inner_of(client: &str) -> Option<std::net::IpAddr> {
        let number = client.strip_prefix('c')?.strip_suffix(".example")?;
        Some(client_inner(number.parse().ok()?))
    }
}

fn id(edge: usize) -> EdgeId {
    EdgeId(u16::try_from(edge).unwrap_or(u16::MAX))
}

/// The soonest that is due.
fn due(all: &mut Vec<(Instant, SessionId)>, now: Instant) -> Option<SessionId> {
    let (index, (at, _)) = all.iter().enumerate().min_by_key(|(_, entry)| **entry)?;
    (*at <= now).then(|| all.remove(index).1)
}
