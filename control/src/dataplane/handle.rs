//! The data plane as the node's core sees it: start, commands in order, a view to read.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evergate_common::guard::Guard;
use evergate_common::maps::{MAX_LOCAL, TunnelEntry};
use evergate_common::reason::Counter;
use ipnet::IpNet;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;
use tokio::sync::oneshot;

use super::announcing::Lan;
use super::bell::Bell;
use super::command::{Command, GroupId, GroupSpec, WorkerReport};
use super::core::{Core, Settings};
use super::loader::{self, Attached, LoadError, OutsideSettings, XdpMode};
use super::net::announce::Announcer;
use super::net::fib::{Fib, Interface};
use super::net::fib_watch::InUse;
use super::net::slow::{self, SlowPath};
use super::ports::{Inside, Ports};
use super::socket_set::SocketSet;
use super::tun::Tun;
use super::view::WorkerView;
use super::worker::{CorePulse, DeadMan, Worker};
use super::xsk::XskError;
use crate::esp::Backend;
use crate::sadb::{SessionId, SessionSpec};

/// Inner addresses that one gateway can announce.
const ANNOUNCED: usize = 65_536;

/// Reports of the worker that may wait for the core.
const REPORTS: usize = 1024;

/// The core waits so long for a worker to carry a command out.
const BARRIER: Duration = Duration::from_secs(1);

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

/// The inside of a node as configured.
pub enum InsideOptions {
    /// A gateway's LAN interface.
    Lan {
        /// The interface.
        interface: Interface,
        /// How the program is attached.
        mode: XdpMode,
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
    /// How its program is attached.
    pub outside_mode: XdpMode,
    /// The inside.
    pub inside: InsideOptions,
    /// What the outside program reflects.
    pub reflect: OutsideSettings,
    /// How long after its last renewal the dead-man switch holds.
    pub dead_man: Duration,
    /// Which AEAD implementation seals and opens.
    pub backend: Backend,
    /// Routes and neighbours.
    pub fib: Arc<ArcSwap<Fib>>,
    /// Tells which next hops carry traffic.
    pub in_use: InUse,
}

/// The running data plane. The only writer of BPF maps; dropping it detaches the programs first.
pub struct Dataplane {
    pub(super) outside: loader::Outside,
    inside: Option<loader::Inside>,
    /// How each program was attached, with a warning where it is not native.
    pub attached: Vec<(String, Attached)>,
    commands: mpsc::Sender<Command>,
    wake: OwnedFd,
    bell: Bell,
    view: Arc<ArcSwap<WorkerView>>,
    pulse: Arc<CorePulse>,
    worker: Option<JoinHandle<()>>,
    pub(super) sessions: HashMap<SessionId, Arc<SessionSpec>>,
    /// Where their peers are.
    pub(super) at: BTreeSet<(IpAddr, SessionId)>,
    /// Those that nothing is steered to yet, and whether they become active then.
    pub(super) outdoors: Vec<(SessionId, bool)>,
    groups: HashMap<GroupId, GroupSpec>,
    /// The groups that have a prefix: mostly one.
    owners: HashMap<IpNet, Vec<GroupId>>,
    inside_name: String,
}

impl Dataplane {
    /// Loads the programs, opens the ports, starts the worker, attaches the programs: in that
    /// order, so that no packet is steered to where nobody listens.
    pub fn start(
        options: Options,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<WorkerReport>), SetupError> {
        let system = |what| move |source| SetupError::System { what, source };
        let now = Instant::now();
        let outside_name = options.outside.name.clone();
        let mut outside = loader::Outside::load(options.reflect)?;
        outside.set_own_addresses(&[options.outside_address])?;
        let mut inside = None;
        let lan_name = match &options.inside {
            InsideOptions::Lan { interface, .. } => {
                let mut program = loader::Inside::load()?;
                let own = interface.addresses.iter().map(|(address, _)| *address);
                program.set_own_addresses(&own.take(MAX_LOCAL).collect::<Vec<_>>())?;
                inside = Some(program);
                Some(interface.name.as_str())
            }
            InsideOptions::Tun { .. } => None,
        };
        let SocketSet {
            umem,
            outside: outside_sockets,
            inside: inside_sockets,
        } = SocketSet::open(&outside_name, lan_name)?;
        for (queue, socket) in (0..).zip(&outside_sockets) {
            outside.set_xsk(queue, socket.as_fd())?;
        }
        if let Some(inside) = &mut inside {
            for (queue, socket) in (0..).zip(&inside_sockets) {
                inside.set_xsk(queue, socket.as_fd())?;
            }
        }
        let mut inside_name = String::new();
        let (ports_inside, lan, slow_inside) = match &options.inside {
            InsideOptions::Lan { interface, .. } => {
                let mac = interface.mac.unwrap_or_default();
                interface.name.clone_into(&mut inside_name);
                let lan = Lan::new(
                    interface.index,
                    mac,
                    interface.mtu as usize,
                    interface
                        .addresses
                        .iter()
                        .map(|(address, _)| *address)
                        .collect(),
                    Announcer::new(mac, None, ANNOUNCED),
                );
                (
                    Inside::Nic(inside_sockets),
                    Some(lan),
                    Some(SlowPath::open(&interface.name)?),
                )
            }
            InsideOptions::Tun { name, mtu } => {
                let tun = Tun::create(name, *mtu).map_err(|source| SetupError::Tun {
                    name: name.clone(),
                    source,
                })?;
                tun.name().clone_into(&mut inside_name);
                (Inside::Tun(tun), None, None)
            }
        };
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| system("making an event descriptor")(e.into()))?;
        let (commands, command_queue) = mpsc::channel();
        let (reports, report_queue) = tokio::sync::mpsc::channel(REPORTS);
        let view = Arc::new(ArcSwap::from_pointee(WorkerView::empty(now)));
        let pulse = Arc::new(CorePulse::new(now));
        let core = Core::new(
            Settings {
                backend: options.backend,
                outside_index: options.outside.index,
                lan,
                fib: options.fib,
                in_use: options.in_use,
                reports: reports.clone(),
                rng: StdRng::from_rng(&mut rand::rng()),
            },
            now,
        );
        let worker = Worker {
            core,
            umem,
            ports: Ports::new(
                outside_sockets,
                ports_inside,
                SlowPath::open(&outside_name)?,
                slow_inside,
                now,
            ),
            commands: command_queue,
            wake: wake.try_clone().map_err(system("copying a descriptor"))?,
            dead_man: DeadMan {
                state: outside.node_state(),
                period: options.dead_man,
                core: Arc::clone(&pulse),
            },
            view: Arc::clone(&view),
            reports,
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
        let how = outside.attach(&outside_name, options.outside_mode)?;
        attached.insert(0, (outside_name.clone(), how));
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
            sessions: HashMap::new(),
            at: BTreeSet::new(),
            outdoors: Vec::new(),
            groups: HashMap::new(),
            owners: HashMap::new(),
            inside_name,
        };
        Ok((dataplane, report_queue))
    }

