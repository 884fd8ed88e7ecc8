//! The start of the data plane: what it is given, and in which order it is put together.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evergate_common::maps::MAX_LOCAL;
use rand::SeedableRng;
use rand::rngs::StdRng;
use thiserror::Error;

use super::announcing::Lan;
use super::bell::Bell;
use super::command::WorkerReport;
use super::core::{Core, Settings};
use super::filter::Filter;
use super::handle::{Dataplane, WorkerHandle};
use super::handover::{Desk, FIRST, Sleeper};
use super::intake::{Intake, intake};
use super::listener::{Hears, Listener};
use super::loader::{self, LoadError, NodeStateWriter, OutsideSettings, XdpMode};
use super::logbook::Logbook;
use super::net::announce::Announcer;
use super::net::fib::{Fib, Interface};
use super::net::fib_watch::InUse;
use super::net::segment::Segment;
use super::net::slow::{self, SlowPath};
use super::owners::Owners;
use super::paths::Discovery;
use super::ports::{Inside, Outside, Ports};
use super::pulse::{DeadMan, Pulse};
use super::socket_set::{SocketSet, deal};
use super::translation::TranslationOptions;
use super::tun::Tun;
use super::udp::{self, Gate, IkeMessage, UdpPort};
use super::view::Views;
use super::whereabouts::Whereabouts;
use super::worker::{BATCH, Worker};
use super::xsk::XskError;
use crate::esp::Backend;

/// Inner addresses that one gateway can announce.
const ANNOUNCED: usize = 65_536;

/// Reports of the worker that may wait for the core.
const REPORTS: usize = 1024;

