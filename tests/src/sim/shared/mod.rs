//! One negotiation, many edges, under a virtual clock: an authority with its repository, edges that share an
//! address, stock clients that know nothing of them, a router that brings their packets now to this edge and now
//! to that, and somebody who repeats packets. The cores are the real ones, and so is the edges' worker.

macro_rules! trace {
    ($($what:tt)*) => {
        if crate::sim::shared::tracing() {
            eprintln!($($what)*);
        }
    };
}

mod authority;
mod client;
mod edge;
mod frames;
mod hunt;
mod line;
mod lines;
mod promise;
mod scenario;
mod store;
mod troubles;
mod ways;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evergate::cluster::{Pair, Reached, Run};
use evergate::dataplane::trial::edge::EdgeWorker;
use evergate::dataplane::xsk::Umem;
use evergate::ike::Transmit;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::agenda::Agenda;
use super::clock::Clock;
use super::watch::{Broken, Key, Promises, Watch};
use super::{RETRANSMIT, client_at};
use authority::Authority;
use client::Client;
use edge::{Edge, Frame, Leaves};
pub use hunt::{SharedFound, SharedSum, hunt};
use line::Line;
use promise::Well;
pub use scenario::{Scenario, Trouble};
use store::Disk;

static TRACES: AtomicBool = AtomicBool::new(false);

/// From now on runs say on standard error what happens in them.
pub fn trace() {
    TRACES.store(true, Ordering::Relaxed);
}

fn tracing() -> bool {
    TRACES.load(Ordering::Relaxed)
}

/// What the edges share.
pub(super) const SHARED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// When it all begins, in seconds since 1970.
const UNIX: u64 = 1_893_456_000;
/// Frames of an edge: many more than wait in it at these paces.
const FRAMES: u32 = 512;
const STEP: Duration = Duration::from_millis(500);
/// A pair that was replaced stays for so long: packets under its keys are on their way.
const REPLACED: Duration = Duration::from_secs(3);
const AFTERMATH: Duration = Duration::from_secs(4);
const QUIET: Duration = Duration::from_secs(4);
/// What becomes of a session without an authority has come of it until then.
const ORPHANED: Duration = Duration::from_secs(12);
/// Longer than any packet and its answer take.
const ROUND_TRIP: Duration = Duration::from_millis(150);

/// What goes over the outer network.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Ike(Transmit),
    /// From the SPI on; in UDP or not.
    Esp {
        bytes: Vec<u8>,
        udp: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Authority,
    Edge(usize),
    Client(usize),
}

enum What {
    /// From a client, as the outer network knows it.
    ToEdge(usize, IpAddr, Packet),
    ToClient(usize, Packet),
    /// By the LAN.
    Frame(usize, Frame),
    /// A target has a packet to answer.
    Target(usize, Vec<u8>),
    /// Who has an address, says an edge.
    Claim(Vec<u8>),
    /// What waited in the rings of an edge that was frozen.
    Rings(usize),
    Line(u64),
    /// A kernel has not heard the other side of a connection for long.
    Silence(u64, Duration),
    /// An edge tries for a connection, for the time being of this run.
    Connect(usize, u64),
    /// The notary of a dead edge has reached the authority.
    Testimony(usize, Run, Vec<Reached>),
    Wake(Place),
    Payload(usize),
    /// The authority's end, in good order, of this run.
    Farewell(u64),
    Trouble(Trouble),
}

/// The keys of what edges seal: by the client, and the SPI that it receives by.
#[derive(Default)]
struct Keys(HashMap<(usize, u32), Key>);

impl Keys {
    fn learn(&mut self, pair: &Pair, watch: &mut Watch) {
        let inner = pair.inner.first().copied();
        let Some(client) = inner.and_then(client_at) else {
            return;
        };
        let key = watch.key(pair.outbound.key.expose());
        self.0.insert((client, pair.outbound.spi), key);
    }
}