    /// Sends a command to the worker, who reads it when [woken](Self::wake), if not before.
    pub fn command(&self, command: Command) {
        // A worker that is gone has said so by a report already.
        let _ = self.commands.send(command);
        self.bell.sent();
    }

    /// Wakes the worker if it has been sent commands since the last time: a wake-up costs more than
    /// what most of them say.
    pub fn wake(&self) {
        if self.bell.must_ring() {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Waits until the worker has carried out all earlier commands; bounded by a second.
    pub async fn settled(&self) {
        let (done, wait) = oneshot::channel();
        self.command(Command::Barrier(done));
        self.wake();
        let _ = tokio::time::timeout(BARRIER, wait).await;
    }

    /// Makes a group or changes it, in the worker and in the map of inner prefixes.
    pub fn set_group(&mut self, spec: GroupSpec) -> Result<(), LoadError> {
        let before = self
            .groups
            .get(&spec.id)
            .map(|g| g.prefixes.clone())
            .unwrap_or_default();
        self.command(Command::SetGroup(spec.clone()));
        for prefix in before
            .iter()
            .filter(|prefix| !spec.prefixes.contains(prefix))
        {
            self.remove_prefix(*prefix, spec.id)?;
        }
        for prefix in spec
            .prefixes
            .iter()
            .filter(|prefix| !before.contains(prefix))
        {
            if let Some(inside) = &mut self.inside {
                inside.add_prefix(*prefix, TunnelEntry::new(0))?;
            }
            let owners = self.owners.entry(*prefix).or_default();
            if !owners.contains(&spec.id) {
                owners.push(spec.id);
            }
        }
        self.groups.insert(spec.id, spec);
        Ok(())
    }

    /// Removes a group.
    pub fn remove_group(&mut self, id: GroupId) -> Result<(), LoadError> {
        let Some(spec) = self.groups.remove(&id) else {
            return Ok(());
        };
        for prefix in spec.prefixes {
            self.remove_prefix(prefix, id)?;
        }
        self.command(Command::RemoveGroup(id));
        Ok(())
    }

    /// Takes a prefix that `of` had out of the map, unless another group has it as well.
    fn remove_prefix(&mut self, prefix: IpNet, of: GroupId) -> Result<(), LoadError> {
        let Entry::Occupied(mut owners) = self.owners.entry(prefix) else {
            return Ok(());
        };
        owners.get_mut().retain(|owner| *owner != of);
        if !owners.get().is_empty() {
            return Ok(());
        }
        owners.remove();
        match &mut self.inside {
            Some(inside) => inside.remove_prefix(prefix),
            None => Ok(()),
        }
    }

    /// Addresses whose heartbeats are never answered: the node's own and those of its cluster.
    pub fn never_reflect(&mut self, address: IpAddr) -> Result<(), LoadError> {
        self.outside.never_reflect(address)
    }

    /// The health that this node answers heartbeats with.
    pub fn set_health(&mut self, health: u8) -> Result<(), LoadError> {
        self.outside.node_state().set_health(health)
    }

    /// Puts the guard before IKE up or down.
    pub fn set_guard(&mut self, guard: Guard) -> Result<(), LoadError> {
        self.outside.set_guard(guard)
    }

    /// Name of the inside interface.
    pub fn inside_name(&self) -> &str {
        &self.inside_name
    }

    /// What the worker shows of itself.
    pub fn view(&self) -> Arc<ArcSwap<WorkerView>> {
        Arc::clone(&self.view)
    }

    /// The core's sign of life, which the dead-man switch hangs on.
    pub fn pulse(&self) -> &CorePulse {
        &self.pulse
    }

    /// What the XDP programs counted.
    pub fn xdp_counters(&self) -> [u64; Counter::COUNT] {
        let mut sum = [0; Counter::COUNT];
        let inside = self.inside.as_ref().map(|inside| inside.counters());
        for counters in [Some(self.outside.counters()), inside]
            .into_iter()
            .flatten()
        {
            // Without counters a status is still of use.
            let Ok(counters) = counters else { continue };
            for (total, more) in sum.iter_mut().zip(counters) {
                *total += more;
            }
        }
        sum
    }

    /// Detaches the programs, then ends the worker.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.outside.detach();
        if let Some(inside) = &mut self.inside {
            inside.detach();
        }
        self.command(Command::Stop);
        self.wake();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.end();
    }
}
