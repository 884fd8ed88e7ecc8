//! The whole cluster under a virtual clock: clients and gateways that are made of the real cores
//! (`policy`'s terms, `kms`, `ike`, `liveness`, `esp`, `sadb`, keyed heartbeats), a network that does
//! what networks do, and what must hold at every step. All chance comes from one seed, so a run that
//! breaks something is run again exactly.
//!
//! What the nodes' shells do is done here by [`client`] and [`gateway`], with packets by value instead
//! of rings, and with a LAN that knows who announced an address last.

mod client;
mod gateway;
mod hunt;
mod net;
mod owner;
mod scenario;
mod session;
mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evergate::ike::{Retransmit, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use client::Client;
use gateway::Gateway;
pub use hunt::{Found, Sum, hunt};
use net::Net;
pub use scenario::{Fault, Scenario};
pub use watch::Broken;
use watch::Watch;

/// As the nodes' configuration has it if it says nothing.
const RETRANSMIT: Retransmit = Retransmit {
    first: Duration::from_millis(200),
    factor: 2.0,
    cap: Duration::from_secs(10),
    tries: 4,
};
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

struct Due {
    at: Duration,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Faults that took a gateway from clients that used it.
    pub failovers: u64,
    /// Payload packets of clients, and answers to them that came back.
    pub sent: u64,
    pub answered: u64,
    /// How often clients changed the gateway in use.
    pub switches: u64,
    /// The longest time that a client went without an answer.
    pub longest: Duration,
    /// Sums up all that happened, in its order: two runs of a seed have the same.
    pub digest: u64,
}

/// A cluster in its network.
pub struct World {
    start: Instant,
    now: Duration,
    order: u64,
    queue: BinaryHeap<Reverse<Due>>,
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

fn client_address(index: usize) -> IpAddr {
    [198, 51, (index >> 8) as u8, index as u8].into()
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
        world.go()?;
        Ok(world.report())
    }

    fn new(scenario: Scenario) -> World {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let gateways: Vec<IpAddr> = (0..scenario.gateways).map(gateway_address).collect();
        let seed = |rng: &mut StdRng| StdRng::from_rng(rng);
        let mut world = World {
            start,
            now: Duration::ZERO,
            order: 0,
            queue: BinaryHeap::new(),
            net: Net::new(&scenario),
            clients: (0..scenario.clients)
                .map(|index| Client::new(index, &gateways, &scenario, start, &mut rng))
                .collect(),
            gateways: (0..scenario.gateways)
                .map(|index| Gateway::new(index, seed(&mut rng)))
                .collect(),
            lan: HashMap::new(),
            watch: Watch::new(scenario.clients),
            failovers: 0,
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
        world
    }

    fn later(&mut self, after: Duration, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Due {
            at: self.now + after,
            order: self.order,
            what,
        }));
    }

    fn go(&mut self) -> Result<(), Broken> {
        let end = self.scenario.end();
        while let Some(Reverse(due)) = self.queue.pop() {
            if due.at > end {
                break;
            }
            self.now = due.at;
            self.take(due.what);
            self.watch.verdict(self.now, self.scenario.seed)?;
        }
        let healthy = (0..self.gateways.len()).any(|g| self.is_healthy(g));
        if healthy {
            self.watch
                .all_are_served(end, self.scenario.patience, self.scenario.seed)?;
        }
        Ok(())
    }

    fn is_healthy(&self, gateway: usize) -> bool {
        self.gateways[gateway].runs() && self.net.is_open(gateway)
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

    fn fault(&mut self, fault: Fault) {
        let hits = match fault {
            Fault::Crash(g)
            | Fault::Freeze(g)
            | Fault::PullWan(g)
            | Fault::PullLan(g)
            | Fault::Deafen(g)
            | Fault::Mute(g) => Some(g),
            _ => None,
        };
        if let Some(g) = hits {
            let address = gateway_address(g);
            let used = self.clients.iter().filter(|c| c.active() == Some(address));
            self.failovers += used.count() as u64;
        }
        match fault {
            Fault::Crash(g) => self.gateways[g].crash(),
            Fault::Restart(g) => {
                let rng = StdRng::from_rng(&mut self.rng);
                self.gateways[g].restart(rng);
            }
            Fault::Freeze(g) => self.gateways[g].freeze(),
            Fault::Thaw(g) => {
                self.gateways[g].thaw(self.start + self.now);
                self.later(Duration::ZERO, What::Wake(Place::Gateway(g)));
            }
            Fault::Drain(g) => self.step(Place::Gateway(g), |node, step| {
                if let Node::Gateway(gateway) = node {
                    gateway.drain(step);
                }
            }),
            Fault::Undrain(g) => self.gateways[g].undrain(),
            _ => self.net.fault(fault),
        }
        for g in 0..self.gateways.len() {
            let link = self.net.has_lan(g) && self.net.has_wan(g);
            self.gateways[g].link(link);
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
        let (start, now) = (self.start, self.now);
        let (wake_at, next) = self.timer(at);
        if wake_at.is_some_and(|at| at <= now) {
            *wake_at = None;
        }
        next.is_some_and(|next| next <= start + now)
    }

    fn step(&mut self, at: Place, act: impl FnOnce(Node<'_>, &mut Step<'_>)) {
        self.watch.at(self.now);
        let mut step = Step {
            now: self.start + self.now,
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
            self.send(at, to, &packet);
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
        let (start, now) = (self.start, self.now);
        let (wake_at, next) = self.timer(at);
        let Some(next) = next else { return };
        let next = next.saturating_duration_since(start).max(now);
        if wake_at.is_none_or(|at| next < at) {
            *wake_at = Some(next);
            self.later(next - now, What::Wake(at));
        }
    }

    fn send(&mut self, from: Place, to: IpAddr, packet: &Packet) {
        let address = match from {
            Place::Client(index) => client_address(index),
            Place::Gateway(index) => gateway_address(index),
        };
        let at = match from {
            Place::Client(_) => (0..self.gateways.len())
                .find(|g| gateway_address(*g) == to)
                .map(Place::Gateway),
            Place::Gateway(_) => (0..self.clients.len())
                .find(|c| client_address(*c) == to)
                .map(Place::Client),
        };
        let Some(at) = at else { return };
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
            longest: watch.longest,
            digest: watch.digest,
        }
    }
}

enum Node<'a> {
    Client(&'a mut Client),
    Gateway(&'a mut Gateway),
}

/// An inner packet: IPv4, with who sends it and its number.
fn inner_packet(source: IpAddr, destination: IpAddr, client: u32, number: u64) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        unreachable!("all inner addresses are IPv4");
    };
    let mut packet = vec![0; 32];
    packet[0] = 0x45;
    packet[3] = 32;
    packet[8] = 64;
    packet[9] = 253;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..24].copy_from_slice(&client.to_be_bytes());
    packet[24..32].copy_from_slice(&number.to_be_bytes());
    packet
}

fn source_and_destination(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    Some((address(12)?, address(16)?))
}

/// Who has sent an inner packet in the first place, and its number.
fn label(packet: &[u8]) -> Option<(usize, u64)> {
    let client = u32::from_be_bytes(packet.get(20..24)?.try_into().ok()?);
    let number = u64::from_be_bytes(packet.get(24..32)?.try_into().ok()?);
    Some((client as usize, number))
}

/// The same packet back.
fn echo(packet: Vec<u8>) -> Option<Vec<u8>> {
    let (source, destination) = source_and_destination(&packet)?;
    let (client, number) = label(&packet)?;
    Some(inner_packet(destination, source, client as u32, number))
}