/// What a node's step leads to.
pub(super) struct Step<'a> {
    /// By the node's own clock.
    now: Instant,
    world: Duration,
    unix: u64,
    rng: &'a mut StdRng,
    watch: &'a mut Watch,
    keys: &'a mut Keys,
}

impl Step<'_> {
    fn millis(&self) -> u64 {
        UNIX * 1000 + self.world.as_millis() as u64
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Edges that ended, froze, or were cut off.
    pub deaths: u64,
    /// Authorities that did.
    pub authorities: u64,
    pub sent: u64,
    pub answered: u64,
    /// How often the router brought a client's packets to another edge.
    pub routes: u64,
    /// How often another edge sent to a client.
    pub changes: u64,
    pub rekeyings: u64,
    pub moves: u64,
    /// Packets that somebody repeated.
    pub repeated: u64,
    /// Sessions that clients began anew.
    pub anew: u64,
    /// Promises that came true: where the rules say how soon, and where only that it is some time.
    pub promises: Promises,
    pub longest: Duration,
    /// Sums up all that happened, in its order.
    pub digest: u64,
}

/// How far the edges' connections are.
#[derive(Default)]
struct Dial {
    current: Option<u64>,
    pause: Duration,
    since: Duration,
    /// No way to the authority since then.
    cut: Option<Duration>,
    /// What was on its way when there was none is sent again then, and all that follows behind it.
    stalled: Duration,
}

struct Links {
    wan: bool,
    lan: bool,
}

pub struct World {
    scenario: Scenario,
    start: Instant,
    now: Duration,
    agenda: Agenda<What>,
    rng: StdRng,
    watch: Watch,
    keys: Keys,
    disk: Disk,
    authority: Option<Authority>,
    authority_run: u64,
    authority_frozen: bool,
    authority_parts: bool,
    parts_until: Duration,
    authority_wake: Option<Duration>,
    edges: Vec<Edge>,
    links: Vec<Links>,
    dials: Vec<Dial>,
    lines: BTreeMap<u64, Line>,
    /// The connection of each edge that the authority reads.
    seats: Vec<Option<u64>>,
    serial: u64,
    clients: Vec<Client>,
    routes: Vec<usize>,
    scatter: u32,
    loss: u32,
    /// No packet comes at two edges any more.
    calm: bool,
    /// The target's idea of where clients are: by their inner addresses, the edge's MAC.
    neighbours: HashMap<IpAddr, [u8; 6]>,
    /// Who sent to each client last.
    serves: Vec<Option<usize>>,
    well: Vec<Well>,
    /// When there was trouble other than that packets come elsewhere, and an edge with it.
    troubled: Duration,
    /// When each edge was killed last, and whether it was surely in contact then.
    deaths: Vec<Option<(Duration, bool)>>,
    report: Report,
}

impl World {
    /// Runs a scenario to its end.
    ///
    /// # Errors
    /// The invariant that was broken, and when.
    pub fn run(scenario: &Scenario) -> Result<Report, Broken> {
        let mut world = World::new(scenario.clone());
        trace!("a run with {} troubles", scenario.troubles.len());
        world.go_until(scenario.last())?;
        world.settle()?;
        Ok(world.report())
    }

