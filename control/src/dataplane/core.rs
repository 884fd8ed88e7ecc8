//! What a worker does with packets: the state, and the doors by which a frame can leave.
//!
//! The core makes no system call and knows no ring. Frames go in with `take_*`, and a [`Way`] says
//! where each one leaves; what the core sends by itself (heartbeats, announcements, packets that
//! waited) is fetched with [`Core::next_outgoing`]. The ways of a packet are in `opening` (from
//! outside) and `sealing` (from inside); `watching` has the client's watch over its gateways,
//! `announcing` the gateway's duties on the LAN.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evergate_common::heartbeat;
use evergate_common::reason::Counter;
use rand::rngs::StdRng;

use super::announcing::Lan;
use super::command::{Command, Sending, WorkerReport};
use super::groups::Groups;
use super::handover::{Door, Note};
use super::hops::Hops;
use super::leases::Leases;
use super::logbook::Logbook;
use super::net::fib::{Fib, Resolution};
use super::net::fib_watch::InUse;
use super::net::icmp::RateLimit;
use super::own_port::OwnPort;
use super::parking::Waits;
use super::paths::Discovery;
use super::session::{Session, Sessions};
use super::signs::Signs;
use super::view::{GroupView, SessionView, SessionViews, WorkerView};
use super::xsk::{Frame, Umem};
use crate::esp::{Backend, Refused};

/// Length of an Ethernet header without a tag.
pub(super) const ETHERNET: usize = 14;

/// The door by which a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As an Ethernet frame by the outside interface.
    Outside,
    /// By the inside: an Ethernet frame on a NIC, an IP packet where it is a TUN device.
    Inside,
    /// As an Ethernet frame to the stations of a gateway's LAN.
    Lan,
    /// As an IP packet to the kernel, for the outside interface; without an XDP program always so.
    SlowOutside,
    /// As an IP packet to the kernel, for the inside interface.
    SlowInside,
    /// To another worker, which goes on with it from this door.
    HandOver(usize, Door),
    /// Into the queue of the group with this index.
    Hold(usize),
    /// Among the frames that wait for numbers of the shared session with this inbound SPI, or for the session.
    Park(u32, Waits),
    /// Nowhere: its content was taken in.
    Done,
    /// Nowhere, for this reason.
    Drop(Counter),
}

/// What a core needs to know at its start.
pub(super) struct Settings {
    /// Which worker this is, of so many.
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) backend: Backend,
    pub(super) discovery: Discovery,
    pub(super) outside_index: u32,
    /// Where the outside is a socket: the port of another one, of this worker's own.
    pub(super) own_port: Option<u16>,
    /// Silence after which a NAT's mapping of a port has to be kept alive.
    pub(super) keep_alive: Duration,
    /// Whether the outside takes Ethernet frames; else IP packets.
    pub(super) outside_frames: bool,
    /// The LAN interface; none on a client.
    pub(super) lan: Option<Lan>,
    pub(super) fib: Arc<ArcSwap<Fib>>,
    pub(super) in_use: InUse,
    /// The node may get a session for an SPI that it does not know.
    pub(super) shared: bool,
    /// Where it is written how far shared sessions have come, if anybody reads it.
    pub(super) logbook: Option<Arc<Logbook>>,
    pub(super) reports: tokio::sync::mpsc::Sender<WorkerReport>,
    pub(super) rng: StdRng,
}

/// How often outside next hops are reported as being in use.
const REFRESH: Duration = Duration::from_secs(1);

/// ICMP errors a second, and at once.
const ICMP_RATE: (u32, u32) = (200, 50);

