//! An authority: it negotiates for edges that share an outside address, keeps the SAs, and says which
//! edge may use which numbers (source C). Edges carry IKE messages to it and back, and carry the traffic.

mod children;
mod connectivity;
mod distribution;
mod edges;
mod held;
mod memory;
mod negotiation;
mod stand_ins;
mod start;
mod status;
mod writes;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::FutureExt as _;
use tokio::net::UdpSocket;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::config::{Config, Distribution};
use super::connectivity::{Connectivity, readable};
use super::departures::Departures;
use super::events::{EventKind, EventLog, NewEvent};
use super::gateway::Clients;
use super::hooks::Answers;
use super::keylog::KeyLog;
use super::sessions::Table;
use super::sockets::Datagram;
use super::threads::Threads;
use crate::api::server::{ApiServer, Command};
use crate::cluster::channel::{Heard, Listener};
use crate::cluster::repository::{Outcome, Repository, Write};
use crate::cluster::wire::Down;
use crate::cluster::{EdgeId, Ledger};
use crate::ike::{CookieKeys, Engine, SaId};

use distribution::Shared;
use edges::Edge;
pub use held::Held;
use stand_ins::StandIns;
pub(super) use status::{Board, blank};

pub(super) use start::start;

/// The pace of housekeeping.
const TICK: Duration = Duration::from_millis(200);

/// A post of the status costs so little of the time.
const POST: Duration = Duration::from_millis(10);
const POST_SHARE: u32 = 50;

/// What is still to be said to edges and kept when the node stops gets so long.
const FAREWELL: Duration = Duration::from_millis(800);

/// Edges get so long to read the last word.
const PARTING: Duration = Duration::from_millis(20);

/// Where an authority's news come from, beside its edges and its repository.
pub(super) struct Inputs {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    commands: mpsc::Receiver<Command>,
    /// Of the connectivity protocol.
    connectivity: Option<Arc<UdpSocket>>,
}

/// The core of a running authority.
pub(super) struct Authority {
    config: Config,
    /// The outside address that the edges share.
    address: IpAddr,
    distribution: Distribution,
    events: EventLog,
    engine: Engine,
    threads: Threads,
    keylog: KeyLog,
    answers: Answers,
    clients: Clients,
    table: Table,
    /// By inbound SPI, those of earlier runs too.
    shared: BTreeMap<u32, Shared>,
    ledger: Ledger,
    listener: Listener,
    connectivity: Option<Box<Connectivity>>,
    edges: BTreeMap<EdgeId, Edge>,
    /// Its own addresses that stand for edges.
    stand_ins: StandIns,
    repository: Repository,
    /// The repository can not be written to for now.
    is_away: bool,
    /// What the repository was asked to keep of the ledger's numbers, by the number of the request.
    storing: HashMap<u64, (u32, crate::cluster::Kept)>,
    writes: u64,
    /// Writes that are not urgent, and when they have to be given to the repository at the latest.
    unwritten: Vec<(u64, Write)>,
    write_by: Option<Instant>,
    /// The edge that each peer of the datagrams in hand was heard by.
    batch: HashMap<SocketAddr, EdgeId>,
    /// The edge that each session's peer was heard by last.
    heard_by: HashMap<SaId, EdgeId>,
    /// Sessions by where their peer is.
    at: HashMap<SocketAddr, SaId>,
    places: HashMap<SaId, SocketAddr>,
    held: Held,
    /// What edges were told that cookies are made with.
    cookies: Option<CookieKeys>,
    dying: Departures,
    retired: Departures,
    inputs: Inputs,
    api: ApiServer,
    board: Arc<Board>,
    started: Instant,
    tick: Instant,
    /// When edges are told more of what they are to have.
    tell_at: Option<Instant>,
    post_at: Option<Instant>,
    post_earliest: Instant,
}

/// Something to act on.
enum Input {
    Stop,
    Reload,
    Command(Option<Command>),
    Kept(Outcome),
    Heard(Heard),
    Connectivity,
    /// A client's message, that an edge has given another address.
    Translated(EdgeId, Datagram),
    Time,
    /// Nothing, and what is sent to edges has left: time for what is not urgent.
    Idle,
}

impl Authority {
    /// Runs until a signal says stop, or it must not go on.
    pub(super) async fn run(mut self) -> Result<()> {
        let outcome = self.serve().await;
        self.farewell().await;
        outcome
    }

    async fn serve(&mut self) -> Result<()> {
        loop {
            self.pump();
            let deadline = self.next_deadline();
            match self.next(deadline).await {
                Input::Stop => return Ok(()),
                Input::Reload => self.reload(),
                Input::Command(Some(command)) => self.on_command(command),
                Input::Command(None) => {
                    bail!("the API has ended; nobody could see or stop this node")
                }
                Input::Kept(first) => self.on_outcomes(first)?,
                Input::Heard(first) => self.on_heard(first),
                // What the socket has is taken before deadlines are judged.
                Input::Connectivity | Input::Time => {}
                Input::Translated(edge, first) => self.on_translated(edge, first),
                Input::Idle => self.write_waiting(),
            }
            self.on_time();
        }
    }