    fn new(scenario: Scenario) -> World {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let clients = (0..scenario.clients)
            .map(|index| Client::new(index, &scenario, start, &mut rng))
            .collect();
        let edges = (0..scenario.edges).map(|index| {
            let umem = frames();
            let (terms, notary) = (scenario.terms.clone(), scenario.notaries);
            Edge::new(index, terms, umem, notary, rng.random(), start)
        });
        let edges: Vec<Edge> = edges.collect();
        let mut world = World {
            start,
            now: Duration::ZERO,
            agenda: Agenda::new(),
            watch: Watch::new(scenario.clients),
            keys: Keys::default(),
            disk: Disk::default(),
            authority: None,
            authority_run: 0,
            authority_frozen: false,
            authority_parts: false,
            parts_until: Duration::ZERO,
            authority_wake: None,
            edges,
            links: (0..scenario.edges)
                .map(|_| Links {
                    wan: true,
                    lan: true,
                })
                .collect(),
            dials: (0..scenario.edges).map(|_| Dial::default()).collect(),
            lines: BTreeMap::new(),
            seats: vec![None; scenario.edges],
            serial: 0,
            clients,
            routes: vec![0; scenario.clients],
            scatter: 0,
            loss: scenario.loss,
            calm: false,
            neighbours: HashMap::new(),
            serves: vec![None; scenario.clients],
            well: vec![Well::default(); scenario.clients],
            troubled: Duration::ZERO,
            deaths: vec![None; scenario.edges],
            report: Report::default(),
            rng,
            scenario,
        };
        world.start_authority();
        for edge in 0..world.edges.len() {
            let run = world.edges[edge].run;
            world.later(Duration::ZERO, What::Connect(edge, run));
            world.plan(Place::Edge(edge));
        }
        for index in 0..world.clients.len() {
            let first = world.rng.random_range(Duration::ZERO..world.scenario.pace);
            world.later(first, What::Payload(index));
            world.plan(Place::Client(index));
        }
        for (at, trouble) in world.scenario.troubles.clone() {
            world.later(at, What::Trouble(trouble));
        }
        world.promise(None);
        world
    }

    fn later(&mut self, after: Duration, what: What) {
        self.agenda.put(self.now + after, what);
    }

    fn go_until(&mut self, end: Duration) -> Result<(), Broken> {
        while let Some((at, what)) = self.agenda.take(end) {
            self.now = at;
            self.take(what);
            self.look_at_tables();
            self.watch.at(self.now);
            self.watch.judge();
            self.watch.verdict(self.now, self.scenario.seed)?;
        }
        Ok(())
    }

    /// Goes on until everybody is through again, and then for a quiet while, in which nothing may be lost.
    fn settle(&mut self) -> Result<(), Broken> {
        let end = self.now + self.scenario.settle;
        while self.watch.somebody_waits() && self.now < end {
            self.go_until((self.now + STEP).min(end))?;
        }
        if self.loss > 0 || !(0..self.clients.len()).all(|client| self.is_well(client)) {
            return self.go_until(self.now + STEP);
        }
        self.calm = true;
        // An exchange that was begun while a way was shut may still be given up by one end.
        self.go_until(self.now + RETRANSMIT.total())?;
        let over = self.now + ORPHANED;
        while (0..self.clients.len()).any(|client| self.is_orphan(client)) && self.now < over {
            self.go_until(self.now + STEP)?;
        }
        self.go_until(self.now + AFTERMATH)?;
        let quiet = self.now;
        self.go_until(quiet + QUIET)?;
        self.watch
            .all_is_answered(quiet, quiet + QUIET - ROUND_TRIP);
        self.watch.verdict(self.now, self.scenario.seed)
    }

    fn clock(&self, place: Place) -> Clock {
        let index = match place {
            Place::Authority => 0,
            Place::Edge(edge) => 1 + edge,
            Place::Client(client) => 1 + self.edges.len() + client,
        };
        let drift = self.scenario.drift.get(index).copied();
        Clock::new(self.start, drift.unwrap_or_default())
    }

    fn shown(&self, place: Place) -> Instant {
        self.clock(place).shows(self.now)
    }

