//! An edge: the core of its numbers, the real worker, and between them what `control/src/node/edge.rs` does.
//! Core and worker are two threads there; what they say to each other takes a while here, too.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use evergate::cluster::wire::{Carrier, Down, Relayed, Succession, Up};
use evergate::cluster::{self, Act, Claim, FromEdge, Reached, Run, Terms};
use evergate::dataplane::logbook::{self, Entry, Logbook};
use evergate::dataplane::trial::edge::{EdgeWorker, Out};
use evergate::dataplane::xsk::Umem;
use evergate::dataplane::{Command, GroupId, GroupSpec, Lease, Sending, WorkerEvent, WorkerReport};
use evergate::ike::Transmit;
use evergate::sadb::{Change, Path, Producer, Sadb, SessionId, SessionSpec};
use ipnet::IpNet;
use rand::RngExt as _;

use super::Step;

/// What waits in the rings of one that does not run.
const RINGS: usize = 256;
/// From a thread to another one.
const HANDED: std::ops::RangeInclusive<u64> = 5..=200;
const TICK: Duration = Duration::from_millis(200);
/// What its end may take until workers have said where they stopped.
const PARTING: Duration = Duration::from_millis(300);
/// A worker that did not run for longer knows that.
const OVERSLEPT: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    Frozen(Instant),
    /// It was told to end, and does at this time at the latest.
    Parting(Instant),
    Dead,
}

/// What leaves an edge.
pub(super) enum Leaves {
    Up(Up),
    /// To a client.
    Ike(Transmit),
    Out(Out),
    /// The process has ended in good order: behind its last words.
    Over,
}

/// What comes to the worker.
pub(super) enum Frame {
    Outside(Vec<u8>),
    Lan(Vec<u8>),
    Kernel(Vec<u8>),
}

/// In the order in which the core says it.
enum Word {
    Command(Command),
    /// Once all before is carried out.
    Installed(u32),
    Ike(Transmit),
}

struct Known {
    session: SessionId,
    sequence: u64,
    expires: u64,
    stale: bool,
}

pub(super) struct Edge {
    pub(super) state: State,
    pub(super) run: u64,
    /// Its logbook, as its notary has it.
    left: Option<File>,
    terms: Terms,
    mac: [u8; 6],
    core: cluster::Edge,
    worker: Option<EdgeWorker>,
    /// Of a worker that is no more.
    spare: Option<Umem>,
    sadb: Sadb,
    specs: BTreeMap<SessionId, std::sync::Arc<SessionSpec>>,
    pairs: BTreeMap<u32, Known>,
    groups: BTreeMap<String, (GroupId, Vec<IpAddr>)>,
    outdoors: Vec<SessionId>,
    unconfirmed: Vec<u32>,
    words: VecDeque<(Duration, Word)>,
    reports: VecDeque<(Duration, WorkerReport)>,
    rings: VecDeque<Frame>,
    overslept: bool,
    /// It has a connection.
    pub(super) connected: bool,
    /// Until then what its clients send by it is kept; `None`: it does not drain.
    drain: Option<Instant>,
    tick: Instant,
    pub(super) out: Vec<Leaves>,
    pub(super) wake_at: Option<Duration>,
    pub(super) lost_frames: bool,
    seen: Vec<(&'static str, u64)>,
}

impl Edge {
    pub(super) fn new(
        index: usize,
        terms: Terms,
        umem: Umem,
        notary: bool,
        run: u64,
        now: Instant,
    ) -> Edge {
        let mac = [2, 0, 0, 0, 1, index as u8 + 1];
        let core = cluster::Edge::new(terms.clone(), Run(run));
        let logbook = notary.then(|| Logbook::create(run).expect("there is memory"));
        let (logbook, left) = logbook.unzip();
        Edge {
            state: State::Runs,
            run,
            core: match notary {
                true => core.with_notary(),
                false => core,
            },
            left,
            terms,
            mac,
            worker: Some(EdgeWorker::new(mac, umem, logbook, run, now)),
            spare: None,
            sadb: Sadb::new(),
            specs: BTreeMap::new(),
            pairs: BTreeMap::new(),
            groups: BTreeMap::new(),
            outdoors: Vec::new(),
            unconfirmed: Vec::new(),
            words: VecDeque::new(),
            reports: VecDeque::new(),
            rings: VecDeque::new(),
            overslept: false,
            connected: false,
            drain: None,
            tick: now,
            out: Vec::new(),
            wake_at: None,
            lost_frames: false,
            seen: Vec::new(),
        }
    }

