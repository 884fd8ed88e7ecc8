//! The status of an authority, and what its operator may ask of it.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::Authority;
use crate::api::model::{self, Done, SaView, Session, Spi, Status};
use crate::api::server::{Command, CommandError};
use crate::node::commands::{Answer, switch_keylog};
use crate::node::config::Config;
use crate::node::events::{EventKind, NewEvent};
use crate::sadb::{Direction, SessionId};

/// Where the core posts and others read.
pub(in crate::node) struct Board(ArcSwap<(Instant, Status)>);

impl Board {
    pub(in crate::node) fn new(status: Status, now: Instant) -> Self {
        Self(ArcSwap::from_pointee((now, status)))
    }

    pub(in crate::node) fn post(&self, status: Status, now: Instant) {
        self.0.store(Arc::new((now, status)));
    }

    pub(in crate::node) fn status(&self) -> Status {
        let posted = self.0.load();
        let (at, status) = &**posted;
        let age = at.elapsed().as_millis() as u64;
        Status {
            uptime_ms: status.uptime_ms + age,
            snapshot_age_ms: age,
            ..status.clone()
        }
    }
}

/// The status of a node that has done nothing yet.
pub(in crate::node) fn blank(config: &Config, uptime_ms: u64) -> Status {
    Status {
        name: config.name.clone(),
        role: config.role,
        identity: config.identity.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms,
        snapshot_age_ms: 0,
        interfaces: Vec::new(),
        drain: None,
        edges: Vec::new(),
        authorities: Vec::new(),
        connectivity: None,
        front: None,
        filter: Vec::new(),
        clusters: Vec::new(),
        tunnels: Vec::new(),
        sessions: Vec::new(),
        counters: Vec::new(),
        drops: Vec::new(),
        keylog: None,
    }
}

impl Authority {
    pub(super) fn status(&self, now: Instant) -> Status {
        let uptime = now.saturating_duration_since(self.started).as_millis() as u64;
        let edges = self.edges.iter().map(|(number, edge)| model::Edge {
            number: number.0,
            name: edge.name.clone(),
            from: edge.from,
            owned: 0,
            relayed: edge.relayed,
            translated: edge.translated,
        });
        let mut edges: Vec<_> = edges.collect();
        let mut sessions = Vec::new();
        for (spi, shared) in &self.shared {
            let owner = self.ledger.owner(*spi);
            if let Some(edge) = owner.and_then(|o| edges.iter_mut().find(|e| e.number == o.0)) {
                edge.owned += 1;
            }
            let pair = &shared.carrier.pair;
            let live = self.table.live.get(&shared.session);
            if live.is_some_and(|live| live.retired) {
                continue;
            }
            let rekey_at = live.and_then(|live| self.engine.child_rekey_at(live.sa, *spi));
            let rekey_in = rekey_at.map(|at| at.saturating_duration_since(now));
            sessions.push(Session {
                peer: pair.client.clone(),
                outside: pair.remote,
                inner: pair.inner.clone(),
                spi_in: Spi(*spi),
                spi_out: Spi(pair.outbound.spi),
                cipher: pair.outbound.cipher.name().to_owned(),
                active: owner.is_some(),
                edge: owner.map(|edge| edge.0),
                path_mtu: 0,
                path_state: String::new(),
                age_ms: live.map_or(0, |live| {
                    now.saturating_duration_since(live.since).as_millis() as u64
                }),
                rekey_in_ms: rekey_in.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
                packets_in: 0,
                bytes_in: 0,
                packets_out: 0,
                bytes_out: 0,
                initiator: pair.initiator,
                resumed: live.is_some_and(|live| live.resumed),
            });
        }
        Status {
            edges,
            sessions,
            keylog: self.keylog.view(),
            connectivity: self.connectivity.as_ref().map(|c| c.view(now)),
            ..blank(&self.config, uptime)
        }
    }

