//! What the API asks of the core.

use std::collections::HashMap;

use ipnet::IpNet;

use super::core::{Node, Role};
use super::hooks::Answers;
use super::keylog::KeyLog;
use crate::api::model::{self, Done, SaView, Spi};
use crate::api::server::{Command, CommandError};
use crate::dataplane::{GroupId, GroupSpec};
use crate::ike::Engine;
use crate::sadb::{Change, Direction, Producer, Sadb, SessionId, SessionSpec};

pub(super) type Answer<T> = Result<T, CommandError>;

impl Node {
    pub(super) async fn on_command(&mut self, command: Command) {
        // Who asked may have gone; then nobody needs the answer. Who got it sees its effect in the
        // next status.
        match command {
            Command::SaList { reply } => {
                let _ = reply.send(Ok(self.list_sas()));
            }
            Command::SaAdd { words, reply } => {
                let answer = self.add_sa(&words).await;
                self.post();
                let _ = reply.send(answer);
            }
            Command::SaDelete { spi, reply } => {
                let answer = self.delete_sa(spi);
                self.post();
                let _ = reply.send(answer);
            }
            Command::SaFlush { reply } => {
                let answer = self.flush_sas();
                self.post();
                let _ = reply.send(answer);
            }
            Command::PolicyReload { reply } => {
                let answer = self.reload_policy().await.map_err(|error| {
                    CommandError::Invalid(format!(
                        "{error:#}\nthe policy was refused; the old one stays"
                    ))
                });
                self.post();
                let _ = reply.send(answer.map(Done::new));
            }
            Command::Drain { undo, reply } => {
                let answer = self.drain(undo);
                self.post();
                let _ = reply.send(answer);
            }
            Command::Associate { address, reply } => {
                let _ = reply.send(self.associate(address));
            }
            Command::SessionDelete { peer, reply } => {
                let answer = self.delete_session(&peer);
                self.post();
                let _ = reply.send(answer);
            }
            Command::Keylog { on, reply } => {
                let answer =
                    switch_keylog(&mut self.keylog, &mut self.engine, &self.answers.sadb, on);
                self.post();
                let _ = reply.send(answer);
            }
        }
    }

    fn flush_sas(&mut self) -> Answer<Done> {
        let changes = self.answers.sadb.flush(Producer::Manual);
        let count = changes.len();
        self.carry_out(changes)?;
        Ok(Done::new(format!("{count} hand-written sessions removed")))
    }

    fn list_sas(&self) -> Vec<SaView> {
        let view = self.dataplane.views().load();
        let shown: HashMap<_, _> = view
            .sessions
            .iter()
            .map(|shown| (shown.id, shown))
            .collect();
        let views = self.answers.sadb.iter().flat_map(|spec| {
            let traffic = shown.get(&spec.id);
            spec.sas()
                .map(|(direction, sa)| {
                    let (source, destination) = spec.selectors(direction);
                    let traffic = traffic.map(|session| match direction {
                        Direction::In => session.inbound,
                        Direction::Out => session.outbound,
                    });
                    let text = |nets: &[IpNet]| {
                        nets.iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                            .join(",")
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
                        packets: traffic.map_or(0, |t| t.packets),
                        bytes: traffic.map_or(0, |t| t.bytes),
                    }
                })
                .collect::<Vec<_>>()
        });
        views.collect()
    }

