//! The whole cluster under a virtual clock: clients and gateways that are made of the real cores
//! (`policy`'s terms, `kms`, `ike`, `liveness`, `esp`, `sadb`, keyed heartbeats), a network that does
//! what networks do, and what must hold at every step. All chance comes from one seed, so a run that
//! breaks something is run again exactly.
//!
//! What the nodes' shells do is done here by [`client`] and [`gateway`], with packets by value instead
//! of rings, and with a LAN that knows who announced an address last.

mod agenda;
mod bits;
mod client;
mod clock;
mod faults;
mod gateway;
mod herd;
mod hunt;
mod nat;
mod net;
mod owner;
mod packet;
mod policy;
mod promise;
mod scenario;
mod session;
mod shared;
mod table;
mod watch;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate::ike::{Retransmit, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use agenda::Agenda;
use client::Client;
use clock::Clocks;
use gateway::Gateway;
pub use herd::Herd;
pub use hunt::{Found, Sum, hunt};
use net::Net;
use packet::{echo, inner_packet, label, source_and_destination};
pub use scenario::{Fault, Rekeying, Scenario};
pub use shared::{
    Report as SharedReport, Scenario as SharedScenario, SharedFound, SharedSum, Trouble,
    World as SharedWorld, hunt as hunt_shared, trace as trace_shared,
};
use watch::Watch;
pub use watch::{Broken, Promises};

/// As the nodes' configuration has it if it says nothing.
const RETRANSMIT: Retransmit = Retransmit {
    first: Duration::from_millis(200),
    factor: 2.0,
    cap: Duration::from_secs(10),
    tries: 4,
};
/// How often it is looked whether all are through again.
const STEP: Duration = Duration::from_millis(500);
/// After that, what was left goes on: sessions end that had been replaced.
const AFTERMATH: Duration = Duration::from_secs(4);
/// And then nothing happens any more.
const QUIET: Duration = Duration::from_secs(4);
/// Longer than any packet and its answer take.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long a frame takes on the LAN of gateways and targets.
const LAN: Duration = Duration::from_micros(50);

/// What goes over the outer network.
#[derive(Clone, Debug)]
enum Packet {
    Ike(Transmit),
    /// ESP, heartbeats too, from the SPI on.
    Esp(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Client(usize),
    Gateway(usize),
}

#[derive(Debug)]
enum What {
    Arrive {
        at: Place,
        from: IpAddr,
        packet: Packet,
    },
    /// A target answers; the LAN brings it to whoever has announced the client's address.
    Answer(Vec<u8>),
    /// A timer of a node may be due.
    Wake(Place),
    /// An application of a client sends.
    Payload(usize),
    Fault(Fault),
}

/// What a node's step leads to.
struct Step<'a> {
    now: Instant,
    rng: &'a mut StdRng,
    watch: &'a mut Watch,
    /// To the outer network.
    out: Vec<(IpAddr, Packet)>,
    /// Inner packets: to the LAN, or to a client's application.
    inner: Vec<Vec<u8>>,
    /// Inner addresses that a gateway announces on the LAN.
    announced: Vec<IpAddr>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Faults that took a gateway from clients that used it.
    pub failovers: u64,
    /// Payload packets of clients, and answers to them that came back.
    pub sent: u64,
    pub answered: u64,
    /// How often clients changed the gateway in use.
    pub switches: u64,
    /// Fresh keys of ESP and of IKE, as the clients count them.
    pub rekeyings: u64,
    /// Sessions that were made by a ticket.
    pub resumed: u64,
    /// How often a gateway found a client elsewhere.
    pub moves: u64,
    /// Promises that came true.
    pub promises: Promises,
    /// The longest time that a client went without an answer.
    pub longest: Duration,
    /// Sums up all that happened, in its order: two runs of a seed have the same.
    pub digest: u64,
}

/// A cluster in its network.
pub struct World {
    clocks: Clocks,
    now: Duration,
    /// Since when each gateway has been well, and on the clients' lists.
    well_since: Vec<Option<Duration>>,
    listed: Vec<bool>,
    /// When each took clients again after a drain.
    drained: Vec<Option<Duration>>,
    agenda: Agenda<What>,
    rng: StdRng,
    net: Net,
    clients: Vec<Client>,
    gateways: Vec<Gateway>,
    /// Who has announced an inner address last.
    lan: HashMap<IpAddr, usize>,
    watch: Watch,
    failovers: u64,
    scenario: Scenario,
}

fn gateway_address(index: usize) -> IpAddr {
    [192, 0, 2, index as u8 + 1].into()
}

/// The addresses that a client has one after the other.
fn client_address(index: usize, moves: u8) -> IpAddr {
    [198, moves, (index >> 8) as u8, index as u8].into()
}

/// Those of the NAT before it.
fn nat_address(index: usize, moves: u8) -> IpAddr {
    [203, moves, (index >> 8) as u8, index as u8].into()
}

fn gateway_at(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(at) => usize::from(at.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

fn client_at(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(at) => Some(usize::from(at.octets()[2]) << 8 | usize::from(at.octets()[3])),
        IpAddr::V6(_) => None,
    }
}

fn client_inner(index: usize) -> IpAddr {
    [10, 64, (index >> 8) as u8, index as u8].into()
}

/// Whom all clients send to.
const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

impl World {
    /// Runs a scenario to its end.
    ///
    /// # Errors
    /// The invariant that was broken, and when.
    pub fn run(scenario: &Scenario) -> Result<Report, Broken> {
        let mut world = World::new(scenario.clone());
        world.go_until(scenario.last())?;
        world.settle()?;
        Ok(world.report())
    }

    fn new(scenario: Scenario) -> World {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let listed = vec![true; scenario.gateways];
        let seed = |rng: &mut StdRng| StdRng::from_rng(rng);
        let mut world = World {
            clocks: Clocks::new(&scenario, start),
            now: Duration::ZERO,
            well_since: vec![Some(Duration::ZERO); scenario.gateways],
            agenda: Agenda::new(),
            net: Net::new(&scenario),
            clients: (0..scenario.clients)
                .map(|index| {
                    let policy = policy::read(&scenario, &listed, &mut rng);
                    Client::new(index, &policy, &scenario, start, &mut rng)
                })
                .collect(),
            gateways: (0..scenario.gateways)
                .map(|index| Gateway::new(index, &scenario, seed(&mut rng)))
                .collect(),
            lan: HashMap::new(),
            watch: Watch::new(scenario.clients),
            failovers: 0,
            drained: vec![None; scenario.gateways],
            listed,
            rng,
            scenario,
        };
        for index in 0..world.scenario.clients {
            let first = world.rng.random_range(Duration::ZERO..world.scenario.pace);
            world.later(first, What::Payload(index));
        }
        for (at, fault) in world.scenario.faults.clone() {
            world.later(at, What::Fault(fault));
        }
        world.promise(None);
        world
    }

    fn later(&mut self, after: Duration, what: What) {
        self.agenda.put(self.now + after, what);
    }

    fn has(&self, place: Place) -> bool {
        match place {
            Place::Client(index) => index < self.clients.len(),
            Place::Gateway(index) => index < self.gateways.len(),
        }
    }

    fn go_until(&mut self, end: Duration) -> Result<(), Broken> {
        while let Some((at, what)) = self.agenda.take(end) {
            self.now = at;
            self.take(what);
            self.watch.at(self.now);
            self.watch.judge();
            self.watch.verdict(self.now, self.scenario.seed)?;
        }
        Ok(())
    }

    /// Goes on after the last fault until everybody is through again, and then for a quiet while, in
    /// which nothing may be lost.
    fn settle(&mut self) -> Result<(), Broken> {
        let end = self.scenario.end();
        while self.watch.somebody_waits() && self.now < end {
            self.go_until((self.now + STEP).min(end))?;
        }
        if self.net.loses() || self.well_since.iter().all(Option::is_none) {
            return self.go_until(end);
        }
        self.go_until(self.now + AFTERMATH)?;
        let quiet = self.now;
        self.go_until(quiet + QUIET)?;
        self.watch
            .all_is_answered(quiet, quiet + QUIET - ROUND_TRIP);
        self.watch.verdict(self.now, self.scenario.seed)
    }

    fn is_healthy(&self, gateway: usize) -> bool {
        self.gateways[gateway].runs() && self.net.is_open(gateway) && self.listed[gateway]
    }

    fn take(&mut self, what: What) {
        match what {
            What::Arrive { at, from, packet } => {
                self.step(at, |node, step| match node {
                    Node::Client(client) => client.arrive(from, packet, step),
                    Node::Gateway(gateway) => gateway.arrive(from, packet, step),
                });
            }
            What::Wake(at) => {
                if self.awake(at) {
                    self.step(at, |node, step| match node {
                        Node::Client(client) => client.wake(step),
                        Node::Gateway(gateway) => gateway.wake(step),
                    });
                } else {
                    // It was put off.
                    self.plan(at);
                }
            }
            What::Payload(index) => {
                self.later(self.scenario.pace, What::Payload(index));
                let at = Place::Client(index);
                self.step(at, |node, step| {
                    if let Node::Client(client) = node {
                        client.payload(TARGET, step);
                    }
                });
            }
            What::Answer(packet) => {
                let Some(&gateway) = source_and_destination(&packet)
                    .and_then(|(_, destination)| self.lan.get(&destination))
                else {
                    return;
                };
                if self.net.has_lan(gateway) {
                    self.step(Place::Gateway(gateway), |node, step| {
                        if let Node::Gateway(gateway) = node {
                            gateway.answers_from_lan(packet, step);
                        }
                    });
                }
            }
            What::Fault(fault) => self.fault(fault),
        }
    }

    /// When a node is looked at again, and when its next timer is due.
    fn timer(&mut self, at: Place) -> (&mut Option<Duration>, Option<Instant>) {
        match at {
            Place::Client(index) => {
                let client = &mut self.clients[index];
                let next = client.next();
                (&mut client.wake_at, next)
            }
            Place::Gateway(index) => {
                let gateway = &mut self.gateways[index];
                let next = gateway.next();
                (&mut gateway.wake_at, next)
            }
        }
    }

    /// Whether a timer of the node is due.
    fn awake(&mut self, at: Place) -> bool {
        let now = self.now;
        let shown = self.clocks.of(at).shows(now);
        let (wake_at, next) = self.timer(at);
        if wake_at.is_some_and(|at| at <= now) {
            *wake_at = None;
        }
        next.is_some_and(|next| next <= shown)
    }

    fn step(&mut self, at: Place, act: impl FnOnce(Node<'_>, &mut Step<'_>)) {
        self.watch.at(self.now);
        let mut step = Step {
            now: self.clocks.of(at).shows(self.now),
            rng: &mut self.rng,
            watch: &mut self.watch,
            out: Vec::new(),
            inner: Vec::new(),
            announced: Vec::new(),
        };
        let node = match at {
            Place::Client(index) => Node::Client(&mut self.clients[index]),
            Place::Gateway(index) => Node::Gateway(&mut self.gateways[index]),
        };
        act(node, &mut step);
        let Step {
            out,
            inner,
            announced,
            ..
        } = step;
        for (to, packet) in out {
            self.send(at, to, packet);
        }
        if let Place::Gateway(index) = at {
            for address in announced {
                self.announce(index, address);
            }
            for packet in inner {
                self.reaches_target(index, packet);
            }
        }
        self.plan(at);
    }

    fn plan(&mut self, at: Place) {
        let now = self.now;
        let clock = self.clocks.of(at);
        let (wake_at, next) = self.timer(at);
        let Some(next) = next else { return };
        let next = clock.when(next).max(now);
        if wake_at.is_none_or(|at| next < at) {
            *wake_at = Some(next);
            self.later(next - now, What::Wake(at));
        }
    }

    fn send(&mut self, from: Place, to: IpAddr, mut packet: Packet) {
        let (address, at) = match from {
            Place::Client(index) => {
                let outer = self.clients[index].outer();
                if let Packet::Ike(t) = &mut packet {
                    t.local.set_ip(outer);
                }
                (outer, gateway_at(to).map(Place::Gateway))
            }
            Place::Gateway(index) => {
                let client = client_at(to).filter(|client| *client < self.clients.len());
                // Nobody has the addresses that were left.
                let client = client.filter(|client| self.clients[*client].outer() == to);
                if let (Some(client), Packet::Ike(t)) = (client, &mut packet) {
                    t.remote.set_ip(self.clients[client].address());
                }
                (gateway_address(index), client.map(Place::Client))
            }
        };
        let Some(at) = at.filter(|at| self.has(*at)) else {
            return;
        };
        for delay in self.net.ways(from, at, &mut self.rng) {
            let packet = packet.clone();
            let from = address;
            self.later(delay, What::Arrive { at, from, packet });
        }
    }

    /// The LAN learns who has an address; whoever had it before hears of it too.
    fn announce(&mut self, gateway: usize, address: IpAddr) {
        if !self.net.has_lan(gateway) {
            return;
        }
        self.lan.insert(address, gateway);
        for (index, other) in self.gateways.iter_mut().enumerate() {
            if index != gateway && self.net.has_lan(index) {
                other.hears_claim(address);
            }
        }
    }

    fn reaches_target(&mut self, gateway: usize, packet: Vec<u8>) {
        if !self.net.has_lan(gateway) {
            return;
        }
        self.watch.at_target(&packet);
        if let Some(answer) = echo(packet) {
            self.later(LAN + LAN, What::Answer(answer));
        }
    }

    fn report(self) -> Report {
        let watch = self.watch;
        Report {
            failovers: self.failovers,
            sent: watch.sent,
            answered: watch.answered,
            switches: watch.switches,
            rekeyings: watch.rekeyings,
            resumed: watch.resumed,
            moves: watch.moves,
            promises: watch.promises,
            longest: watch.longest,
            digest: watch.digest,
        }
    }
}

enum Node<'a> {
    Client(&'a mut Client),
    Gateway(&'a mut Gateway),
}
