//! The node's core: one task that owns all that decides, fed by sockets, workers, timers, the API
//! and signals. After each input it lets the state machines run until nothing is left to do.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::client::Client;
use super::config::Config;
use super::events::{EventKind, EventLog, NewEvent};
use super::gateway::Gateway;
use super::hooks::Answers;
use super::sessions::{Live, Outline, Table, VENDOR_ID, spec};
use super::sockets::{Datagram, Sockets};
use super::status::Board;
use crate::api::server::{ApiServer, Command as ApiCommand};
use crate::dataplane::net::fib::Fib;
use crate::dataplane::net::fib_watch::LinkChange;
use crate::dataplane::{Command, Dataplane, GroupId, WorkerEvent, WorkerReport};
use crate::ike::{Engine, Event, Failure, SaId, survivor};
use crate::kms::SessionHandle;
use crate::sadb::{Change, Producer, SessionId};

/// How long an old session still receives after a new one has taken its place.
const AFTERLIFE: Duration = Duration::from_secs(3);

/// How long sessions may take to be deleted when the node stops.
const FAREWELL: Duration = Duration::from_millis(800);

/// The pace of housekeeping: liveness, status, the core's own sign of life.
const TICK: Duration = Duration::from_millis(200);

/// After a change, readers of the status see it within this time; many changes cost one post.
const POST: Duration = Duration::from_millis(10);

/// What depends on the role.
pub(super) enum Role {
    Client(Box<Client>),
    Gateway(Gateway),
}

/// What an exchange that this node began is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A key with this gateway, for the key management service.
    Gateway(IpAddr),
    /// A session toward this client, because traffic for it came from the LAN.
    Client(GroupId),
}