    pub(super) fn on_command(&mut self, command: Command) {
        let no = |what: &str| {
            CommandError::Invalid(format!(
                "an authority {what}: it has no packets to carry; ask one of its edges"
            ))
        };
        // Who asked may have gone; then nobody needs the answer.
        match command {
            Command::SaList { reply } => drop(reply.send(Ok(self.list()))),
            Command::SaAdd { reply, .. } => drop(reply.send(Err(no("takes no SAs by hand")))),
            Command::SaDelete { reply, .. } => {
                drop(reply.send(Err(no("has no SAs that were written by hand"))));
            }
            Command::SaFlush { reply } => {
                drop(reply.send(Err(no("has no SAs that were written by hand"))));
            }
            Command::PolicyReload { reply } => drop(reply.send(Err(no("has no policy")))),
            Command::Drain { reply, .. } => drop(reply.send(Err(no("does not drain")))),
            Command::Associate { reply, .. } => drop(reply.send(Err(no("has no neighbours")))),
            Command::SessionDelete { peer, reply } => {
                let answer = self.delete(&peer);
                let _ = reply.send(answer);
            }
            Command::Keylog { on, reply } => {
                let answer =
                    switch_keylog(&mut self.keylog, &mut self.engine, &self.answers.sadb, on);
                let _ = reply.send(answer);
            }
        }
        self.post();
    }

    fn list(&self) -> Vec<SaView> {
        let views = self.answers.sadb.iter().flat_map(|spec| {
            spec.sas().map(|(direction, sa)| {
                let (source, destination) = spec.selectors(direction);
                let text = |nets: &[ipnet::IpNet]| {
                    let nets = nets.iter().map(ToString::to_string);
                    nets.collect::<Vec<_>>().join(",")
                };
                SaView {
                    spi: Spi(sa.spi),
                    direction: match direction {
                        Direction::In => model::Direction::In,
                        Direction::Out => model::Direction::Out,
                    },
                    local: spec.outside_local,
                    remote: spec.outside_remote,
                    cipher: sa.cipher.name().to_owned(),
                    selectors: vec![format!("{} → {}", text(source), text(destination))],
                    origin: spec.origin.name().to_owned(),
                    packets: 0,
                    bytes: 0,
                }
            })
        });
        views.collect()
    }

    fn delete(&mut self, peer: &str) -> Answer<Done> {
        let named =
            |client: &str, outside: std::net::IpAddr| client == peer || outside.to_string() == peer;
        let found = self.shared.iter().filter(|(_, shared)| {
            let pair = &shared.carrier.pair;
            named(&pair.client, pair.remote)
        });
        let found: Vec<(u32, SessionId, bool)> = found
            .map(|(spi, s)| (*spi, s.session, s.sa.is_some()))
            .collect();
        if found.is_empty() {
            return Err(CommandError::NotFound(format!(
                "no session with `{peer}`; expected an identity or an outside address of \
                 `evergate status`"
            )));
        }
        let mut sessions: Vec<_> = found.iter().map(|(_, id, _)| *id).collect();
        sessions.retain(|id| self.table.live.get(id).is_none_or(|live| !live.retired));
        let count = sessions.len();
        for (spi, id, ours) in found {
            match ours {
                true => self.end_session(id, "deleted by the operator", true),
                false => self.forget(id, spi),
            }
        }
        Ok(Done::new(format!("deleted {count} session(s) with {peer}")))
    }

    /// Certificates and CRLs are read again.
    pub(super) fn reload(&mut self) {
        let text = match Config::load(&self.config.path) {
            Ok(config) => {
                self.engine.set_x509(config.x509);
                "certificates and CRLs for clients were read again; those of the channel need a restart"
                    .to_owned()
            }
            Err(error) => {
                format!("{error}\nthe configuration was refused; what was read before stays")
            }
        };
        self.note(NewEvent::new(EventKind::CertsReloaded, text));
    }
}