/// The state of a worker.
pub(super) struct Core {
    /// Which worker this is, of so many.
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// What the other workers are to be told.
    pub(super) notes: VecDeque<(usize, Note)>,
    /// The present frame was handed over by the first worker: it must not go back there.
    pub(super) from_first: bool,
    /// It was handed over by another one: it goes on to the first at most.
    pub(super) from_other: bool,
    /// It came to the worker's own port.
    pub(super) by_own_port: bool,
    pub(super) own_port: Option<OwnPort>,
    pub(super) keep_alive: Duration,
    pub(super) signs: Signs,
    pub(super) sessions: Sessions,
    pub(super) groups: Groups,
    pub(super) lan: Option<Lan>,
    pub(super) fib: Arc<Fib>,
    pub(super) hops: Hops,
    pub(super) icmp_rate: RateLimit,
    pub(super) rng: StdRng,
    /// What keyed heartbeats are answered with that another gateway has sent on.
    pub(super) health: u8,
    /// The time of the present batch.
    pub(super) now: Instant,
    pub(super) backend: Backend,
    pub(super) outside_index: u32,
    outside_frames: bool,
    refresh_at: Instant,
    published_fib: Arc<ArcSwap<Fib>>,
    counters: [u64; Counter::COUNT],
    outgoing: VecDeque<(Frame, Way)>,
    pub(super) leases: Leases,
    pub(super) reports: tokio::sync::mpsc::Sender<WorkerReport>,
    pub(super) unsent: VecDeque<WorkerReport>,
    pub(super) view_wanted: bool,
    shown: SessionViews,
    /// Sessions of gateways that were heard in this batch.
    pub(super) heard: Vec<usize>,
    pub(super) discovery: Discovery,
    /// Sessions whose path's MTU is looked after, and when next.
    pub(super) paths: Vec<usize>,
    pub(super) paths_at: Instant,
}

