//! The node's core: one task that owns all that decides, fed by sockets, workers, timers, the API
//! and signals. After each input it lets the state machines run until nothing is left to do.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::client::Client;
use super::config::Config;
use super::connectivity::Connectivity;
use super::departures::Departures;
use super::edge::Edge;
use super::establish::refused;
use super::events::{EventKind, EventLog, NewEvent};
use super::front::Watch;
use super::gateway::Gateway;
use super::guard::Flood;
use super::hooks::Answers;
use super::inputs::{Input, Inputs};
use super::interfaces::Interfaces;
use super::keylog::KeyLog;
use super::life::Tried;
use super::roaming::Witness;
use super::sessions::Table;
use super::sockets::{Datagram, Sockets};
use super::status::Board;
use super::steering::Group;
use super::threads::Threads;
use crate::api::server::ApiServer;
use crate::dataplane::net::fib::Fib;
use crate::dataplane::net::fib_watch::LinkChange;
use crate::dataplane::{Command, Dataplane, GroupId, WorkerEvent, WorkerReport};
use crate::ike::{CloseReason, Engine, Event, SaId};

/// How long sessions may take to be deleted when the node stops.
const FAREWELL: Duration = Duration::from_millis(800);

/// The pace of housekeeping: liveness, status, the core's own sign of life.
const TICK: Duration = Duration::from_millis(200);

/// After a change, readers of the status see it within this time; many changes cost one post.
const POST: Duration = Duration::from_millis(10);

/// Reports of workers that are taken at once.
const REPORTS: usize = 256;

/// With very many sessions a post takes its time: the next one waits so many times as long.
const POST_SHARE: u32 = 50;

/// What depends on the role.
pub(super) enum Role {
    Client(Box<Client>),
    Gateway(Box<Gateway>),
}

/// What an exchange that this node began is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A key with this gateway, for the key management service.
    Gateway {
        gateway: IpAddr,
        /// The tunnel ranges that were asked for.
        ranges: Vec<IpNet>,
        /// The ticket that was tried.
        ticket: Option<Tried>,
    },
    /// A session toward this client, because traffic for it came from the LAN.
    Client(GroupId),
}

/// The core of a running node.
pub(super) struct Node {
    pub(super) config: Config,
    pub(super) events: EventLog,
    pub(super) engine: Engine,
    pub(super) threads: Threads,
    pub(super) keylog: KeyLog,
    pub(super) answers: Answers,
    pub(super) sockets: Sockets,
    pub(super) dataplane: Dataplane,
    pub(super) inputs: Inputs,
    pub(super) api: ApiServer,
    pub(super) board: Arc<Board>,
    pub(super) fib: Arc<ArcSwap<Fib>>,
    pub(super) inside_name: String,
    pub(super) address: IpAddr,
    pub(super) role: Role,
    pub(super) table: Table,
    pub(super) pending: HashMap<SaId, Purpose>,
    /// Sessions that only receive any more, and when they go.
    pub(super) dying: Departures,
    /// Pairs of SAs that are closed, and when they stop receiving what was in flight.
    pub(super) retired: Departures,
    pub(super) interfaces: Interfaces,
    pub(super) flood: Flood,
    /// It shares its address and the SAs of its clients with others, and an authority negotiates.
    pub(super) edge: Option<Box<Edge>>,
    pub(super) connectivity: Option<Box<Connectivity>>,
    /// Other gateways that have this one's address.
    pub(super) group: Option<Group>,
    /// It is a front too: who watches the other nodes.
    pub(super) front: Option<Watch>,
    /// IKE SAs through a NAT before us, and how much ESP each had sent when last looked at.
    pub(super) mappings: HashMap<SaId, u64>,
    pub(super) tick: Instant,
    /// When a change is to be posted.
    pub(super) post_at: Option<Instant>,
    /// The next post comes no sooner.
    pub(super) post_earliest: Instant,
}

