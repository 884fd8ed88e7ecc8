//! What IKE agreed becomes a session of this node, or is refused and leaves nothing behind.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;
use thiserror::Error;

use super::core::{Node, Purpose, Role};
use super::events::{EventKind, NewEvent};
use super::hooks::Answers;
use super::inner::KEPT;
use super::life::GIVEN_UP;
use super::reload::covers;
use super::roaming::encapsulation;
use super::sessions::{Live, Outline, VENDOR_ID, spec};
use crate::dataplane::loader::LoadError;
use crate::dataplane::net::links::LinkError;
use crate::dataplane::{Command, GroupId};
use crate::esp::BadSecret;
use crate::ike::{Event, Failure, Identity, SaId, TrafficSelector, survivor};
use crate::kms::{KeyManagement, SessionHandle};
use crate::sadb::{Change, Producer, Sadb, SadbError, SessionId, SessionSpec};

/// How long an old session still receives after a new one has taken its place.
pub(super) const AFTERLIFE: Duration = Duration::from_secs(3);

/// Packets for a client that can not be reached are refused for so long.
const REFUSED: Duration = Duration::from_secs(1);

/// Why a session that IKE agreed is not taken.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("no cluster of the policy lists this gateway")]
    NotInPolicy,
    #[error("the configuration has no [[peer]] at this address")]
    NoPeer,
    #[error("this is the address of {expected}")]
    AnotherPeer { expected: Identity },
    #[error("it assigns {address}, which no host behind a tunnel can have")]
    InnerAddress { address: IpAddr },
    #[error("it assigns more than {KEPT} inner addresses")]
    TooManyAddresses,
    #[error("its inner address can not be used: {0}")]
    Link(#[from] LinkError),
    #[error("its keys are of no use: {0}")]
    Keys(#[from] BadSecret),
    #[error("it can not be installed: {0}")]
    Sadb(#[from] SadbError),
    #[error("the data plane has no room for it: {0}")]
    Load(#[from] LoadError),
}

/// Takes a child SA's session into the set, if it has a place. What is refused leaves neither keys
/// nor a promised SPI behind.
pub(super) fn install(
    sadb: &mut Sadb,
    spi_in: u32,
    place: Result<GroupId, Refusal>,
    make: impl FnOnce() -> Result<SessionSpec, BadSecret>,
) -> Result<(GroupId, Vec<Change>), Refusal> {
    let taken = place.and_then(|group| Ok((group, sadb.insert(make()?)?)));
    if taken.is_err() {
        sadb.release_spi(spi_in);
    }
    taken
}

/// What is told of a peer whose wish for a session came to nothing.
pub(super) fn refused(
    remote: SocketAddr,
    peer: Option<&Identity>,
    error: &Failure,
    untold: u64,
) -> NewEvent {
    let who = peer.map_or_else(|| remote.to_string(), |p| format!("{p} at {remote}"));
    let more = match untold {
        0 => String::new(),
        count => format!(" (and {count} more since the last one told)"),
    };
    NewEvent::new(
        EventKind::KeyFailed,
        format!("refused {who}: {error}{more}"),
    )
}

/// Tells whoever waits for an exchange that there is no session: the key management service goes
/// on to the next gateway; what comes back tells the workers not to hold packets any longer.
fn give_up<R: Rng>(
    purpose: &Purpose,
    why: &str,
    kms: Option<&mut KeyManagement<R>>,
    now: Instant,
) -> Option<Command> {
    match (purpose, kms) {
        (Purpose::Gateway { gateway, .. }, Some(kms)) => {
            kms.on_failed(*gateway, why.to_owned(), now);
            None
        }
        (Purpose::Gateway { .. }, None) => None,
        (Purpose::Client(group), _) => Some(Command::Rejected(*group, REFUSED)),
    }
}

/// Whether the peer is the gateway that the configuration has at this address. Any peer of the
/// configuration can prove its own identity; it must not speak for another one's address.
fn is_gateway(answers: &Answers, peer: &Identity, outside: IpAddr) -> Result<(), Refusal> {
    let configured = answers.peer_at(outside).ok_or(Refusal::NoPeer)?;
    if configured.identity.matches(peer) {
        return Ok(());
    }
    Err(Refusal::AnotherPeer {
        expected: configured.identity.clone(),
    })
}

impl Node {
    pub(super) async fn established(&mut self, event: Event, now: Instant) -> Result<()> {
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
            return Ok(());
        };
        let peer = self.answers.configured(peer);
        let purpose = self.pending.remove(&sa);
        let spent = self.ticket_tried(purpose.as_ref(), resumed);
        let reauth_at = self.reauth_at(initiator, spent, now);
        let gateway = matches!(self.role, Role::Client(_)).then(|| remote.ip());
        let outline = Outline {
            peer: peer.to_string(),
            local: self.address,
            remote: remote.ip(),
            gateway,
            replay_window: self.config.esp.replay_window,
            initiator,
            encap: encapsulation(nat, local, remote),
            roams: nat.follows(),
            keyed_heartbeat: vendor_ids.iter().any(|id| id == VENDOR_ID),
        };
        let place = self.place(&peer, &assigned, &child.remote_ts, remote);
        let place = match place {
            Ok(group) if gateway.is_some() => {
                let used = self.use_inner_addresses(&assigned).await;
                used.map(|()| group)
            }
            place => place,
        };
        let make = || spec(outline, &child, &exporter);
        let taken = install(&mut self.answers.sadb, child.spi_in, place, make);
        let (group, changes) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                self.refuse(sa, remote, &peer, purpose, &refusal, now);
                return Ok(());
            }
        };
        let peer_began = gateway.is_some() && !initiator;
        self.keeps_mapping(sa, nat);
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let id = spec.id;
            self.table.insert(Live {
                rank: rank.clone(),
                resumed,
                reauth_at,
                lanes_at: self.wants_lanes(&spec).then_some(now),
                ..Live::new(sa, peer.clone(), Arc::clone(&spec), group, now)
            });
            if gateway.is_some() {
                // A client has few sessions: they are shown before they can become active.
                self.post();
            }
            let succeeds = self.succeeds(sa, &spec, group);
            self.carry(spec, group, succeeds, peer_began).await?;
            self.classify(id)?;
            let kept = self.replace_older(id, now);
            let by = if initiator {
                "begun by us"
            } else {
                "begun by the peer"
            };
            let how = if resumed { "resumed, " } else { "" };
            let text = format!("session with {peer} at {} is up, {how}{by}", remote.ip());
            let event = NewEvent::new(EventKind::SessionUp, text);
            self.note(match gateway {
                Some(gateway) => event.gateway(gateway),
                None => event,
            });
            if let (Some(gateway), Role::Client(client)) = (gateway, &mut self.role) {
                let handle = SessionHandle(kept.0);
                match &purpose {
                    Some(Purpose::Gateway { ranges, .. }) => {
                        client.kms.on_authenticated(gateway, handle, now);
                        // The policy was read again while the exchange ran. What was asked for
                        // counts, not what was granted, or a narrow gateway were asked for ever.
                        if !covers(ranges, &self.answers.ranges_of(gateway)) {
                            client.kms.refresh(gateway, now);
                        }
                    }
                    _ => client.kms.on_peer_initiated(gateway, handle, now),
                }
            }
        }
        Ok(())
    }

    /// The group that a session with this peer belongs to.
    fn place(
        &mut self,
        peer: &Identity,
        assigned: &[IpAddr],
        agreed: &[TrafficSelector],
        outside: SocketAddr,
    ) -> Result<GroupId, Refusal> {
        match &self.role {
            Role::Client(client) => {
                is_gateway(&self.answers, peer, outside.ip())?;
                let group = client.group_of(outside.ip());
                group.ok_or(Refusal::NotInPolicy)
            }
            Role::Gateway(_) => self.peer_group(peer, assigned, agreed, outside),
        }
    }

    /// Ends what IKE agreed and we do not take.
    fn refuse(
        &mut self,
        sa: SaId,
        remote: SocketAddr,
        peer: &Identity,
        purpose: Option<Purpose>,
        refusal: &Refusal,
        now: Instant,
    ) {
        self.engine.close(now, sa);
        if purpose.is_none() {
            let text = format!("session of {peer} at {remote} refused: {refusal}");
            self.note(NewEvent::new(EventKind::KeyFailed, text));
        }
        self.failed(purpose, remote, &refusal.to_string(), now);
    }

    /// An exchange that we began came to nothing.
    pub(super) fn failed(
        &mut self,
        purpose: Option<Purpose>,
        remote: SocketAddr,
        why: &str,
        now: Instant,
    ) {
        let Some(purpose) = purpose else { return };
        let event = match &purpose {
            Purpose::Gateway { gateway, .. } => {
                let text = format!("no session with gateway {gateway}: {why}");
                NewEvent::new(EventKind::KeyFailed, text).gateway(*gateway)
            }
            Purpose::Client(_) => {
                let text = format!("no session with the client at {}: {why}", remote.ip());
                NewEvent::new(EventKind::KeyFailed, text)
            }
        };
        self.note(event);
        let kms = match &mut self.role {
            Role::Client(client) => Some(&mut client.kms),
            Role::Gateway(_) => None,
        };
        if let Some(command) = give_up(&purpose, why, kms, now) {
            self.dataplane.command(command);
        }
    }

    /// Of all sessions with the same peer as this new one only one stays, and is returned: usually
    /// this one. The others only receive any more.
    fn replace_older(&mut self, id: SessionId, now: Instant) -> SessionId {
        let Some(new) = self.table.live.get(&id) else {
            return id;
        };
        // A gateway has a group for each client; a client's few sessions may have changed theirs.
        let mut same_place: Vec<&Live> = match new.spec.gateway {
            Some(gateway) => {
                let live = self.table.live.values();
                live.filter(|other| other.spec.gateway == Some(gateway))
                    .collect()
            }
            None => self.table.of_group(new.group).collect(),
        };
        same_place.retain(|other| !self.dying.contains(other.spec.id));
        let (mut kept, mut losers) = (new, Vec::new());
        for other in same_place {
            let in_use = !other.retired && other.spec.lane == 0;
            let is_older = other.spec.id < id && other.sa != new.sa && in_use;
            if !is_older {
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
        for (at, id) in losers {
            self.dying.insert(at, id);
            // Nothing is sent any more on what goes with it.
            let sa = self.table.live.get(&id).map(|live| live.sa);
            for pair in sa.map(|sa| self.table.all_of(sa)).unwrap_or_default() {
                let live = self.table.live.get(&pair);
                if live.is_some_and(|live| live.spec.lane > 0) {
                    self.dataplane.command(Command::Cease(pair));
                }
            }
        }
        kept
    }

    /// Removes a session everywhere, with all its pairs of SAs. `tell`: the peer is told by a
    /// DELETE.
    pub(super) fn end_session(&mut self, id: SessionId, why: &str, tell: bool) -> Result<()> {
        let now = Instant::now();
        let Some(sa) = self.table.live.get(&id).map(|live| live.sa) else {
            return Ok(());
        };
        // The key management service knows it by the pair that is in use.
        let id = self.table.of_sa(sa).unwrap_or(id);
        if tell || why == "replaced" {
            self.engine.close(now, sa);
        }
        // One that does not answer is asked to go, but may have kept its part.
        if tell && why != GIVEN_UP {
            self.forget_ticket(sa);
        }
        for other in self.table.all_of(sa) {
            if other != id {
                self.remove_pair(other)?;
            }
        }
        let Some(live) = self.remove_pair(id)? else {
            return Ok(());
        };
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
}

impl Node {
    /// Removes one pair of SAs everywhere.
    pub(super) fn remove_pair(&mut self, id: SessionId) -> Result<Option<Live>> {
        self.dying.remove(id);
        self.retired.remove(id);
        let live = self.table.remove(id);
        for change in self
            .answers
            .sadb
            .remove(Producer::Ike, id)
            .unwrap_or_default()
        {
            if let Change::Remove(id) = change {
                self.dataplane.remove_session(id)?;
            }
        }
        self.classify(id)?;
        Ok(live)
    }
}

#[cfg(test)]
#[path = "establish_tests.rs"]
mod tests;