/// The core of a running node.
pub(super) struct Node {
    pub(super) config: Config,
    pub(super) events: EventLog,
    pub(super) engine: Engine,
    pub(super) answers: Answers,
    pub(super) sockets: Sockets,
    pub(super) dataplane: Dataplane,
    pub(super) reports: mpsc::Receiver<WorkerReport>,
    pub(super) links: mpsc::Receiver<LinkChange>,
    pub(super) commands: mpsc::Receiver<ApiCommand>,
    pub(super) api: ApiServer,
    pub(super) board: Arc<Board>,
    pub(super) fib: Arc<ArcSwap<Fib>>,
    pub(super) inside_name: String,
    pub(super) address: IpAddr,
    pub(super) role: Role,
    pub(super) table: Table,
    pub(super) pending: HashMap<SaId, Purpose>,
    /// Sessions that only receive any more, and when they go.
    pub(super) dying: Vec<(Instant, SessionId)>,
    pub(super) links_up: HashMap<String, bool>,
    pub(super) tick: Instant,
    /// When a change is to be posted.
    pub(super) post_at: Option<Instant>,
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
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
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                Some(report) = self.reports.recv() => self.on_report(report)?,
                Some(change) = self.links.recv() => self.on_link(change),
                datagram = self.sockets.receive() => {
                    if let Some(datagram) = datagram {
                        self.on_datagram(&datagram);
                    }
                }
                Some(command) = self.commands.recv() => self.on_command(command).await,
                _ = self.hangup.recv() => self.reload_by_signal().await,
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            self.on_time();
        }
    }

    fn next_deadline(&self) -> Instant {
        let kms = match &self.role {
            Role::Client(client) => client.kms.next_deadline().map(|(at, _)| at),
            Role::Gateway(_) => None,
        };
        let dying = self.dying.iter().map(|(at, _)| *at).min();
        let ike = self.engine.next_timeout().map(|(at, _)| at);
        [kms, dying, ike, self.post_at]
            .into_iter()
            .flatten()
            .fold(self.tick, Instant::min)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.dataplane.pulse().beat(now);
        self.engine.handle_timeout(now, &mut self.answers);
        if let Role::Client(client) = &mut self.role {
            client.kms.poll(now);
        }
        if now >= self.tick {
            self.tick = now + TICK;
            self.ask_the_silent(now);
            self.post();
        }
        if self.post_at.is_some_and(|at| now >= at) {
            self.post();
        }
    }

    /// Shows readers the present state.
    pub(super) fn post(&mut self) {
        self.post_at = None;
        self.board.post(self);
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
            while let Some(action) = self.next_key_action() {
                worked = true;
                self.on_key_action(action).await?;
            }
            while let Some(transmit) = self.engine.poll_transmit() {
                worked = true;
                if let Err(error) = self.sockets.send(&transmit).await {
                    tracing::debug!("IKE to {}: {error}", transmit.remote);
                }
            }
            let now = Instant::now();
            while let Some(at) = self.dying.iter().position(|(at, _)| *at <= now) {
                worked = true;
                let (_, id) = self.dying.swap_remove(at);
                self.end_session(id, "replaced", false)?;
            }
            if !worked {
                return Ok(());
            }
            self.post_at.get_or_insert(now + POST);
        }
    }

    fn on_datagram(&mut self, datagram: &Datagram) {
        let Datagram {
            local,
            remote,
            data,
        } = datagram;
        self.engine
            .handle_datagram(Instant::now(), *local, *remote, data, &mut self.answers);
    }

    async fn on_ike(&mut self, event: Event) -> Result<()> {
        let now = Instant::now();
        match event {
            Event::Established { .. } => self.established(event, now).await?,
            Event::Alive { id } => {
                if let Some(live) = self
                    .table
                    .of_sa(id)
                    .and_then(|id| self.table.live.get_mut(&id))
                {
                    live.alive = now;
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
                self.failed(id, remote, &error, now);
            }
            Event::Refused {
                remote,
                peer,
                error,
                untold,
                ..
            } => {
                let who = peer.map_or_else(|| remote.to_string(), |p| format!("{p} at {remote}"));
                let more = match untold {
                    0 => String::new(),
                    count => format!(" (and {count} more since the last one told)"),
                };
                let text = format!("refused {who}: {error}{more}");
                self.note(NewEvent::new(EventKind::KeyFailed, text));
            }
            Event::ChildClosed { id, .. } => {
                if let Some(id) = self.table.of_sa(id) {
                    self.end_session(id, "its child SA was deleted by the peer", true)?;
                }
            }
            Event::Closed { id, reason, .. } => {
                if let Some(id) = self.table.of_sa(id) {
                    self.end_session(id, &reason.to_string(), false)?;
                }
            }
        }
        Ok(())
    }

    async fn established(&mut self, event: Event, now: Instant) -> Result<()> {
        let Event::Established {
            id: sa,
            initiator,
            remote,
            peer,
            assigned,
            child,
            vendor_ids,
            exporter,
            rank,
            ..
        } = event
        else {
            return Ok(());
        };
        let purpose = self.pending.remove(&sa);
        let gateway = matches!(self.role, Role::Client(_)).then(|| remote.ip());
        let outline = Outline {
            peer: peer.to_string(),
            local: self.address,
            remote: remote.ip(),
            gateway,
            replay_window: self.config.esp.replay_window,
            initiator,
            keyed_heartbeat: vendor_ids.iter().any(|id| id == VENDOR_ID),
        };
        let spec = spec(outline, &child, &exporter).context("keys of a child SA")?;
        let changes = match self.answers.sadb.insert(spec) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!("the session with {peer} can not be installed: {error}");
                self.engine.close(now, sa);
                self.failed(sa, remote, &Failure::WrongAnswer("unusable child SA"), now);
                return Ok(());
            }
        };
        let group = match &self.role {
            Role::Client(client) => client.group_of(remote.ip()),
            Role::Gateway(_) => self.peer_group(&peer, &assigned, remote.ip())?,
        };
        let Some(group) = group else {
            tracing::warn!("{peer} at {remote} is not a gateway of the policy: session refused");
            self.engine.close(now, sa);
            return Ok(());
        };
        let peer_began = gateway.is_some() && !initiator;
        for change in changes {
            let Change::Add(spec) = change else { continue };
            let id = spec.id;
            self.table.insert(Live {
                sa,
                peer: peer.clone(),
                spec: Arc::clone(&spec),
                group,
                rank: rank.clone(),
                since: now,
                alive: now,
                asked: now,
            });
            if gateway.is_some() {
                self.use_inner_addresses(&assigned).await?;
                // A client has few sessions: they are shown before they can become active.
                self.post();
            }
            self.dataplane
                .add_session(Arc::clone(&spec), group, peer_began)
                .await?;
            let kept = self.replace_older(id, now);
            let by = if initiator {
                "begun by us"
            } else {
                "begun by the peer"
            };
            let text = format!("session with {peer} at {} is up, {by}", remote.ip());
            let event = NewEvent::new(EventKind::SessionUp, text);
            self.note(match gateway {
                Some(gateway) => event.gateway(gateway),
                None => event,
            });
            if let (Some(gateway), Role::Client(client)) = (gateway, &mut self.role) {
                let handle = SessionHandle(kept.0);
                match purpose {
                    Some(_) => client.kms.on_authenticated(gateway, handle, now),
                    None => client.kms.on_peer_initiated(gateway, handle, now),
                }
            }
        }
        Ok(())
    }

    /// An exchange that we began has failed.
    fn failed(&mut self, sa: SaId, remote: SocketAddr, error: &Failure, now: Instant) {
        match self.pending.remove(&sa) {
            Some(Purpose::Gateway(gateway)) => {
                let text = format!("no session with gateway {gateway}: {error}");
                self.note(NewEvent::new(EventKind::KeyFailed, text).gateway(gateway));
                if let Role::Client(client) = &mut self.role {
                    client.kms.on_failed(gateway, error.to_string(), now);
                }
            }
            Some(Purpose::Client(group)) => {
                let text = format!("no session with the client at {}: {error}", remote.ip());
                self.note(NewEvent::new(EventKind::KeyFailed, text));
                self.dataplane
                    .command(Command::Rejected(group, Duration::from_secs(1)));
            }
            None => {}
        }
    }

    /// Of all sessions with the same peer as this new one only one stays, and is returned: usually
    /// this one. The others only receive any more.
    fn replace_older(&mut self, id: SessionId, now: Instant) -> SessionId {
        let Some(new) = self.table.live.get(&id) else {
            return id;
        };
        let same_place = |other: &Live| match new.spec.gateway {
            Some(gateway) => other.spec.gateway == Some(gateway),
            None => other.group == new.group,
        };
        let is_dying = |id| self.dying.iter().any(|(_, dying)| *dying == id);
        let (mut kept, mut losers) = (new, Vec::new());
        for other in self.table.live.values() {
            if other.spec.id >= id || !same_place(other) || is_dying(other.spec.id) {
                continue;
            }
            // Both ends must choose the same, or none is left.
            let loser = match survivor(kept.contender(), other.contender()) == kept.sa {
                true => other,
                false => std::mem::replace(&mut kept, other),
            };
            losers.push((now + AFTERLIFE, loser.spec.id));
        }
        let kept = kept.spec.id;
        self.dying.extend(losers);
        kept
    }

    /// Removes a session everywhere. `tell`: the peer is told by a DELETE.
    pub(super) fn end_session(&mut self, id: SessionId, why: &str, tell: bool) -> Result<()> {
        let now = Instant::now();
        let Some(live) = self.table.remove(id) else {
            return Ok(());
        };
        self.dying.retain(|(_, dying)| *dying != id);
        if tell || why == "replaced" {
            self.engine.close(now, live.sa);
        }
        if let Ok(changes) = self.answers.sadb.remove(Producer::Ike, id) {
            for change in changes {
                if let Change::Remove(id) = change {
                    self.dataplane.remove_session(id)?;
                }
            }
        }
        let text = format!("session with {} has ended: {why}", live.peer);
        let event = NewEvent::new(EventKind::SessionDown, text);
        match (live.spec.gateway, &mut self.role) {
            (Some(gateway), Role::Client(client)) => {
                client
                    .kms
                    .on_session_lost(gateway, SessionHandle(id.0), now);
                self.note(event.gateway(gateway));
            }
            _ => self.note(event),
        }
        Ok(())
    }

    /// Asks peers that have been silent for long whether they live (RFC 7296 section 2.4). On a
    /// client these are the standby gateways, which get no heartbeats.
    fn ask_the_silent(&mut self, now: Instant) {
        let view = self.dataplane.view().load_full();
        let patience = self.config.ike.liveness;
        for live in self.table.live.values_mut() {
            let heard = view
                .sessions
                .iter()
                .find(|s| s.id == live.spec.id)
                .and_then(|s| s.last_heard);
            let latest = heard.map_or(live.alive, |at| at.max(live.alive));
            let idle = now.saturating_duration_since(latest.max(live.asked));
            if idle >= patience {
                live.asked = now;
                self.engine.check_liveness(now, live.sa);
            }
        }
    }

    fn on_report(&mut self, report: WorkerReport) -> Result<()> {
        if let WorkerEvent::Failed(why) = &report.event {
            bail!("the worker can not go on: {why}");
        }
        match &self.role {
            Role::Client(_) => self.on_client_report(report),
            Role::Gateway(_) => self.on_gateway_report(report),
        }
        Ok(())
    }

    fn on_link(&mut self, change: LinkChange) {
        let before = self.links_up.insert(change.interface.clone(), change.up);
        if before != Some(change.up) {
            let up = self.links_up.values().all(|up| *up);
            self.dataplane.command(Command::Link { up });
        }
        if before.is_some_and(|before| before != change.up) {
            let state = if change.up { "up" } else { "down" };
            let text = format!("link of {} is {state}", change.interface);
            self.note(NewEvent::new(EventKind::Link, text));
        }
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
        for live in self.table.live.values() {
            self.engine.close(now, live.sa);
        }
        let deadline = now + FAREWELL;
        let mut open = self.table.live.len();
        while open > 0 && Instant::now() < deadline {
            while let Some(transmit) = self.engine.poll_transmit() {
                let _ = self.sockets.send(&transmit).await;
            }
            let wait = tokio::time::timeout_at(deadline.into(), self.sockets.receive());
            let Ok(datagram) = wait.await else { break };
            if let Some(datagram) = datagram {
                self.on_datagram(&datagram);
            }
            while let Some(event) = self.engine.poll_event() {
                if matches!(event, Event::Closed { .. }) {
                    open -= 1;
                }
            }
        }
        self.dataplane.stop();
        self.api.stop();
    }
}