    fn take(&mut self, what: What) {
        match what {
            What::ToEdge(edge, from, packet) => self.edge_hears(edge, from, packet),
            What::ToClient(client, packet) => {
                self.with_client(client, |client, step| client.arrive(packet, step));
            }
            What::Frame(edge, frame) => {
                if self.links[edge].lan {
                    self.with_edge(edge, |edge, step| edge.arrive(frame, step));
                }
            }
            What::Target(edge, packet) => self.target(edge, packet),
            What::Claim(frame) => self.claim(&frame),
            What::Rings(edge) => self.with_edge(edge, |edge, step| {
                if edge.runs() {
                    edge.empty_rings(step);
                }
            }),
            What::Line(serial) => self.look_at(serial),
            What::Silence(serial, since) => self.silence(serial, since),
            What::Connect(edge, run) => self.connect(edge, run),
            What::Testimony(edge, run, reached) => self.testimony(edge, run, reached),
            What::Wake(place) => self.wake(place),
            What::Payload(client) => {
                self.later(self.scenario.pace, What::Payload(client));
                self.look_at_ike(client);
                self.with_client(client, |client, step| client.payload(step));
            }
            What::Farewell(run) => self.farewell_over(run),
            What::Trouble(trouble) => self.trouble(trouble),
        }
    }

    fn step(&mut self, place: Place) -> (Step<'_>, &mut Vec<Edge>, &mut Vec<Client>) {
        let now = self.shown(place);
        self.watch.at(self.now);
        let step = Step {
            now,
            world: self.now,
            unix: UNIX + self.now.as_secs(),
            rng: &mut self.rng,
            watch: &mut self.watch,
            keys: &mut self.keys,
        };
        (step, &mut self.edges, &mut self.clients)
    }

    fn with_edge<T>(&mut self, index: usize, act: impl FnOnce(&mut Edge, &mut Step<'_>) -> T) -> T {
        let place = Place::Edge(index);
        let (mut step, edges, _) = self.step(place);
        let edge = &mut edges[index];
        let result = act(edge, &mut step);
        let out = std::mem::take(&mut edge.out);
        for leaves in out {
            match leaves {
                Leaves::Up(up) => self.send_up(index, &up),
                Leaves::Ike(transmit) => self.edge_says(index, Packet::Ike(transmit)),
                Leaves::Out(out) => self.leaves(index, out),
                Leaves::Over => self.edge_ended(index, true),
            }
        }
        self.plan(place);
        result
    }

    fn with_client<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Client, &mut Step<'_>) -> T,
    ) -> T {
        let place = Place::Client(index);
        let (mut step, _, clients) = self.step(place);
        let client = &mut clients[index];
        let result = act(client, &mut step);
        let out = std::mem::take(&mut client.out);
        let begun = std::mem::take(&mut client.begun);
        if begun > 0 {
            self.began(index, begun);
        }
        for packet in out {
            self.client_sends(index, packet);
        }
        self.plan(place);
        result
    }

