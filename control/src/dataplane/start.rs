//! The start of the data plane: what it is given, and in which order it is put together.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evergate_common::maps::MAX_LOCAL;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

use super::announcing::Lan;
use super::bell::Bell;
use super::command::WorkerReport;
use super::core::{Core, Settings};
use super::handle::Dataplane;
use super::intake::{Intake, intake};
use super::listener::{Hears, Listener};
use super::loader::{self, LoadError, NodeStateWriter, OutsideSettings, XdpMode};
use super::net::announce::Announcer;
use super::net::fib::{Fib, Interface};
use super::net::fib_watch::InUse;
use super::net::segment::Segment;
use super::net::slow::{self, SlowPath};
use super::paths::Discovery;
use super::ports::{Inside, Outside, Ports};
use super::socket_set::SocketSet;
use super::tun::Tun;
use super::udp::{Gate, IkeMessage, UdpPort};
use super::view::WorkerView;
use super::worker::{CorePulse, DeadMan, Worker};
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
    /// No XDP program: ESP goes in UDP by this socket (see [`udp::bind`](super::udp::bind)), and messages of
    /// IKE that come by it go to the queue.
    Udp(UdpSocket, tokio::sync::mpsc::Sender<IkeMessage>),
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
    /// What is reflected on the outside.
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
}

impl Dataplane {
    /// Loads the programs, opens the ports, starts the worker, attaches the programs: in that
    /// order, so that no packet is steered to where nobody listens.
    pub fn start(
        options: Options,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<WorkerReport>), SetupError> {
        let now = Instant::now();
        let outside_name = options.outside.name.clone();
        let (mut outside, chosen) = match options.port {
            OutsideOptions::Xdp(mode) => {
                let mut program = loader::Outside::load(options.reflect)?;
                program.set_own_addresses(&[options.outside_address])?;
                let state = program.node_state();
                (Some(program), Chosen::Nic(mode, state))
            }
            OutsideOptions::Udp(socket, ike) => {
                let port =
                    UdpPort::new(socket, ike).map_err(system("asking a socket's address"))?;
                (None, Chosen::Udp(Box::new(port)))
            }
        };
        let mut inside = match &options.inside {
            InsideOptions::Lan { interface, .. } => {
                let mut program = loader::Inside::load()?;
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
        let sockets = SocketSet::open(outside.as_ref().map(|_| outside_name.as_str()), lan_name)?;
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
        let (ports_outside, mode) = match chosen {
            Chosen::Nic(mode, state) => {
                let port = Outside::Nic {
                    sockets: sockets.outside,
                    slow: SlowPath::open(&outside_name)?,
                    state,
                };
                (port, Some(mode))
            }
            Chosen::Udp(port) => {
                let gate = Gate::new(options.reflect);
                (Outside::Udp { port, gate }, None)
            }
        };
        let (ports_inside, lan) = open_inside(&options.inside, sockets.inside)?;
        let tun_name = ports_inside.tun_name().map(str::to_owned);
        let inside_name = match &options.inside {
            InsideOptions::Lan { interface, .. } | InsideOptions::Routed { interface, .. } => {
                interface.name.clone()
            }
            InsideOptions::Tun { name, .. } => tun_name.clone().unwrap_or_else(|| name.clone()),
        };
        let slow_inside = lan_name.map(SlowPath::open).transpose()?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| system("making an event descriptor")(e.into()))?;
        let (commands, command_queue) = mpsc::channel();
        let (reports, report_queue) = tokio::sync::mpsc::channel(REPORTS);
        let view = Arc::new(ArcSwap::from_pointee(WorkerView::empty(now)));
        let pulse = Arc::new(CorePulse::new(now));
        let core = Core::new(
            Settings {
                backend: options.backend,
                discovery: options.discovery,
                outside_index: options.outside.index,
                outside_frames: outside.is_some(),
                lan,
                fib: options.fib,
                in_use: options.in_use,
                reports: reports.clone(),
                rng: StdRng::from_rng(&mut rand::rng()),
            },
            now,
        );
        let (intake, taken) = intake(wake.try_clone().map_err(system("copying a descriptor"))?);
        let hears = Hears {
            errors: options.discovery != Discovery::Off,
            // Elsewhere ESP comes in UDP alone, and the socket's datagrams are whole.
            fragments: outside.is_some(),
        };
        let listener = listen(&outside_name, hears, &reports, &intake)?;
        let worker = Worker {
            core,
            umem: sockets.umem,
            ports: Ports::new(ports_outside, ports_inside, slow_inside, now),
            commands: command_queue,
            wake: wake.try_clone().map_err(system("copying a descriptor"))?,
            dead_man: DeadMan {
                period: options.dead_man,
                core: Arc::clone(&pulse),
            },
            view: Arc::clone(&view),
            reports,
            taken,
            undrained: 0,
        };
        let worker = worker
            .start("worker-0")
            .map_err(system("starting a worker's thread"))?;
        let mut attached = Vec::new();
        if let (Some(inside), InsideOptions::Lan { interface, mode }) =
            (&mut inside, &options.inside)
        {
            let how = inside.attach(&interface.name, *mode)?;
            attached.push((interface.name.clone(), how));
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
            attached,
            commands,
            wake,
            bell: Bell::new(),
            view,
            pulse,
            worker: Some(worker),
            listener,
            intake,
            sessions: HashMap::new(),
            at: BTreeSet::new(),
            outdoors: Vec::new(),
            groups: HashMap::new(),
            owners: HashMap::new(),
            inside_name,
            tun_name,
        };
        Ok((dataplane, report_queue))
    }
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
    Udp(Box<UdpPort>),
}

/// An error of the system while something was being done.
fn system(what: &'static str) -> impl FnOnce(io::Error) -> SetupError {
    move |source| SetupError::System { what, source }
}

/// The inside's port, and what a gateway has to know of its LAN.
fn open_inside(
    options: &InsideOptions,
    sockets: Vec<super::xsk::Socket>,
) -> Result<(Inside, Option<Lan>), SetupError> {
    match options {
        InsideOptions::Lan { interface, .. } => {
            Ok((Inside::Nic(sockets), Some(lan_of(interface, false))))
        }
        InsideOptions::Routed { interface, tun } => {
            let mtu = u16::try_from(interface.mtu).unwrap_or(u16::MAX);
            let tun = create(tun, mtu)?;
            let segment = Segment::open(interface.index)
                .map_err(system("opening a packet socket on the LAN (CAP_NET_RAW?)"))?;
            Ok((Inside::Routed(tun, segment), Some(lan_of(interface, true))))
        }
        InsideOptions::Tun { name, mtu } => Ok((Inside::Tun(create(name, *mtu)?), None)),
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

fn create(name: &str, mtu: u16) -> Result<Tun, SetupError> {
    Tun::create(name, mtu).map_err(|source| SetupError::Tun {
        name: name.to_owned(),
        source,
    })
}