impl Node {
    /// Runs until a signal says stop or the data plane fails.
    pub(super) async fn run(mut self) -> Result<()> {
        let outcome = self.serve().await;
        self.farewell().await;
        outcome
    }

    async fn serve(&mut self) -> Result<()> {
        loop {
            self.pump().await?;
            let deadline = self.next_deadline();
            let input = self.inputs.next(self.sockets.receive(), deadline).await?;
            match input {
                Input::Stop => return Ok(()),
                Input::Report(report) => self.on_reports(report)?,
                Input::Link(change) => {
                    self.on_link(&change)?;
                    self.follow_own_address(&change).await?;
                }
                Input::Arrival(interface, address) => self.on_arrival(interface, address),
                Input::Datagram(datagram) => self.on_datagrams(datagram),
                Input::Command(command) => self.on_command(command).await,
                Input::News(link, news) => self.on_all_news(link, news).await?,
                Input::Reload => self.reload_by_signal().await,
                // What the socket has is taken before deadlines are judged.
                Input::Connectivity | Input::Time => {}
            }
            if self.on_time()? {
                self.go_to_next_address().await?;
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let kms = match &self.role {
            Role::Client(client) => client.kms.next_deadline().map(|(at, _)| at),
            Role::Gateway(_) => None,
        };
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        let edge = self.edge.as_ref().and_then(|edge| edge.deadline());
        let connectivity = self.connectivity.as_ref();
        let connectivity = connectivity.and_then(|c| c.core.deadline());
        let leaving = [self.dying.next(), self.retired.next(), edge, connectivity];
        [kms, ike, self.post_at]
            .into_iter()
            .chain(leaving)
            .flatten()
            .fold(self.tick, Instant::min)
    }

    /// Says whether it was time for what is done now and then.
    fn on_time(&mut self) -> Result<bool> {
        let now = Instant::now();
        let ticked = now >= self.tick;
        self.dataplane.pulse().beat(now);
        self.engine.handle_timeout(now, &mut self.answers);
        if let Role::Client(client) = &mut self.role {
            client.kms.poll(now);
        }
        self.poll_edge(now, ticked)?;
        self.poll_connectivity(now, ticked);
        if ticked {
            self.tick = now + TICK;
            if self.dataplane.has_lost_a_worker() {
                bail!("a worker has ended: what comes by its queues would be lost");
            }
            if self.edge.is_none() {
                self.ask_the_silent(now);
                self.judge_traffic(now);
            }
            self.worry(now);
            self.reauthenticate(now);
            self.guard(now)?;
            self.steer(now)?;
            self.keep_mappings(now);
            self.complete_lanes(now);
            self.go_on_draining(now)?;
            self.tell_of_crowd();
            if now >= self.post_earliest {
                self.post();
            }
        }
        if self.post_at.is_some_and(|at| now >= at) {
            self.post();
        }
        Ok(ticked)
    }

    /// Shows readers the present state.
    pub(super) fn post(&mut self) {
        let start = Instant::now();
        self.post_at = None;
        self.board.post(self);
        self.post_earliest = start + POST.max(start.elapsed() * POST_SHARE);
    }

    /// Lets the state machines run until nothing is left to do. Events come before what is sent,
    /// so that an inbound SA is installed before its SPI is told.
    pub(super) async fn pump(&mut self) -> Result<()> {
        loop {
            let mut worked = false;
            while let Some(event) = self.engine.poll_event() {
                worked = true;
                self.on_ike(event).await?;
            }
            worked |= self.pump_connectivity().await?;
            // Before a peer learns its SPI, and before traffic is told to go that way.
            self.dataplane.let_all_in().await?;
            worked |= self.pump_edge()?;
            while let Some(action) = self.next_key_action() {
                worked = true;
                self.on_key_action(action).await?;
            }
            self.dataplane.wake();
            while let Some(transmit) = self.engine.poll_transmit() {
                worked = true;
                if let Err(error) = self.sockets.send(&transmit).await {
                    tracing::debug!("IKE to {}: {error}", transmit.remote);
                }
            }
            self.follow_sources().await;
            let now = Instant::now();
            while let Some(id) = self.dying.pop(now) {
                worked = true;
                self.end_session(id, "replaced", false)?;
            }
            while let Some(id) = self.retired.pop(now) {
                worked = true;
                let sa = self.table.live.get(&id).map(|live| live.sa);
                match sa.is_some_and(|sa| self.table.of_sa(sa) == Some(id)) {
                    // Nothing has taken its place: what goes beside it is not a session by itself.
                    true => self.end_session(id, "its child SA was deleted by the peer", true)?,
                    false => drop(self.remove_pair(id)?),
                }
            }
            self.dataplane.wake();
            if !worked {
                return Ok(());
            }
            let at = self.post_earliest.max(now + POST);
            self.post_at.get_or_insert(at);
        }
    }

    /// One datagram, and those that have come meanwhile.
    fn on_datagrams(&mut self, first: Datagram) {
        let mut datagrams = vec![first];
        self.sockets
            .receive_more(&mut datagrams, self.threads.batch());
        let (esp, ike): (Vec<_>, Vec<_>) = datagrams.into_iter().partition(|datagram| datagram.esp);
        for Datagram {
            local,
            remote,
            data,
            ..
        } in esp
        {
            self.dataplane.intake().hand_datagram(&data, remote, local);
        }
        if self.edge.is_some() {
            return self.relay(ike);
        }
        let batch: Vec<_> = ike.iter().map(Datagram::shown).collect();
        self.engine
            .handle_datagrams(Instant::now(), &batch, &mut self.answers, &self.threads);
    }

    async fn on_ike(&mut self, event: Event) -> Result<()> {
        let now = Instant::now();
        match event {
            Event::Established { .. } => self.established(event, now).await?,
            Event::Relocated {
                id,
                local,
                remote,
                nat,
            } => self.relocated(id, local, remote, nat)?,
            Event::Redirected { id, to } => self.redirected(id, &to, now),
            Event::Alive { id } => {
                if let Some(live) = self
                    .table
                    .of_sa(id)
                    .and_then(|id| self.table.live.get_mut(&id))
                {
                    live.alive = now;
                }
            }
            Event::Moved { id, remote } => {
                for session in self.table.all_of(id) {
                    self.peer_moved(session, remote, Witness::Ike)?;
                }
            }
            Event::Failed {
                id,
                remote,
                error,
                spi_in,
            } => {
                if let Some(spi) = spi_in {
                    self.answers.sadb.release_spi(spi);
                }
                let purpose = self.pending.remove(&id);
                let why = match self.sent_elsewhere(purpose.as_ref(), &error, now) {
                    Some(refusal) => format!("{error}: {refusal}"),
                    None => error.to_string(),
                };
                self.failed(purpose, remote, &why, now);
            }
            Event::Refused {
                remote,
                peer,
                error,
                untold,
                ..
            } => {
                self.note(refused(remote, peer.as_ref(), &error, untold));
            }
            Event::ChildAdded { .. } | Event::ChildRekeyed { .. } => {
                self.rekeyed(event, now).await?;
            }
            Event::ChildFailed { id, spi_in, error } => {
                self.answers.sadb.release_spi(spi_in);
                self.lane_refused(id, &error);
                self.rekey_failed(id, &error);
            }
            Event::ChildClosed { id, spi_in, .. } => self.child_closed(id, spi_in, now)?,
            Event::Rekeyed { id } => self.ike_rekeyed(id),
            Event::Ahead { id, by } => self.go_ahead(id, by),
            // Only an authority asks for it.
            Event::PeerAhead { .. } => {}
            Event::Ticket { id, ticket } => self.keep_ticket(id, ticket),
            Event::ReauthIn { id, after } => self.reauth_in(id, after, now),
            Event::Keys { keys, .. } => {
                self.keylog.ike(&keys);
                if !self.keylog.is_on() {
                    self.engine.set_export_keys(false);
                }
            }
            Event::Closed { id, reason, .. } => {
                if reason == CloseReason::PeerDeleted {
                    self.forget_ticket(id);
                }
                match self.table.of_sa(id) {
                    Some(session) => self.end_session(session, &reason.to_string(), false)?,
                    None => {
                        for pair in self.table.all_of(id) {
                            self.remove_pair(pair)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks peers that have been silent for long whether they live (RFC 7296 section 2.4). On a
    /// client these are the standby gateways, which get no heartbeats.
    fn ask_the_silent(&mut self, now: Instant) {
        let view = self.dataplane.views().load();
        let heard = view.sessions.iter();
        let heard = heard.filter_map(|session| Some((session.id, session.last_heard?)));
        let patience = self.config.ike.liveness;
        for sa in self.table.silent(&heard.collect(), patience, now) {
            self.engine.check_liveness(now, sa);
        }
    }

    /// One report, and those that have come meanwhile: what they lead to is done together.
    fn on_reports(&mut self, first: WorkerReport) -> Result<()> {
        self.on_report(first)?;
        for _ in 1..REPORTS {
            let Ok(report) = self.inputs.reports.try_recv() else {
                break;
            };
            self.on_report(report)?;
        }
        Ok(())
    }

    fn on_report(&mut self, report: WorkerReport) -> Result<()> {
        if let WorkerEvent::Failed(why) = &report.event {
            bail!("the worker can not go on: {why}");
        }
        if let WorkerEvent::TooLong(said) = report.event {
            self.dataplane.too_long(said);
            return Ok(());
        }
        if let WorkerEvent::PathMtu {
            session,
            before,
            size,
            phase,
        } = report.event
        {
            self.path_mtu(session, before, size, phase, report.at);
            return Ok(());
        }
        if let WorkerEvent::PeerMoved { session, remote } = report.event {
            return self.peer_moved(session, remote, Witness::Worker);
        }
        self.on_edge_report(&report.event, report.at)?;
        match &self.role {
            Role::Client(_) => self.on_client_report(report),
            Role::Gateway(_) => self.on_gateway_report(report),
        }
        Ok(())
    }

    fn on_link(&mut self, change: &LinkChange) -> Result<()> {
        let news = self.interfaces.on_change(change)?;
        if let Some(up) = news.all_up {
            self.dataplane.command(Command::Link { up });
        }
        if let Some(up) = news.flipped {
            let state = if up { "up" } else { "down" };
            let text = format!("link of {} is {state}", change.interface);
            self.note(NewEvent::new(EventKind::Link, text));
        }
        Ok(())
    }

    /// Writes an event into the log.
    pub(super) fn note(&self, event: NewEvent) {
        self.events.push(event);
    }

    /// Ends all sessions politely, then gives the interfaces back.
    async fn farewell(mut self) {
        self.note(NewEvent::new(
            EventKind::NodeStopping,
            "the node is stopping",
        ));
        let now = Instant::now();
        self.part().await;
        // Those of an edge are its authority's.
        let own = self.edge.is_none();
        let own = self.table.live.values().filter(|_| own);
        let mut open: HashSet<SaId> = own.map(|live| live.sa).collect();
        for sa in &open {
            self.engine.close(now, *sa);
        }
        let deadline = now + FAREWELL;
        while !open.is_empty() && Instant::now() < deadline {
            while let Some(transmit) = self.engine.poll_transmit() {
                let _ = self.sockets.send(&transmit).await;
            }
            let wait = tokio::time::timeout_at(deadline.into(), self.sockets.receive());
            let Ok(datagram) = wait.await else { break };
            if let Some(datagram) = datagram {
                self.on_datagrams(datagram);
            }
            while let Some(event) = self.engine.poll_event() {
                if let Event::Closed { id, .. } = event {
                    open.remove(&id);
                }
            }
        }
        self.inputs.watch.abort();
        self.dataplane.stop();
        self.api.stop();
    }
}