    fn with_authority<T>(
        &mut self,
        act: impl FnOnce(&mut Authority, &mut Step<'_>) -> T,
    ) -> Option<T> {
        let mut authority = self.authority.take()?;
        let (mut step, ..) = self.step(Place::Authority);
        let result = act(&mut authority, &mut step);
        let out = std::mem::take(&mut authority.out);
        self.authority = Some(authority);
        for (edge, down) in out {
            self.send_down(edge, &down);
        }
        self.plan(Place::Authority);
        Some(result)
    }

    /// When a node has something to do next.
    fn next(&self, place: Place) -> Option<Duration> {
        let clock = self.clock(place);
        match place {
            Place::Authority => {
                let authority = self.authority.as_ref()?;
                if self.authority_frozen {
                    return None;
                }
                let writes = authority.writer.next(self.now);
                let timers = authority.next().filter(|_| !self.authority_parts);
                let timers = timers.map(|next| clock.when(next));
                timers.into_iter().chain(writes).min()
            }
            Place::Edge(edge) => {
                let (own, handed) = self.edges[edge].next();
                own.map(|next| clock.when(next))
                    .into_iter()
                    .chain(handed)
                    .min()
            }
            Place::Client(client) => self.clients[client].next().map(|next| clock.when(next)),
        }
    }

    fn wake_at(&mut self, place: Place) -> &mut Option<Duration> {
        match place {
            Place::Authority => &mut self.authority_wake,
            Place::Edge(edge) => &mut self.edges[edge].wake_at,
            Place::Client(client) => &mut self.clients[client].wake_at,
        }
    }

    fn plan(&mut self, place: Place) {
        let now = self.now;
        let Some(next) = self.next(place).map(|next| next.max(now)) else {
            return;
        };
        let wake_at = self.wake_at(place);
        if wake_at.is_none_or(|at| next < at) {
            *wake_at = Some(next);
            self.later(next - now, What::Wake(place));
        }
    }

    fn wake(&mut self, place: Place) {
        let now = self.now;
        let wake_at = self.wake_at(place);
        if wake_at.is_some_and(|at| at <= now) {
            *wake_at = None;
        }
        if self.next(place).is_none_or(|next| next > now) {
            // It was put off.
            return self.plan(place);
        }
        match place {
            Place::Authority => self.wake_authority(),
            Place::Edge(edge) => self.with_edge(edge, Edge::wake),
            Place::Client(client) => self.with_client(client, Client::wake),
        }
    }

    fn wake_authority(&mut self) {
        let (now, longest) = (self.now, self.scenario.write);
        let Some(authority) = &mut self.authority else {
            return;
        };
        let (disk, rng) = (&mut self.disk, &mut self.rng);
        let done = authority.writer.poll(now, longest, disk, rng);
        if self.authority_parts {
            return self.plan(Place::Authority);
        }
        self.with_authority(|authority, step| {
            authority.stored(done, step);
            authority.wake(step);
        });
    }

    fn start_authority(&mut self) {
        self.authority_run += 1;
        let scenario = self.scenario.clone();
        let mut rng = StdRng::from_rng(&mut self.rng);
        let mut disk = std::mem::take(&mut self.disk);
        let (mut step, ..) = self.step(Place::Authority);
        let mut authority = Authority::new(&scenario, &mut disk, &mut rng, &mut step);
        // Nobody is there yet.
        authority.out.clear();
        (self.disk, self.authority) = (disk, Some(authority));
        self.authority_wake = None;
        self.plan(Place::Authority);
    }

    /// All tables have their bounds, and no frame is lost.
    fn look_at_tables(&mut self) {
        // What was replaced just before an authority died the next one keeps until it expires, after a minute.
        let (pace, rekeying) = (self.scenario.pace, self.scenario.rekeying);
        let replaced = rekeying.map_or(0, |rekeying| {
            let each = pace.as_micros().saturating_mul(rekeying.packets.into());
            REPLACED.as_micros() / each.max(1)
        });
        let most = u128::from(self.authority_run.max(1))
            .saturating_mul(24 + 2 * replaced)
            .saturating_mul(self.clients.len() as u128);
        let authority = self.authority.as_ref().map_or(0, Authority::size);
        let edges = self.edges.iter().flat_map(Edge::sizes);
        let size = edges.chain([authority]).max().unwrap_or_default();
        self.watch
            .holds(size as u128 <= most, "pairs of SAs pile up");
        let lost = self.edges.iter().any(|edge| edge.lost_frames);
        self.watch.holds(!lost, "an edge has lost frames");
    }

    fn report(&self) -> Report {
        let watch = &self.watch;
        Report {
            sent: watch.sent,
            answered: watch.answered,
            rekeyings: watch.rekeyings,
            moves: watch.moves,
            promises: watch.promises,
            longest: watch.longest,
            digest: watch.digest,
            ..self.report.clone()
        }
    }
}

thread_local! {
    /// What was mapped for edges of earlier worlds.
    static SPARE: RefCell<Vec<Umem>> = const { RefCell::new(Vec::new()) };
}

/// Frames of an edge's worker.
fn frames() -> Umem {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| EdgeWorker::frames(FRAMES).expect("memory"))
}

impl Drop for World {
    fn drop(&mut self) {
        let spare = self.edges.drain(..).filter_map(Edge::end);
        SPARE.with_borrow_mut(|all| all.extend(spare));
    }
}
