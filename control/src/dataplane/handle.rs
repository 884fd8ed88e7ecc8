//! The data plane as the node's core sees it: commands in order, a view to read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use evergate_common::guard::Guard;
use evergate_common::maps::TunnelEntry;
use evergate_common::reason::Counter;
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::bell::Bell;
use super::command::{Command, GroupId, GroupSpec, Steer};
use super::filter::Filter;
use super::handover::Sleeper;
use super::intake::Intake;
use super::listener::Listener;
use super::loader::{self, Attached, LoadError};
use super::net::quote::TooLong;
use super::owners::Owners;
use super::pulse::Pulse;
use super::view::Views;
use super::whereabouts::Whereabouts;
use crate::sadb::{Named, Nets, SessionId};

/// The core waits so long for a worker to carry a command out.
const BARRIER: Duration = Duration::from_secs(1);

/// A worker as its owner has it.
pub(super) struct WorkerHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) sleeper: Arc<Sleeper>,
    pub(super) thread: Option<JoinHandle<()>>,
}
/// Sessions with peers behind one address that are looked at for what a router says: the work that a forged
/// message makes is bounded.
const NEIGHBOURS: usize = 256;

/// The running data plane. The only writer of BPF maps; dropping it detaches the programs first.
pub struct Dataplane {
    /// None where the outside is a socket.
    pub(super) outside: Option<loader::Outside>,
    pub(super) inside: Option<loader::Inside>,
    /// Where an authority's answers come by an interface that is not the inside one.
    pub(super) answers: Option<loader::Answers>,
    /// How each program was attached, with a warning where it is not native.
    pub attached: Vec<(String, Attached)>,
    /// The first one watches gateways and speaks to the LAN.
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) bell: Bell,
    pub(super) views: Views,
    pub(super) pulse: Arc<Pulse>,
    pub(super) listener: Option<Listener>,
    pub(super) intake: Intake,
    pub(super) sessions: HashSet<Named>,
    /// Where their peers are.
    pub(super) at: Whereabouts,
    /// Those that nothing is steered to yet, and whether they become active then.
    pub(super) outdoors: Vec<(SessionId, bool)>,
    /// The prefixes of each group, every one once.
    pub(super) groups: HashMap<GroupId, Nets>,
    pub(super) owners: Owners,
    /// Classes of users.
    pub(super) filter: Filter,
    pub(super) inside_name: String,
    pub(super) tun_name: Option<String>,
    /// The further workers have sockets on ports of their own.
    pub(super) own_ports: bool,
}

impl Dataplane {
    /// Sends a command to the workers that it is for, who read it when [woken](Self::wake), if not
    /// before.
    pub fn command(&self, command: Command) {
        // The first worker last: what it tells the others then is about something that they know.
        for worker in self.workers.iter().skip(1) {
            if let Some(copy) = command.for_others() {
                // A worker that is gone has said so by a report already.
                let _ = worker.commands.send(copy);
            }
        }
        if let Some(first) = self.workers.first() {
            let _ = first.commands.send(command);
        }
        self.bell.sent();
    }

    /// Wakes the workers if they have been sent commands since the last time: a wake-up costs more than
    /// what most of them say.
    pub fn wake(&self) {
        if self.bell.must_ring() {
            self.workers.iter().for_each(|worker| worker.sleeper.wake());
        }
    }

    /// Waits until the workers have carried out all earlier commands; bounded by a second.
    pub async fn settled(&self) {
        let waits: Vec<_> = self
            .workers
            .iter()
            .map(|worker| {
                let (done, wait) = oneshot::channel();
                let _ = worker.commands.send(Command::Barrier(done));
                wait
            })
            .collect();
        self.bell.sent();
        self.wake();
        let all = futures_util::future::join_all(waits);
        let _ = tokio::time::timeout(BARRIER, all).await;
    }