    pub(super) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Its process does something.
    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Runs | State::Parting(_))
    }

    /// It takes clients.
    pub(super) fn serves(&self) -> bool {
        self.state == State::Runs && self.drain.is_none()
    }

    /// What its notary will have to say if it is killed now.
    pub(super) fn logbook(&self) -> Option<(Run, Vec<Reached>)> {
        let left = self.left.as_ref()?;
        let (run, entries) = logbook::read(left).expect("its logbook is in order");
        let reached = |Entry { spi, term, top }| Reached { spi, term, top };
        Some((Run(run), entries.into_iter().map(reached).collect()))
    }

    /// The process is gone.
    pub(super) fn die(&mut self) {
        self.state = State::Dead;
        self.connected = false;
        self.rings.clear();
        self.out.clear();
        self.words.clear();
        self.reports.clear();
        if let Some(worker) = self.worker.take() {
            let (umem, whole) = worker.end();
            self.spare = Some(umem);
            self.lost_frames |= !whole;
        }
    }

    /// What it had of memory.
    pub(super) fn end(mut self) -> Option<Umem> {
        self.die();
        self.spare
    }

    /// Nothing is known any more.
    pub(super) fn start(&mut self, run: u64, now: Instant) {
        let Some(umem) = self.spare.take() else {
            return;
        };
        let index = usize::from(self.mac[5]) - 1;
        let lost_frames = self.lost_frames;
        let notary = self.left.is_some();
        *self = Edge::new(index, self.terms.clone(), umem, notary, run, now);
        self.lost_frames = lost_frames;
    }

    pub(super) fn freeze(&mut self, now: Instant) {
        if self.state == State::Runs {
            self.state = State::Frozen(now);
        }
    }

    pub(super) fn thaw(&mut self, now: Instant) -> bool {
        let State::Frozen(since) = self.state else {
            return false;
        };
        self.state = State::Runs;
        self.overslept = now > since + OVERSLEPT;
        true
    }

    pub(super) fn stop(&mut self, step: &mut Step<'_>) {
        if self.state == State::Runs {
            self.state = State::Parting(step.now + PARTING);
            self.core.give_back();
            self.pump(step);
        }
    }

    pub(super) fn drain(&mut self, until: Instant) {
        if self.state == State::Runs {
            self.drain.get_or_insert(until);
        }
    }

    pub(super) fn undrain(&mut self, step: &mut Step<'_>) {
        if self.drain.take().is_some() {
            self.core.take_again();
            self.pump(step);
        }
    }

    /// A link has gone down or come up.
    pub(super) fn link(&mut self, up: bool, step: &mut Step<'_>) {
        if self.runs() {
            self.say(Word::Command(Command::Link { up }), step);
        }
    }

    pub(super) fn owns(&self, spi: u32) -> bool {
        self.core.owns(spi)
    }

    /// Pairs that it has, and sessions of its worker.
    pub(super) fn sizes(&self) -> [usize; 2] {
        let worker = self.worker.as_ref();
        [self.pairs.len(), worker.map_or(0, EdgeWorker::sessions)]
    }

    /// The time of its own clock, and of the world, at which it has something to do.
    pub(super) fn next(&self) -> (Option<Instant>, Option<Duration>) {
        if !self.runs() {
            return (None, None);
        }
        let worker = self.worker.as_ref().and_then(EdgeWorker::deadline);
        let over = match self.state {
            State::Parting(until) => Some(until),
            _ => None,
        };
        let timers = [
            self.core.deadline(),
            worker,
            over,
            self.drain,
            Some(self.tick),
        ];
        let words = self.words.front().map(|(due, _)| *due);
        let reports = self.reports.front().map(|(due, _)| *due);
        let handed = [words, reports].into_iter().flatten().min();
        (timers.into_iter().flatten().min(), handed)
    }

    pub(super) fn wake(&mut self, step: &mut Step<'_>) {
        if !self.runs() {
            return;
        }
        while let Some((due, _)) = self.reports.front()
            && *due <= step.world
        {
            if let Some((_, report)) = self.reports.pop_front() {
                self.on_report(&report, step);
            }
        }
        self.listen(step);
        let now = step.now;
        self.turn(now, step);
        self.core.poll(now);
        if now >= self.tick {
            self.tick = now + TICK;
            let unix = step.unix;
            let over = |known: &Known| known.expires <= unix;
            self.drop_pairs(over, step);
        }
        if self.drain.is_some_and(|until| until <= now) {
            // Each goes when another edge hears it; what is left has nobody who sends.
            self.drain = Some(now + TICK);
            self.core.give_back();
        }
        self.pump(step);
        if let State::Parting(until) = self.state
            && (self.core.holds() == 0 || until <= now)
        {
            self.core.leave();
            self.pump(step);
            let out = std::mem::take(&mut self.out);
            self.die();
            self.out = out;
            self.out.push(Leaves::Over);
        }
    }

    /// What has waited in the rings of one that was frozen.
    pub(super) fn empty_rings(&mut self, step: &mut Step<'_>) {
        while let Some(frame) = self.rings.pop_front() {
            self.take(frame, step);
        }
        self.turn(step.now, step);
        self.pump(step);
    }

    pub(super) fn arrive(&mut self, frame: Frame, step: &mut Step<'_>) {
        match self.state {
            State::Dead => {}
            State::Frozen(_) => {
                if self.rings.len() < RINGS {
                    self.rings.push_back(frame);
                }
            }
            State::Runs | State::Parting(_) => {
                if !self.rings.is_empty() {
                    // In the order in which they came.
                    self.rings.push_back(frame);
                    return self.empty_rings(step);
                }
                self.listen(step);
                self.take(frame, step);
                self.turn(step.now, step);
                self.pump(step);
            }
        }
    }

    fn take(&mut self, frame: Frame, step: &mut Step<'_>) {
        self.wake_up(step.now);
        let Some(worker) = &mut self.worker else {
            return;
        };
        match frame {
            Frame::Outside(bytes) => worker.from_outside(&bytes, step.now),
            Frame::Lan(bytes) => worker.from_lan(&bytes, step.now),
            Frame::Kernel(packet) => worker.from_kernel(&packet, step.now),
        }
    }

    fn wake_up(&mut self, now: Instant) {
        if std::mem::take(&mut self.overslept)
            && let Some(worker) = &mut self.worker
        {
            worker.overslept(now);
        }
    }

    /// The worker carries out what it was told.
    fn listen(&mut self, step: &mut Step<'_>) {
        while let Some((due, _)) = self.words.front()
            && *due <= step.world
        {
            let Some((_, word)) = self.words.pop_front() else {
                return;
            };
            match word {
                Word::Command(command) => {
                    self.wake_up(step.now);
                    if let Some(worker) = &mut self.worker {
                        worker.command(command, step.now);
                    }
                }
                Word::Installed(spi) => self.send(Up::Installed { spi }),
                Word::Ike(transmit) => self.out.push(Leaves::Ike(transmit)),
            }
        }
    }

    /// The end of a worker's turn.
    fn turn(&mut self, now: Instant, step: &mut Step<'_>) {
        self.wake_up(now);
        let drained = self.rings.is_empty();
        let Some(worker) = &mut self.worker else {
            return;
        };
        worker.after_batch(now, drained);
        if super::tracing() {
            let dropped: Vec<_> = worker.dropped().collect();
            if dropped != self.seen {
                trace!(
                    "{:?} edge {}: dropped {dropped:?}",
                    step.world,
                    self.mac[5] - 1
                );
                self.seen = dropped;
            }
        }
        self.out.extend(worker.out().into_iter().map(Leaves::Out));
        while let Some(report) = worker.told() {
            let handed = Duration::from_micros(step.rng.random_range(HANDED));
            let last = self.reports.back().map_or(step.world, |(due, _)| *due);
            self.reports
                .push_back((last.max(step.world + handed), report));
        }
    }

    fn say(&mut self, word: Word, step: &mut Step<'_>) {
        let handed = Duration::from_micros(step.rng.random_range(HANDED));
        let last = self.words.back().map_or(step.world, |(due, _)| *due);
        self.words.push_back((last.max(step.world + handed), word));
    }

    fn command(&mut self, command: Command, step: &mut Step<'_>) {
        self.say(Word::Command(command), step);
    }

    fn send(&mut self, up: Up) {
        if self.connected {
            self.out.push(Leaves::Up(up));
        }
    }

    /// An IKE message of a client.
    pub(super) fn relay(&mut self, transmit: Transmit) {
        if self.state != State::Runs {
            return;
        }
        self.send(Up::Ike(Relayed {
            // The client's view of the two.
            local: transmit.remote,
            remote: transmit.local,
            data: transmit.data,
        }));
    }

    pub(super) fn connected(&mut self, step: &mut Step<'_>) {
        self.connected = true;
        self.core.connected(step.now);
        for known in self.pairs.values_mut() {
            known.stale = true;
        }
        self.pump(step);
    }

    pub(super) fn disconnected(&mut self, step: &mut Step<'_>) {
        self.connected = false;
        self.core.disconnected();
        self.pump(step);
    }

    /// What the channel has brought, all at once.
    pub(super) fn news(&mut self, news: Vec<Down>, step: &mut Step<'_>) {
        for message in news {
            self.on_down(message, step);
        }
        self.let_all_in(step);
        self.pump(step);
    }

    fn let_all_in(&mut self, step: &mut Step<'_>) {
        for id in std::mem::take(&mut self.outdoors) {
            if self.specs.contains_key(&id) {
                let activate = false;
                self.command(Command::Begin { id, activate }, step);
            }
        }
    }

    fn on_down(&mut self, message: Down, step: &mut Step<'_>) {
        if let Down::SendOn { .. } | Down::Forget { .. } | Down::Complete | Down::Moved { .. } =
            message
        {
            trace!("{:?} edge {}: {message:?}", step.world, self.mac[5] - 1);
        }
        if self.state != State::Runs {
            return;
        }
        match message {
            Down::Leaving => self.core.abandoned(),
            Down::Numbers(numbers) => self.core.hear(numbers, step.now),
            Down::Ike(Relayed {
                local,
                remote,
                data,
            }) => {
                self.let_all_in(step);
                let transmit = Transmit {
                    local,
                    remote,
                    data,
                };
                self.say(Word::Ike(transmit), step);
            }
            Down::Install(carrier) => self.take_pair(&carrier, step),
            Down::Forget { spi } => self.drop_pair(spi, step),
            Down::Complete => self.drop_pairs(|known| known.stale, step),
            Down::Moved { spi, remote } => {
                if let Some(id) = self.pairs.get(&spi).map(|known| known.session) {
                    self.peer_moved(id, remote, true, step);
                }
            }
            Down::SendOn { spi } => {
                if let Some(id) = self.pairs.get(&spi).map(|known| known.session) {
                    self.command(Command::SendOn(id), step);
                }
            }
            _ => {}
        }
    }

    fn drop_pair(&mut self, spi: u32, step: &mut Step<'_>) {
        self.core.forgotten(spi);
        let Some(known) = self.pairs.remove(&spi) else {
            return;
        };
        let id = known.session;
        self.specs.remove(&id);
        let removed = self.sadb.remove(Producer::Ike, id);
        for change in removed.unwrap_or_default() {
            if let Change::Remove(id) = change {
                self.command(Command::RemoveSession(id), step);
                self.outdoors.retain(|new| *new != id);
            }
        }
    }

    fn drop_pairs(&mut self, which: impl Fn(&Known) -> bool, step: &mut Step<'_>) {
        let over = self.pairs.iter().filter(|(_, known)| which(known));
        let over: Vec<u32> = over.map(|(spi, _)| *spi).collect();
        over.into_iter().for_each(|spi| self.drop_pair(spi, step));
    }

    fn take_pair(&mut self, carrier: &Carrier, step: &mut Step<'_>) {
        let pair = &carrier.pair;
        let spi = pair.spi();
        trace!(
            "{:?} edge {}: install {spi:#x} {:?}",
            step.world,
            self.mac[5] - 1,
            carrier.succession
        );
        let Some(known) = self.pairs.get_mut(&spi) else {
            return self.install(carrier, step);
        };
        let news = carrier.sequence > known.sequence;
        known.sequence = known.sequence.max(carrier.sequence);
        known.stale = false;
        let id = known.session;
        self.unconfirmed.push(spi);
        if news {
            if carrier.succession == Succession::AtOnce {
                self.command(Command::SendOn(id), step);
            }
            let path = Path {
                local: pair.local,
                remote: pair.remote,
                encap: pair.encap,
                roams: pair.roams,
            };
            let changes = self.sadb.relocate(Producer::Ike, id, &path);
            for change in changes.unwrap_or_default() {
                let Change::Move(spec) = change else { continue };
                self.specs.insert(id, spec.clone());
                self.command(Command::Relocate(spec), step);
            }
        }
    }

    fn install(&mut self, carrier: &Carrier, step: &mut Step<'_>) {
        let pair = &carrier.pair;
        let spi = pair.spi();
        let group = self.group_of(&pair.client, &pair.inner, step);
        let inserted = pair
            .session()
            .map_err(|error| error.to_string())
            .and_then(|spec| self.sadb.insert(spec).map_err(|error| error.to_string()));
        let changes = match inserted {
            Ok(changes) => changes,
            Err(why) => return self.send(Up::NotInstalled { spi, why }),
        };
        // Of this client, already.
        let mut specs = self.specs.values();
        let beside = specs.any(|other| *other.peer == *pair.client);
        for change in changes {
            let Change::Add(spec) = change else { continue };
            let id = spec.id;
            self.specs.insert(id, spec.clone());
            let sending = match carrier.succession {
                Succession::First => None,
                Succession::AtOnce => Some(Sending::AtOnce),
                Succession::WhenHeard => Some(Sending::WhenHeard),
                Succession::Never => Some(Sending::Told),
            };
            let sending = sending.filter(|_| beside);
            let succeeds = sending.map(|sending| sending.min(Sending::WhenHeard));
            let add = Command::AddSession {
                spec,
                group,
                succeeds,
            };
            self.command(add, step);
            match sending {
                None => self.outdoors.push(id),
                Some(Sending::AtOnce) => self.command(Command::SendOn(id), step),
                Some(_) => {}
            }
            let known = Known {
                session: id,
                sequence: carrier.sequence,
                expires: pair.expires,
                stale: false,
            };
            self.pairs.insert(spi, known);
            self.unconfirmed.push(spi);
        }
    }

    fn group_of(&mut self, client: &str, inner: &[IpAddr], step: &mut Step<'_>) -> GroupId {
        let next = GroupId::Peer(self.groups.len() as u32 + 1);
        let known = self.groups.entry(client.to_owned());
        let known = known.or_insert((next, Vec::new()));
        let group = known.0;
        if known.1 != inner {
            known.1 = inner.to_vec();
            let spec = GroupSpec {
                id: group,
                prefixes: inner.iter().copied().map(IpNet::from).collect(),
                watch: None,
                on_demand: false,
            };
            self.command(Command::SetGroup(spec), step);
        }
        group
    }

    /// An authentic packet of a client came from there. `told`: the authority says so.
    fn peer_moved(&mut self, id: SessionId, remote: SocketAddr, told: bool, step: &mut Step<'_>) {
        let Some(spec) = self.specs.get(&id).cloned() else {
            return;
        };
        let moved = self.sadb.move_peer(Producer::Ike, id, remote);
        let changes = moved.unwrap_or_default();
        if !told && !changes.is_empty() {
            // What goes by the session's other pairs has the same NAT to pass.
            let others = self.specs.values();
            let others = others.filter(|other| other.peer == spec.peer && other.id != id);
            for other in others.map(|other| other.id).collect::<Vec<_>>() {
                self.peer_moved(other, remote, true, step);
            }
        }
        for change in changes {
            let Change::Move(spec) = change else { continue };
            self.specs.insert(id, spec.clone());
            match (told, &spec.inbound) {
                (true, _) => self.command(Command::MoveSession(id, remote), step),
                (false, Some(inbound)) => {
                    let spi = inbound.spi;
                    self.send(Up::Moved { spi, remote });
                }
                (false, None) => {}
            }
        }
    }

    fn on_report(&mut self, report: &WorkerReport, step: &mut Step<'_>) {
        match &report.event {
            WorkerEvent::Progress(all) => {
                for progress in all {
                    let (top, sent) = (progress.top, progress.sent);
                    self.core.progress(progress.spi, top, sent, report.at);
                }
            }
            WorkerEvent::Claimed { spi, seen } => {
                let (spi, seen) = (*spi, *seen);
                self.core.claim(Claim { spi, seen }, report.at);
            }
            WorkerEvent::UnknownSpi(spi) => self.send(Up::Query { spi: *spi }),
            WorkerEvent::Stopped {
                progress,
                term,
                missing,
            } => {
                let (top, sent) = (progress.top, progress.sent);
                self.core.stopped(progress.spi, *term, top, *missing, sent);
            }
            WorkerEvent::PeerMoved { session, remote } => {
                self.peer_moved(*session, *remote, false, step);
            }
            _ => {}
        }
    }

    /// What the core of the numbers wants to be done.
    fn pump(&mut self, step: &mut Step<'_>) {
        for spi in std::mem::take(&mut self.unconfirmed) {
            self.say(Word::Installed(spi), step);
        }
        while let Some(act) = self.core.act() {
            if !matches!(act, Act::Send(FromEdge::Report(_)) | Act::Bound { .. }) {
                trace!("{:?} edge {}: {act:?}", step.world, self.mac[5] - 1);
            }
            let lease = match act {
                Act::Send(message) => {
                    self.send(Up::Numbers(message));
                    continue;
                }
                Act::Take { spi, grant, .. } if !self.pairs.contains_key(&spi) => {
                    let (term, sent) = (grant.limits.term, grant.first.saturating_sub(1));
                    let (floor, missing) = (grant.floor, grant.missing);
                    self.core.stopped(spi, term, floor, missing, sent);
                    continue;
                }
                Act::Take {
                    spi,
                    grant,
                    inbound,
                } => Lease::Take {
                    spi,
                    term: grant.limits.term,
                    floor: grant.floor,
                    missing: grant.missing,
                    inbound,
                    first: grant.first,
                    outbound: grant.limits.last,
                },
                Act::Bound {
                    spi,
                    inbound,
                    outbound,
                } => Lease::Bound {
                    spi,
                    inbound,
                    outbound,
                },
                Act::Stop { spi, term, tell } => Lease::Stop { spi, term, tell },
                Act::Forget { spi } => {
                    self.drop_pair(spi, step);
                    continue;
                }
            };
            self.command(Command::Lease(lease), step);
        }
    }
}
