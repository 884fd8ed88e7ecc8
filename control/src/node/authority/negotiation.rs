//! What IKE agrees with clients becomes sessions that edges share.

use std::time::Instant;

use super::Authority;
use crate::cluster::wire::Succession;
use crate::ike::{Event, SaId, survivor};
use crate::node::establish::{AFTERLIFE, Refusal, install, refused};
use crate::node::events::{EventKind, NewEvent};
use crate::node::gateway::inner_of;
use crate::node::roaming::encapsulation;
use crate::node::sessions::{Live, Outline, VENDOR_ID, spec};
use crate::node::sockets::Datagram;
use crate::sadb::{Change, Path, Producer, SessionId};

impl Authority {
    /// Messages of clients, as edges have heard them.
    pub(super) fn negotiate(&mut self, datagrams: &[Datagram]) {
        let batch: Vec<_> = datagrams.iter().map(Datagram::shown).collect();
        let now = Instant::now();
        self.engine
            .handle_datagrams(now, &batch, &mut self.answers, &self.threads);
    }

    pub(super) fn on_ike(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Established { .. } => self.established(event, now),
            Event::ChildAdded { .. } | Event::ChildRekeyed { .. } => self.succeeded(event, now),
            Event::ChildFailed { id, spi_in, error } => {
                self.answers.sadb.release_spi(spi_in);
                if self.engine.is_established(id) {
                    tracing::info!("no fresh keys with a client for now: {error}");
                }
            }
            Event::ChildClosed { id, spi_in, .. } => self.child_closed(id, spi_in, now),
            Event::Relocated {
                id,
                local,
                remote,
                nat,
            } => {
                let path = Path {
                    local: local.ip(),
                    remote: remote.ip(),
                    encap: encapsulation(nat, local, remote),
                    roams: nat.follows(),
                };
                self.relocated(id, &path);
                self.now_at(remote, id);
            }
            Event::Moved { id, remote } => {
                for pair in self.table.all_of(id) {
                    self.move_pair(pair, remote, None);
                }
            }
            Event::Alive { id } => {
                let live = self.table.of_sa(id);
                if let Some(live) = live.and_then(|id| self.table.live.get_mut(&id)) {
                    live.alive = now;
                }
            }
            Event::Failed { spi_in, .. } => {
                if let Some(spi) = spi_in {
                    self.answers.sadb.release_spi(spi);
                }
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
            Event::Rekeyed { id } => {
                let live = self.table.of_sa(id);
                if let Some(live) = live.and_then(|id| self.table.live.get(&id)) {
                    let text = format!("session with {} has a fresh IKE SA", live.peer);
                    self.note(NewEvent::new(EventKind::SessionRekeyed, text));
                }
            }
            Event::Keys { keys, .. } => {
                self.keylog.ike(&keys);
                if !self.keylog.is_on() {
                    self.engine.set_export_keys(false);
                }
            }
            // Of a client's side.
            Event::Redirected { .. } | Event::Ticket { .. } | Event::ReauthIn { .. } => {}
            // Which numbers are sent the ledger says: new keys are beyond all of the old ones.
            Event::Ahead { id, .. } => {
                if let Some(live) = self.table.of_sa(id).and_then(|id| self.table.live.get(&id))
                    && let Some(inbound) = &live.spec.inbound
                {
                    self.engine.rekey_child(now, id, inbound.spi);
                }
            }
            Event::PeerAhead { id } => {
                let live = self.table.of_sa(id);
                if let Some(live) = live.and_then(|id| self.table.live.get(&id)) {
                    let text = format!(
                        "{} goes on with numbers that nobody has accepted",
                        live.peer
                    );
                    self.note(NewEvent::new(EventKind::SessionRekeyed, text));
                }
            }
            Event::Closed { id, reason, .. } => match self.table.of_sa(id) {
                Some(session) => self.end_session(session, &reason.to_string(), false),
                None => {
                    for pair in self.table.all_of(id) {
                        self.remove_pair(pair);
                    }
                    self.forget_place(id);
                }
            },
        }
    }