    async fn add_sa(&mut self, words: &[String]) -> Answer<Done> {
        let mut spec = SessionSpec::from_words(words)
            .map_err(|error| CommandError::Invalid(error.to_string()))?;
        self.fill_in(&mut spec);
        let sas: Vec<String> = spec
            .sas()
            .map(|(way, sa)| format!("{} {}", way.name(), Spi(sa.spi)))
            .collect();
        let changes = self
            .answers
            .sadb
            .insert(spec)
            .map_err(|error| CommandError::Conflict(error.to_string()))?;
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let group = manual_group(&spec, &self.role);
            if let Role::Gateway(gateway) = &mut self.role
                && let Some(routes) = &mut gateway.routes
            {
                let wanted = spec.remote_inner.iter().map(|prefix| (*prefix, None));
                routes
                    .extend(&wanted.collect())
                    .await
                    .map_err(|error| CommandError::Failed(error.to_string()))?;
            }
            if let GroupId::Manual(_) = group {
                self.dataplane
                    .set_group(GroupSpec {
                        id: group,
                        prefixes: spec.remote_inner.to_vec(),
                        watch: None,
                        on_demand: false,
                    })
                    .map_err(|error| CommandError::Failed(error.to_string()))?;
            }
            let taken = match self.dataplane.add_session(spec, group, true) {
                Ok(()) => self.dataplane.let_all_in().await,
                refused => refused,
            };
            taken.map_err(|error| CommandError::Failed(error.to_string()))?;
        }
        Ok(Done::new(format!("added {}", sas.join(", "))))
    }

    /// On a client, a hand-written session with a gateway of the policy is that gateway's.
    fn fill_in(&self, spec: &mut SessionSpec) {
        if let Role::Client(client) = &self.role
            && client.group_of(spec.outside_remote).is_some()
        {
            spec.gateway = spec.gateway.or(Some(spec.outside_remote));
        }
    }

    fn delete_sa(&mut self, spi: Spi) -> Answer<Done> {
        let changes = self
            .answers
            .sadb
            .remove_spi(Producer::Manual, spi.0)
            .map_err(|error| CommandError::NotFound(error.to_string()))?;
        self.carry_out(changes)?;
        Ok(Done::new(format!("deleted {spi}")))
    }

    fn carry_out(&mut self, changes: Vec<Change>) -> Answer<()> {
        let failed =
            |error: crate::dataplane::loader::LoadError| CommandError::Failed(error.to_string());
        for change in changes {
            if let Change::Remove(id) = change {
                self.dataplane.remove_session(id).map_err(failed)?;
                self.dataplane
                    .remove_group(GroupId::Manual(id.0))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    fn delete_session(&mut self, peer: &str) -> Answer<Done> {
        if self.edge.is_some() {
            let text = "sessions of an edge are its authority's: delete it there";
            return Err(CommandError::Invalid(text.to_owned()));
        }
        let named = |id: &SessionId| {
            self.table.live.get(id).is_some_and(|live| {
                live.peer.to_string() == peer || live.spec.outside_remote.to_string() == peer
            })
        };
        let ids: Vec<SessionId> = self
            .table
            .live
            .keys()
            .copied()
            .filter(|id| named(id))
            .collect();
        if ids.is_empty() {
            return Err(CommandError::NotFound(format!(
                "no session with `{peer}`; expected an identity or an outside address of \
                 `evergate status`"
            )));
        }
        for id in &ids {
            self.end_session(*id, "deleted by the operator", true)
                .map_err(|error| CommandError::Failed(error.to_string()))?;
        }
        Ok(Done::new(format!(
            "deleted {} session(s) with {peer}",
            ids.len()
        )))
    }
}

/// Begins to write keys, those of what is there first, or ends it.
pub(super) fn switch_keylog(
    keylog: &mut KeyLog,
    engine: &mut Engine,
    sadb: &Sadb,
    on: bool,
) -> Answer<Done> {
    if !on {
        engine.set_export_keys(false);
        keylog.end();
        return Ok(Done::new("keys are not written (any more)"));
    }
    if keylog.is_on() {
        return Ok(Done::new("keys are written already"));
    }
    match keylog.begin() {
        Ok(true) => {}
        Ok(false) => {
            return Err(CommandError::Invalid(
                "this node may not write keys: it was not started with `--keylog DIR`".into(),
            ));
        }
        Err(error) => return Err(CommandError::Failed(error.to_string())),
    }
    engine.set_export_keys(true);
    for spec in sadb.iter() {
        keylog.esp(spec);
    }
    let text = "keys of ALL sessions are written from now on: `evergate debug keylog off` ends it";
    Ok(Done::new(text))
}

/// The group of a hand-written session: the cluster of its gateway, or one of its own.
fn manual_group(spec: &SessionSpec, role: &Role) -> GroupId {
    let cluster = match (role, spec.gateway) {
        (Role::Client(client), Some(gateway)) => client.group_of(gateway),
        _ => None,
    };
    cluster.unwrap_or(GroupId::Manual(spec.id.0))
}

impl Answers {
    /// Identity of the peer at an outside address, for people to read.
    pub(super) fn name_of(&self, outside: std::net::IpAddr) -> Option<String> {
        self.peer_at(outside).map(|peer| peer.identity.to_string())
    }
}