    /// Whether a worker's thread has ended by itself.
    pub fn has_lost_a_worker(&self) -> bool {
        let mut threads = self.workers.iter().map(|worker| &worker.thread);
        threads.any(|thread| thread.as_ref().is_some_and(JoinHandle::is_finished))
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Whether further pairs of SAs may be sent from ports of their own.
    pub fn has_own_ports(&self) -> bool {
        self.own_ports
    }

    /// Makes a group or changes it, in the worker and in the map of inner prefixes.
    pub fn set_group(&mut self, spec: GroupSpec) -> Result<(), LoadError> {
        let id = spec.id;
        let before = self.groups.get(&id).cloned().unwrap_or_default();
        let mut now = Vec::with_capacity(spec.prefixes.len());
        for prefix in &spec.prefixes {
            if !now.contains(prefix) {
                now.push(*prefix);
            }
        }
        self.command(Command::SetGroup(spec));
        // Step by step: after an error it has what it has.
        self.groups.entry(id).or_default();
        for prefix in before.iter().filter(|prefix| !now.contains(prefix)) {
            if let Some(nets) = self.groups.get_mut(&id) {
                nets.retain(|net| net != prefix);
            }
            self.remove_prefix(*prefix)?;
        }
        for prefix in now.iter().filter(|prefix| !before.contains(prefix)) {
            if let Some(inside) = &mut self.inside {
                inside.add_prefix(*prefix, TunnelEntry::new(0))?;
            }
            self.owners.add(*prefix);
            if let Some(nets) = self.groups.get_mut(&id) {
                nets.push(*prefix);
            }
        }
        Ok(())
    }

    /// Removes a group.
    pub fn remove_group(&mut self, id: GroupId) -> Result<(), LoadError> {
        let Some(prefixes) = self.groups.remove(&id) else {
            return Ok(());
        };
        self.command(Command::RemoveGroup(id));
        let mut done = Ok(());
        for prefix in &prefixes {
            done = done.and(self.remove_prefix(*prefix));
        }
        done
    }

    /// Takes a prefix that a group had out of the map, unless another one has it as well.
    fn remove_prefix(&mut self, prefix: IpNet) -> Result<(), LoadError> {
        let last = self.owners.remove(prefix);
        match self.inside.as_mut().filter(|_| last) {
            Some(inside) => inside.remove_prefix(prefix),
            None => Ok(()),
        }
    }

    /// Addresses whose heartbeats are never answered: the node's own and those of its cluster.
    pub fn never_reflect(&mut self, address: IpAddr) -> Result<(), LoadError> {
        self.steer(Steer::NeverReflect(address))
    }

    /// The health that this node answers heartbeats with.
    pub fn set_health(&mut self, health: u8) -> Result<(), LoadError> {
        self.command(Command::Health(health));
        match &self.outside {
            Some(outside) => outside.node_state().set_health(health),
            None => Ok(()),
        }
    }

    /// Puts the guard before IKE up or down, where an XDP program can be one.
    pub fn set_guard(&mut self, guard: Guard) -> Result<(), LoadError> {
        match &mut self.outside {
            Some(outside) => outside.set_guard(guard),
            None => Ok(()),
        }
    }

    /// Name of the inside interface.
    pub fn inside_name(&self) -> &str {
        &self.inside_name
    }

    /// Name of the TUN device, if there is one.
    pub fn tun_name(&self) -> Option<&str> {
        self.tun_name.as_deref()
    }

    /// What the workers show of themselves.
    pub fn views(&self) -> Views {
        self.views.clone()
    }

    /// The core's sign of life, which the dead-man switch hangs on.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// What the XDP programs counted.
    pub fn xdp_counters(&self) -> [u64; Counter::COUNT] {
        let mut sum = [0; Counter::COUNT];
        let outside = self.outside.as_ref().map(|outside| outside.counters());
        let inside = self.inside.as_ref().map(|inside| inside.counters());
        let answers = self.answers.as_ref().map(|answers| answers.counters());
        for counters in [outside, inside, answers].into_iter().flatten() {
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

    /// The way in for ESP that came by another socket.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// A router says that a packet was too long. The worker knows whether it has sent such a one.
    pub fn too_long(&self, said: TooLong) {
        let peer = said.destination;
        // Each of the worker that has its SAs.
        let mut sessions: BTreeMap<usize, Vec<SessionId>> = BTreeMap::new();
        for id in self.at.of(peer).take(NEIGHBOURS) {
            if let Some(Named(spec)) = self.sessions.get(&id) {
                let worker = spec.worker(self.workers.len());
                sessions.entry(worker).or_default().push(id);
            }
        }
        for (worker, sessions) in sessions {
            if let Some(worker) = self.workers.get(worker) {
                let _ = worker.commands.send(Command::TooLong(sessions, said));
                self.bell.sent();
            }
        }
    }

    fn end(&mut self) {
        self.listener = None;
        if let Some(outside) = &mut self.outside {
            outside.detach();
        }
        if let Some(inside) = &mut self.inside {
            inside.detach();
        }
        if let Some(answers) = &mut self.answers {
            answers.detach();
        }
        self.command(Command::Stop);
        self.wake();
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.end();
    }
}