/// Why the data plane did not start.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The XDP programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The AF_XDP sockets.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The slow path.
    #[error(transparent)]
    Slow(#[from] slow::OpenError),
    /// The TUN device.
    #[error(
        "the TUN device {name} could not be created: {source} (needs CAP_NET_ADMIN and /dev/net/tun)"
    )]
    Tun {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Memory, descriptors, threads.
    #[error("{what} failed: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The outside of a node as configured.
pub enum OutsideOptions {
    /// An XDP program on the interface.
    Xdp(XdpMode),
    /// No XDP program: ESP goes in UDP by these sockets (see [`udp::bind`](super::udp::bind)), one for each
    /// worker that is wanted, and messages of IKE that come by them go to the queue.
    Udp(Vec<UdpSocket>, tokio::sync::mpsc::Sender<IkeMessage>),
}

/// The inside of a node as configured.
pub enum InsideOptions {
    /// A gateway's LAN interface.
    Lan {
        /// The interface.
        interface: Interface,
        /// How the program is attached.
        mode: XdpMode,
    },
    /// A gateway's LAN interface without an XDP program: the kernel forwards between it and a TUN device.
    Routed {
        /// The interface.
        interface: Interface,
        /// Name of the TUN device, in which `%d` is a number of the kernel's choice.
        tun: String,
    },
    /// A client's TUN device.
    Tun {
        /// Its name.
        name: String,
        /// Its MTU in bytes.
        mtu: u16,
    },
}

/// Everything that the data plane is started with.
pub struct Options {
    /// The outside interface.
    pub outside: Interface,
    /// The outer address that the node is reached at; what is sent to others is the kernel's.
    pub outside_address: IpAddr,
    /// What is on it.
    pub port: OutsideOptions,
    /// The inside.
    pub inside: InsideOptions,
    /// How IKE is relayed by address translation, if it is; then `reflect` says so too.
    pub translation: Option<TranslationOptions>,
    /// What is reflected on the outside, and what is steered to the workers.
    pub reflect: OutsideSettings,
    /// How long after its last renewal the dead-man switch holds.
    pub dead_man: Duration,
    /// How the MTU of paths is found out.
    pub discovery: Discovery,
    /// Which AEAD implementation seals and opens.
    pub backend: Backend,
    /// Routes and neighbours.
    pub fib: Arc<ArcSwap<Fib>>,
    /// Tells which next hops carry traffic.
    pub in_use: InUse,
    /// How long a worker looks for packets before it sleeps.
    pub busy_poll: Duration,
    /// Silence after which a NAT's mapping of a port has to be kept alive.
    pub keep_alive: Duration,
    /// Where it is written how far shared sessions have come, if anybody reads it.
    pub logbook: Option<Arc<Logbook>>,
    /// How many workers are wanted; there are no more than every interface has receive queues.
    pub workers: usize,
}

impl Dataplane {
    /// Loads the programs, opens the ports, starts the worker, attaches the programs: in that
    /// order, so that no packet is steered to where nobody listens.
    pub fn start(
        options: Options,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<WorkerReport>), SetupError> {
        let now = Instant::now();
        let count = worker_count(&options)?;
        let outside_name = options.outside.name.clone();
        let own_ports = count > 1
            && matches!(options.port, OutsideOptions::Udp(..))
            && matches!(options.inside, InsideOptions::Tun { .. });
        let (mut outside, chosen) = match options.port {
            OutsideOptions::Xdp(mode) => {
                let mut program = loader::Outside::load(options.reflect)?;
                program.set_own_addresses(&[options.outside_address])?;
                let state = program.node_state();
                (Some(program), Chosen::Nic(mode, state))
            }
            OutsideOptions::Udp(mut sockets, ike) => {
                // Nobody would read from the others.
                sockets.truncate(count);
                udp::spread(&sockets).map_err(system("spreading what comes to port 4500"))?;
                let ports = sockets.into_iter().enumerate().map(|(number, socket)| {
                    let own = own_socket(own_ports, number, options.outside_address);
                    UdpPort::new(socket, own, ike.clone())
                });
                let ports = ports.collect::<io::Result<Vec<_>>>();
                let ports = ports.map_err(system("asking a socket's address"))?;
                (None, Chosen::Udp(ports))
            }
        };
        let mut inside = match &options.inside {
            InsideOptions::Lan { interface, .. } => {
                let mut program = match &options.translation {
                    Some(translation) => translation.inside(&interface.name)?,
                    None => loader::Inside::load()?,
                };
                let own = interface.addresses.iter().map(|(address, _)| *address);
                program.set_own_addresses(&own.take(MAX_LOCAL).collect::<Vec<_>>())?;
                Some(program)
            }
            InsideOptions::Routed { .. } | InsideOptions::Tun { .. } => None,
        };
        let lan_name = match &options.inside {
            InsideOptions::Lan { interface, .. } => Some(interface.name.as_str()),
            _ => None,
        };
        let outside_nic = outside.as_ref().map(|_| outside_name.as_str());
        let sockets = SocketSet::open(outside_nic, lan_name, count)?;
        if let Some(outside) = &mut outside {
            for (queue, socket) in (0..).zip(&sockets.outside) {
                outside.set_xsk(queue, socket.as_fd())?;
            }
        }
        if let Some(inside) = &mut inside {
            for (queue, socket) in (0..).zip(&sockets.inside) {
                inside.set_xsk(queue, socket.as_fd())?;
            }
        }
        if !options.busy_poll.is_zero() {
            for socket in sockets.outside.iter().chain(&sockets.inside) {
                if let Err(error) = socket.busy_poll(options.busy_poll, BATCH as i32) {
                    tracing::warn!(
                        "esp.busy_poll: the kernel can not be asked to wait for it: {error}"
                    );
                    break;
                }
            }
        }
        let (mut insides, lan) = open_inside(&options.inside, count)?;
        let tun_name = insides
            .first()
            .and_then(Inside::tun_name)
            .map(str::to_owned);
        let inside_name = match &options.inside {
            InsideOptions::Lan { interface, .. } | InsideOptions::Routed { interface, .. } => {
                interface.name.clone()
            }
            InsideOptions::Tun { name, .. } => tun_name.clone().unwrap_or_else(|| name.clone()),
        };
        let (reports, report_queue) = tokio::sync::mpsc::channel(REPORTS);
        let views = Views::empty(count, now);
        let pulse = Arc::new(Pulse::new(now));
        let pulses: Vec<_> = (0..count).map(|_| Arc::new(Pulse::new(now))).collect();
        let sleepers = (0..count).map(|_| Ok(Arc::new(Sleeper::new(now)?)));
        let sleepers = sleepers
            .collect::<io::Result<Vec<_>>>()
            .map_err(system("making an event descriptor"))?;
        // The first worker hands on what is another one's.
        let (intake, taken) = intake(Arc::clone(&sleepers[0]));
        let mut taken = Some(taken);
        let hears = Hears {
            errors: options.discovery != Discovery::Off,
            // Elsewhere ESP comes in UDP alone, and the socket's datagrams are whole.
            fragments: outside.is_some(),
        };
        let listener = listen(&outside_name, hears, &reports, &intake)?;
        let (mut port, mode) = match chosen {
            Chosen::Nic(mode, state) => (Start::Nic(Some(state)), Some(mode)),
            Chosen::Udp(ports) => (Start::Udp(ports.into_iter()), None),
        };
        let mut workers = Vec::with_capacity(count);
        let desks = Desk::connect(&sleepers);
        let mut outside_sockets = deal(sockets.outside, count).into_iter();
        let mut inside_sockets = deal(sockets.inside, count).into_iter();
        for (number, (desk, umem)) in desks.into_iter().zip(sockets.umems).enumerate() {
            let ports_outside = match &mut port {
                Start::Nic(state) => Outside::Nic {
                    sockets: outside_sockets.next().unwrap_or_default(),
                    slow: SlowPath::open(&outside_name)?,
                    state: state.take(),
                },
                Start::Udp(ports) => match ports.next() {
                    Some(port) => Outside::Udp {
                        port: Box::new(port),
                        gate: Gate::new(options.reflect),
                    },
                    None => break,
                },
            };
            let ports_inside = match insides.is_empty() {
                true => Inside::Nic(inside_sockets.next().unwrap_or_default()),
                false => insides.remove(0),
            };
            let slow_inside = lan_name.map(SlowPath::open).transpose()?;
            let core = Core::new(
                Settings {
                    worker: number,
                    workers: count,
                    backend: options.backend,
                    discovery: options.discovery,
                    outside_index: options.outside.index,
                    own_port: ports_outside.own_port(),
                    keep_alive: options.keep_alive,
                    outside_frames: outside.is_some(),
                    lan: lan.map(|(interface, routed)| lan_of(interface, routed)),
                    fib: Arc::clone(&options.fib),
                    in_use: options.in_use.clone(),
                    shared: options.reflect.shared,
                    logbook: options.logbook.clone(),
                    reports: reports.clone(),
                    rng: StdRng::from_rng(&mut rand::rng()),
                },
                now,
            );
            let (commands, command_queue) = mpsc::channel();
            let sleeper = Arc::clone(&sleepers[number]);
            let worker = Worker {
                core,
                umem,
                ports: Ports::new(ports_outside, ports_inside, desk, slow_inside, now),
                commands: command_queue,
                sleeper: Arc::clone(&sleeper),
                dead_man: DeadMan {
                    period: options.dead_man,
                    core: Arc::clone(&pulse),
                    others: others(&pulses, number),
                    own: Arc::clone(&pulses[number]),
                },
                views: views.clone(),
                reports: reports.clone(),
                taken: taken.take(),
                undrained: 0,
                busy_poll: options.busy_poll,
            };
            let thread = worker
                .start(&format!("worker-{number}"))
                .map_err(system("starting a worker's thread"))?;
            workers.push(WorkerHandle {
                commands,
                sleeper,
                thread: Some(thread),
            });
        }
        let mut attached = Vec::new();
        if let (Some(inside), InsideOptions::Lan { interface, mode }) =
            (&mut inside, &options.inside)
        {
            let how = inside.attach(&interface.name, *mode)?;
            attached.push((interface.name.clone(), how));
        }
        let mut answers = None;
        if let (Some(translation), Some(outside)) = (&options.translation, &mut outside) {
            outside.set_translation(translation.addresses())?;
            let here = inside.as_ref().map(|_| inside_name.as_str());
            answers = translation.elsewhere(here, &mut attached)?;
        }
        // Last: of a process that is killed the kernel closes the newest descriptors first, and
        // nothing must answer heartbeats for it any longer than that takes.
        if let (Some(outside), Some(mode)) = (&mut outside, mode) {
            let how = outside.attach(&outside_name, mode)?;
            attached.insert(0, (outside_name.clone(), how));
        }
        let dataplane = Self {
            outside,
            inside,
            answers,
            attached,
            workers,
            bell: Bell::new(),
            views,
            pulse,
            listener,
            intake,
            sessions: HashSet::new(),
            at: Whereabouts::default(),
            outdoors: Vec::new(),
            groups: HashMap::new(),
            owners: Owners::default(),
            filter: Filter::default(),
            inside_name,
            tun_name,
            own_ports,
        };
        Ok((dataplane, report_queue))
    }
}

/// A socket on a port of the worker's own, for each but the first. It does without.
pub(super) fn own_socket(wanted: bool, worker: usize, address: IpAddr) -> Option<UdpSocket> {
    if !wanted || worker == FIRST {
        return None;
    }
    let bound = udp::bind_own(address);
    bound
        .inspect_err(|error| tracing::warn!("no UDP port for worker {worker} alone: {error}"))
        .ok()
}

/// The signs of life of all workers but one.
fn others(pulses: &[Arc<Pulse>], own: usize) -> Vec<Arc<Pulse>> {
    let pulses = pulses.iter().enumerate();
    let others = pulses.filter(|(number, _)| *number != own);
    others.map(|(_, pulse)| Arc::clone(pulse)).collect()
}

/// How many workers there are.
fn worker_count(options: &Options) -> Result<usize, SetupError> {
    let socket = matches!(options.port, OutsideOptions::Udp(..));
    let lan = match &options.inside {
        InsideOptions::Lan { interface, .. } => Some(interface.name.as_str()),
        InsideOptions::Routed { .. } | InsideOptions::Tun { .. } => None,
    };
    let outside = (!socket).then_some(options.outside.name.as_str());
    SocketSet::workers(outside, lan, options.workers)
}

/// What is given to the first worker alone, or to each its own.
enum Start {
    Nic(Option<NodeStateWriter>),
    Udp(std::vec::IntoIter<UdpPort>),
}

/// Listens to what routers say of our packets, and to ESP that came in fragments. Where a socket is the
/// outside, a node does without it if it may not.
fn listen(
    interface: &str,
    hears: Hears,
    reports: &tokio::sync::mpsc::Sender<WorkerReport>,
    intake: &Intake,
) -> Result<Option<Listener>, SetupError> {
    if !hears.errors && !hears.fragments {
        return Ok(None);
    }
    match Listener::start(interface, hears, reports.downgrade(), intake.clone()) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if !hears.fragments => {
            tracing::warn!(
                "ICMP about packets that are too long is not heard: {error} (CAP_NET_RAW?)"
            );
            Ok(None)
        }
        Err(error) => Err(system(
            "opening raw sockets for ICMP and ESP (CAP_NET_RAW?)",
        )(error)),
    }
}