impl Core {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let fib = settings.fib.load_full();
        Self {
            worker: settings.worker,
            workers: settings.workers,
            notes: VecDeque::new(),
            from_first: false,
            from_other: false,
            by_own_port: false,
            own_port: settings
                .own_port
                .map(|port| OwnPort::new(port, settings.keep_alive, now)),
            keep_alive: settings.keep_alive,
            signs: Signs::new(now),
            sessions: Sessions::of_worker(settings.worker, settings.workers),
            groups: Groups::default(),
            lan: settings.lan,
            fib,
            hops: Hops::new(settings.in_use),
            icmp_rate: RateLimit::new(ICMP_RATE.0, ICMP_RATE.1, now),
            rng: settings.rng,
            health: heartbeat::HEALTH_WELL,
            backend: settings.backend,
            outside_index: settings.outside_index,
            outside_frames: settings.outside_frames,
            refresh_at: now,
            published_fib: settings.fib,
            counters: [0; Counter::COUNT],
            outgoing: VecDeque::with_capacity(256),
            leases: Leases::new(settings.shared, settings.logbook, now),
            reports: settings.reports,
            unsent: VecDeque::with_capacity(256),
            now,
            view_wanted: true,
            shown: SessionViews::default(),
            heard: Vec::with_capacity(64),
            discovery: settings.discovery,
            paths: Vec::new(),
            paths_at: now,
        }
    }

    pub(super) fn count(&mut self, counter: Counter) {
        if let Some(count) = self.counters.get_mut(counter.index()) {
            *count += 1;
        }
    }

    /// Takes over what somebody else has counted.
    pub(super) fn set_count(&mut self, counter: Counter, packets: u64) {
        if let Some(count) = self.counters.get_mut(counter.index()) {
            *count = packets;
        }
    }

    pub(super) fn push(&mut self, frame: Frame, way: Way) {
        self.outgoing.push_back((frame, way));
    }

    /// The next frame that the core sends by itself.
    pub(super) fn next_outgoing(&mut self) -> Option<(Frame, Way)> {
        self.outgoing.pop_front()
    }

    /// Keeps a frame in a group's queue, or gives it back.
    pub(super) fn hold(&mut self, group: usize, frame: Frame) -> Result<(), Frame> {
        self.groups.hold(group, frame)
    }

    /// Carries out a command of the node's core.
    pub(super) fn carry_out(&mut self, command: Command, umem: &mut Umem, now: Instant) {
        self.now = now;
        self.view_wanted |= !matches!(command, Command::Lease(_));
        match command {
            Command::AddSession {
                spec,
                group,
                succeeds,
            } => {
                self.add_session(&spec, group, succeeds, now);
                if let Some(inbound) = &spec.inbound {
                    self.release(inbound.spi, umem, now);
                }
            }
            Command::Begin { id, activate } => {
                if let Some(index) = self.sessions.by_id(id) {
                    self.begin_session(index, activate, umem, now);
                }
            }
            Command::SendOn(id) => {
                if let Some(index) = self.sessions.by_id(id) {
                    self.send_on(index, umem, now);
                }
            }
            Command::Cease(id) => {
                if let Some(session) = self.sessions.by_id_mut(id) {
                    session.sending = Sending::Told;
                    let group = session.group();
                    self.settle_lane(group);
                }
            }
            Command::SkipAhead(id, by) => {
                if let Some(session) = self.sessions.by_id_mut(id) {
                    session.skip_ahead(by);
                }
            }
            Command::TooLong(sessions, said) => self.told_too_long(&sessions, &said, now),
            Command::RemoveSession(id) => {
                if let Some(mut session) = self.sessions.remove(id) {
                    self.end_lease(&mut session);
                    self.session_removed(&session, umem, now);
                }
            }
            Command::MoveSession(id, remote) => {
                if let Some(index) = self.sessions.by_id(id) {
                    self.move_session(index, remote);
                }
            }
            Command::Relocate(spec) => self.relocate_session(&spec),
            Command::Resume => self.resume(now),
            Command::SetGroup(spec) => {
                let index = self.groups.set(spec, now);
                self.tell_keyed(index, now);
            }
            Command::RemoveGroup(id) => self.groups.remove(id, umem),
            Command::Leave(gateway, to) => self.leave(gateway, to, umem, now),
            Command::Granted(group, gateway) => {
                if let Some(group) = self.groups.index(group) {
                    self.granted(group, gateway, umem, now);
                }
            }
            Command::Rejected(group, wait) => {
                if let Some(group) = self.groups.index(group) {
                    self.rejected(group, now + wait, umem, now);
                }
            }
            Command::Barrier(done) => {
                // Whoever waited may have given up.
                let _ = done.send(());
            }
            Command::Lease(lease) => self.carry_out_lease(lease, umem, now),
            // The worker's own.
            Command::Link { .. }
            | Command::Steer(_)
            | Command::Health(_)
            | Command::Rebind(..)
            | Command::Stop => {}
        }
    }

    /// Prepares the Ethernet header toward a session's peer.
    pub(super) fn resolve_outside(&self, session: &mut Session, now: Instant) {
        let (mtu, header) = self.way_to(session.peer_at().ip());
        session.follow_mtu(mtu, now);
        session.ethernet = header;
    }

    /// MTU of the way to a peer, and the Ethernet header if one is needed and its next hop is resolved.
    pub(super) fn way_to(&self, peer: IpAddr) -> (u32, Option<[u8; ETHERNET]>) {
        let hop = self.fib.lookup_on(self.outside_index, peer);
        let header = match (hop.resolution, hop.source_mac) {
            (Resolution::Resolved(mac), Some(source)) if self.outside_frames => {
                Some(ethernet(mac, source, peer.is_ipv6()))
            }
            _ => None,
        };
        (hop.mtu, header)
    }

    /// Takes up new routes and neighbours, if there are any.
    pub(super) fn follow_fib(&mut self) {
        let published = self.published_fib.load();
        if Arc::ptr_eq(&published, &self.fib) {
            return;
        }
        self.fib = Arc::clone(&published);
        drop(published);
        self.hops.forget();
        for index in self.sessions.indexes() {
            let Some(session) = self.sessions.get(index) else {
                continue;
            };
            let (mtu, header) = self.way_to(session.peer_at().ip());
            // Most news are about others; whatever is changed is shown anew.
            if session.goes(mtu, header) {
                continue;
            }
            if let Some(session) = self.sessions.get_mut(index) {
                session.follow_mtu(mtu, self.now);
                session.ethernet = header;
            }
        }
        self.paths_at = self.now;
    }

    /// Tells the kernel which outside next hops carry traffic: it does not see what AF_XDP sends.
    fn report_outside_hops(&mut self) {
        let mut reported: Vec<IpAddr> = Vec::new();
        for session in self.sessions.iter() {
            if session.sends_with().is_none() {
                continue;
            }
            let remote = session.peer_at().ip();
            let next = self.fib.lookup_on(self.outside_index, remote).next(remote);
            // Many peers, few routers.
            if reported.len() < 64 && !reported.contains(&next) {
                reported.push(next);
                self.hops.report(self.outside_index, next);
            }
        }
    }

    /// This thread was stopped for a while.
    pub(super) fn overslept(&mut self, now: Instant) {
        if let Some(lan) = &mut self.lan {
            lan.announcer.overslept(now);
        }
    }

    /// Whether readers should see a new view before its time.
    pub(super) fn view_wanted(&self) -> bool {
        self.view_wanted
    }

    /// A snapshot for readers.
    pub(super) fn view(&mut self, umem: &Umem, now: Instant) -> WorkerView {
        self.view_wanted = false;
        let (groups, worker, gateway) = (&self.groups, self.worker, self.lan.is_some());
        let show = |session: &Session| {
            let group = groups.get(session.group())?;
            Some(SessionView {
                id: session.spec.id,
                active: match gateway {
                    // On a gateway a client is active where it sends.
                    true => session.announced && !group.left,
                    false => group.active == Some(session.spec.id),
                },
                inbound: session.received,
                outbound: session.sent,
                path: session.path_size(),
                last_heard: session.last_heard,
            })
        };
        // What a client shows hangs on its groups too; it has few sessions.
        let pieces = self.sessions.take_changed(!gateway).map(|sessions| {
            let own = sessions?.filter(|session| usize::from(session.worker) == worker);
            Some(Arc::new(own.filter_map(show).collect()))
        });
        self.shown.renew(pieces);
        // Of the others nobody wants to know anything, and a gateway has one for each client.
        let watched = self.groups.watched().iter();
        let groups = watched.filter_map(|index| self.groups.get(*index));
        let groups = groups.map(|group| GroupView {
            id: group.id,
            active: group.rare().monitor.as_ref().and_then(|m| m.active()),
            gateways: group
                .rare()
                .monitor
                .iter()
                .flat_map(|monitor| monitor.snapshot())
                .collect(),
            rejected: group.rare().rejected_until.is_some_and(|until| until > now),
        });
        WorkerView {
            at: now,
            counters: self.counters,
            sessions: self.shown.clone(),
            groups: groups.collect(),
            frames_free: umem.free_chunks(),
            frames: umem.chunks(),
        }
    }

    /// After every batch: up to `drained` the receive rings of the outside were empty, so that deadlines
    /// may be judged.
    pub(super) fn after_batch(&mut self, umem: &mut Umem, now: Instant, drained: Option<Instant>) {
        self.now = now;
        self.send_reports();
        self.follow_fib();
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH;
            self.report_outside_hops();
            self.sessions.look();
            self.choose_paths(umem, now);
        }
        self.look_after_leases(now, drained.is_some());
        self.watch(umem, now, drained);
        self.announce(umem, now);
        self.follow_paths(umem, now);
        self.follow_own_port(umem, now);
    }

    /// When [`Self::after_batch`] must run next, and why.
    pub(super) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let watched = self
            .groups
            .watched()
            .iter()
            .filter_map(|index| self.groups.get(*index));
        let monitors = watched.filter_map(|group| group.rare().monitor.as_ref()?.next_deadline());
        let announcements = self.announce_deadline().map(|at| (at, "announcement"));
        let signs = self.signs.deadline().map(|at| (at, "signs of life"));
        let paths = (!self.paths.is_empty()).then_some((self.paths_at, "path MTU"));
        let own_port = self.own_port_deadline().map(|at| (at, "own port"));
        let leases = self.leases.deadline().map(|at| (at, "leases"));
        let others = [announcements, signs, paths, own_port, leases];
        let others = others.into_iter().flatten();
        monitors.chain(others).min_by_key(|(at, _)| *at)
    }
}