    fn established(&mut self, event: Event, now: Instant) {
        let Event::Established {
            id: sa,
            initiator,
            local,
            remote,
            peer,
            assigned,
            child,
            vendor_ids,
            exporter,
            rank,
            nat,
            resumed,
        } = event
        else {
            return;
        };
        let peer = self.answers.configured(peer);
        let fixed = self.answers.inner_of(&peer).unwrap_or_default();
        let known = self.clients.inner(&peer);
        let inner = inner_of(&assigned, fixed, known, &child.remote_ts);
        let (group, _) = self.clients.know(&peer, &inner, Some(remote));
        self.clients.set_inner(&peer, &inner);
        let outline = Outline {
            peer: peer.to_string(),
            local: self.address,
            remote: remote.ip(),
            gateway: None,
            replay_window: self.config.esp.replay_window,
            initiator,
            encap: encapsulation(nat, local, remote),
            roams: nat.follows(),
            keyed_heartbeat: vendor_ids.iter().any(|id| id == VENDOR_ID),
        };
        let make = || spec(outline, &child, &exporter);
        let taken = install(&mut self.answers.sadb, child.spi_in, Ok(group), make);
        let changes = match taken {
            Ok((_, changes)) => changes,
            Err(refusal) => return self.refuse(sa, &peer.to_string(), &refusal, now),
        };
        if let Some(edge) = self.batch.get(&remote) {
            self.heard_by.insert(sa, *edge);
        }
        self.now_at(remote, sa);
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let id = spec.id;
            let live = Live {
                rank: rank.clone(),
                resumed,
                ..Live::new(sa, peer.clone(), spec, group, now)
            };
            self.table.insert(live.clone());
            self.share(&live, inner.clone(), Succession::First, remote, None, now);
            self.replace_older(id, now);
            self.retire_earlier(&peer.to_string(), now + AFTERLIFE);
            let how = if resumed { "resumed, " } else { "" };
            let by = self.heard_by.get(&sa);
            let by = by.map_or_else(String::new, |edge| format!(" by {edge}"));
            let text = format!(
                "session with {peer} at {}{by} is up, {how}begun by the peer",
                remote.ip()
            );
            self.note(NewEvent::new(EventKind::SessionUp, text));
        }
    }

    fn refuse(&mut self, sa: SaId, peer: &str, refusal: &Refusal, now: Instant) {
        self.engine.close(now, sa);
        let text = format!("session of {peer} refused: {refusal}");
        self.note(NewEvent::new(EventKind::KeyFailed, text));
    }

    /// Of all sessions with the same client as this new one only one stays. The others only receive any more.
    fn replace_older(&mut self, id: SessionId, now: Instant) {
        let Some(new) = self.table.live.get(&id) else {
            return;
        };
        let older = self.table.of_group(new.group).filter(|other| {
            let in_use = !other.retired && other.spec.lane == 0;
            let going = self.dying.contains(other.spec.id);
            other.spec.id < id && other.sa != new.sa && in_use && !going
        });
        let (mut kept, mut losers) = (new, Vec::new());
        for other in older {
            // Both ends must choose the same, or none is left.
            let loser = match survivor(kept.contender(), other.contender()) == kept.sa {
                true => other,
                false => std::mem::replace(&mut kept, other),
            };
            losers.push(loser.spec.id);
        }
        for id in losers {
            self.dying.insert(now + AFTERLIFE, id);
        }
    }

    fn relocated(&mut self, sa: SaId, path: &Path) {
        for id in self.table.all_of(sa) {
            let changes = match self.answers.sadb.relocate(Producer::Ike, id, path) {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::warn!("a session can not move to {}: {error}", path.remote);
                    continue;
                }
            };
            for change in changes {
                let Change::Move(spec) = change else { continue };
                let spi = spec.inbound.as_ref().map_or(0, |sa| sa.spi);
                if let Some(live) = self.table.live.get_mut(&id) {
                    live.spec = spec;
                }
                self.share_anew(spi);
            }
        }
    }

    /// Asks clients that have been silent for long whether they live (RFC 7296 section 2.4).
    pub(super) fn ask_the_silent(&mut self, now: Instant) {
        let patience = self.config.ike.liveness;
        // Edges tell who sends: it stands with the sessions already.
        for sa in self
            .table
            .silent(&std::collections::HashMap::new(), patience, now)
        {
            self.engine.check_liveness(now, sa);
        }
    }

    /// Removes a session everywhere, with all its pairs of SAs. `tell`: the client is told by a DELETE.
    pub(super) fn end_session(&mut self, id: SessionId, why: &str, tell: bool) {
        let Some(live) = self.table.live.get(&id) else {
            return;
        };
        let (sa, peer) = (live.sa, live.peer.clone());
        if tell {
            self.engine.close(Instant::now(), sa);
        }
        for pair in self.table.all_of(sa) {
            self.remove_pair(pair);
        }
        self.forget_place(sa);
        let text = format!("session with {peer} has ended: {why}");
        self.note(NewEvent::new(EventKind::SessionDown, text));
    }

    /// Removes one pair of SAs everywhere.
    pub(super) fn remove_pair(&mut self, id: SessionId) {
        self.dying.remove(id);
        self.retired.remove(id);
        self.table.remove(id);
        let spi = self
            .answers
            .sadb
            .get(id)
            .and_then(|spec| spec.inbound.as_ref());
        if let Some(spi) = spi.map(|sa| sa.spi) {
            self.forget(id, spi);
        }
    }
}