/// The outside's port while it is being put together.
enum Chosen {
    Nic(XdpMode, NodeStateWriter),
    Udp(Vec<UdpPort>),
}

/// An error of the system while something was being done.
fn system(what: &'static str) -> impl FnOnce(io::Error) -> SetupError {
    move |source| SetupError::System { what, source }
}

/// The inside's ports, one for each worker unless it is a NIC, and a gateway's LAN, and whether the kernel
/// forwards there.
#[expect(clippy::type_complexity, reason = "one caller, which takes it apart")]
fn open_inside(
    options: &InsideOptions,
    workers: usize,
) -> Result<(Vec<Inside>, Option<(&Interface, bool)>), SetupError> {
    match options {
        InsideOptions::Lan { interface, .. } => Ok((Vec::new(), Some((interface, false)))),
        InsideOptions::Routed { interface, tun } => {
            let mtu = u16::try_from(interface.mtu).unwrap_or(u16::MAX);
            let tuns = create(tun, mtu, workers)?.into_iter().enumerate();
            let routed = tuns.map(|(number, tun)| {
                let segment = match number {
                    FIRST => Segment::open(interface.index),
                    _ => Segment::open_to_send(interface.index),
                };
                Ok(Inside::Routed(tun, segment?))
            });
            let routed = routed
                .collect::<io::Result<_>>()
                .map_err(system("opening a packet socket on the LAN (CAP_NET_RAW?)"))?;
            Ok((routed, Some((interface, true))))
        }
        InsideOptions::Tun { name, mtu } => {
            let tuns = create(name, *mtu, workers)?;
            Ok((tuns.into_iter().map(Inside::Tun).collect(), None))
        }
    }
}

fn lan_of(interface: &Interface, routed: bool) -> Lan {
    let mac = interface.mac.unwrap_or_default();
    let addresses = interface.addresses.iter().map(|(address, _)| *address);
    Lan::new(
        interface.index,
        mac,
        interface.mtu as usize,
        addresses.collect(),
        routed,
        Announcer::new(mac, None, ANNOUNCED),
    )
}

fn create(name: &str, mtu: u16, queues: usize) -> Result<Vec<Tun>, SetupError> {
    Tun::create(name, mtu, queues).map_err(|source| SetupError::Tun {
        name: name.to_owned(),
        source,
    })
}