/// An Ethernet header for an IP packet.
pub(super) fn ethernet(destination: [u8; 6], source: [u8; 6], v6: bool) -> [u8; ETHERNET] {
    let mut header = [0; ETHERNET];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    header
}

/// The counter of a reason of the ESP room.
pub(super) fn counter(refused: Refused) -> Counter {
    match refused {
        Refused::TooShort => Counter::BadLength,
        Refused::TooBig => Counter::TooBig,
        Refused::WrongSpi => Counter::UnknownSpi,
        Refused::Replayed => Counter::Replayed,
        Refused::TooOld => Counter::TooOld,
        Refused::BadIcv => Counter::BadIcv,
        Refused::BadPadding => Counter::BadPadding,
        Refused::BadNextHeader => Counter::BadNextHeader,
        Refused::InnerMalformed => Counter::InnerMalformed,
        Refused::InnerSource => Counter::InnerSource,
        Refused::InnerDestination => Counter::InnerDestination,
        Refused::SequenceExhausted => Counter::SequenceExhausted,
        Refused::LeaseExhausted => Counter::LeaseExhausted,
        Refused::EcnIllegal => Counter::EcnIllegal,
        Refused::TtlExpired => Counter::TtlExpired,
        // The headroom of a frame and what the receiver asks for are ours alone.
        Refused::NoRoom => Counter::NoRoom,
    }
}