    async fn next(&mut self, deadline: Instant) -> Input {
        let inputs = &mut self.inputs;
        tokio::select! {
            biased;
            _ = inputs.terminate.recv() => Input::Stop,
            _ = inputs.interrupt.recv() => Input::Stop,
            _ = inputs.hangup.recv() => Input::Reload,
            command = inputs.commands.recv() => Input::Command(command),
            outcome = self.repository.next() => Input::Kept(outcome),
            heard = self.listener.next() => Input::Heard(heard),
            () = readable(inputs.connectivity.as_deref()) => Input::Connectivity,
            (edge, datagram) = self.stand_ins.next() => Input::Translated(edge, datagram),
            () = tokio::time::sleep_until(deadline.into()) => Input::Time,
            () = tokio::task::yield_now(), if !self.unwritten.is_empty() => Input::Idle,
        }
    }

    fn next_deadline(&self) -> Instant {
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        let others = [
            self.ledger.deadline(),
            self.held.deadline(),
            self.dying.next(),
            self.retired.next(),
            self.post_at,
            self.tell_at,
            self.connectivity.as_ref().and_then(|c| c.core.deadline()),
        ];
        others
            .into_iter()
            .chain([ike])
            .flatten()
            .fold(self.tick, Instant::min)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.engine.handle_timeout(now, &mut self.answers);
        self.ledger.poll(now);
        self.go_on_telling(now);
        let ticked = now >= self.tick;
        self.poll_connectivity(now, ticked);
        if ticked {
            self.tick = now + TICK;
            self.ask_the_silent(now);
            self.tell_floods();
            self.let_expired_go();
            self.tell_cookies(now);
            self.post_at.get_or_insert(now.max(self.post_earliest));
        }
        if self.post_at.is_some_and(|at| now >= at) {
            self.post();
        }
        if self.write_by.is_some_and(|at| now >= at) {
            self.write_waiting();
        }
    }

    /// What edges have said, as much as there is.
    fn on_heard(&mut self, first: Heard) {
        let most = self.threads.batch();
        let mut datagrams = Vec::new();
        let mut next = Some(first);
        while let Some(heard) = next.take() {
            datagrams.extend(self.on_message(heard));
            if datagrams.len() < most {
                next = self.listener.next().now_or_never();
            }
        }
        if !datagrams.is_empty() {
            self.negotiate(&datagrams);
        }
    }

    /// Messages that edges have translated, as much as there is.
    fn on_translated(&mut self, edge: EdgeId, first: Datagram) {
        let most = self.threads.batch();
        let mut datagrams = Vec::new();
        let mut next = Some((edge, first));
        while let Some((edge, datagram)) = next.take() {
            self.heard_translated(edge, datagram.remote);
            datagrams.push(datagram);
            if datagrams.len() < most {
                next = self.stand_ins.next_now();
            }
        }
        self.negotiate(&datagrams);
    }

    /// Lets the state machines run until nothing is left to do. Events come before what is sent, so that an
    /// SA is on its way to edges before its SPI is told.
    fn pump(&mut self) {
        loop {
            let mut worked = false;
            while let Some(event) = self.engine.poll_event() {
                worked = true;
                self.on_ike(event);
            }
            while let Some(order) = self.ledger.order() {
                worked = true;
                self.carry_out(order);
            }
            worked |= self.keep_ike(Instant::now());
            while let Some(transmit) = self.engine.poll_transmit() {
                worked = true;
                self.transmit(transmit);
            }
            let now = Instant::now();
            self.release(now);
            worked |= self.converse();
            while let Some(id) = self.dying.pop(now) {
                worked = true;
                self.end_session(id, "replaced", true);
            }
            while let Some(id) = self.retired.pop(now) {
                worked = true;
                self.remove_pair(id);
            }
            if !worked {
                break;
            }
            self.post_at
                .get_or_insert(self.post_earliest.max(now + POST));
        }
        self.batch.clear();
    }

    fn post(&mut self) {
        let start = Instant::now();
        self.post_at = None;
        let status = self.status(start);
        self.board.post(status, start);
        self.post_earliest = start + POST.max(start.elapsed() * POST_SHARE);
    }

    /// A session's peer is there now.
    fn now_at(&mut self, remote: SocketAddr, sa: SaId) {
        if let Some(before) = self.places.insert(sa, remote)
            && before != remote
            && self.at.get(&before) == Some(&sa)
        {
            self.at.remove(&before);
        }
        self.at.insert(remote, sa);
    }

    /// A session's peer is nowhere any more.
    fn forget_place(&mut self, sa: SaId) {
        self.heard_by.remove(&sa);
        if let Some(remote) = self.places.remove(&sa)
            && self.at.get(&remote) == Some(&sa)
        {
            self.at.remove(&remote);
        }
    }

    fn note(&self, event: NewEvent) {
        self.events.push(event);
    }

    /// Sessions stay: their edges go on with them, and the repository has them for the next authority.
    async fn farewell(mut self) {
        self.note(NewEvent::new(
            EventKind::NodeStopping,
            "the node is stopping; its edges go on with what they have",
        ));
        // Nothing is granted any more: edges may use at once what they could without an authority.
        for (edge, known) in &self.edges {
            if known.from.is_some() {
                self.listener.send(*edge, Down::Leaving);
            }
        }
        self.keep_all_ike();
        self.write_waiting();
        let deadline = Instant::now() + FAREWELL;
        while self.repository.waiting() > 0 && Instant::now() < deadline {
            let outcome = tokio::time::timeout_at(deadline.into(), self.repository.next()).await;
            if !matches!(outcome, Ok(Outcome::Done { .. })) {
                break;
            }
        }
        // What was sent is on its way.
        tokio::time::sleep(PARTING).await;
        self.api.stop();
    }
}
