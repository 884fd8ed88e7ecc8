//! Pairs of SAs on their way to edges and into the repository, and their end.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Authority;
use crate::cluster::repository::Write;
use crate::cluster::wire::{Carrier, Down, Succession};
use crate::cluster::{EdgeId, Kept, Pair, Volumes};
use crate::ike::SaId;
use crate::node::clock::{millis, seconds};
use crate::node::events::{EventKind, NewEvent};
use crate::node::sessions::Live;
use crate::sadb::{Producer, SessionId};

/// A pair that edges have, or may have.
pub(super) struct Shared {
    pub(super) carrier: Carrier,
    pub(super) session: SessionId,
    /// Of this run; none of what an earlier one negotiated.
    pub(super) sa: Option<SaId>,
    /// Where IKE answers that wait for it go.
    pub(super) told: SocketAddr,
    /// The highest inbound number that was reported.
    pub(super) top: u64,
    /// What edges have carried with it.
    pub(super) volumes: Volumes,
}

/// Edges that have only the keys can not tell the upper half of a number: the client is not sent there.
const FAR: u64 = 1 << 31;

impl Shared {
    /// The client's numbers may be moved on.
    pub(super) fn can_skip(&self) -> bool {
        self.carrier.pair.esn && self.top < FAR
    }

    pub(super) fn install(&self) -> Down {
        Down::Install(Box::new(self.carrier.clone()))
    }
}

impl Authority {
    /// Gives a pair to the edges that are to have it, and to the repository. `beside`: the pair whose place it
    /// takes.
    pub(super) fn share(
        &mut self,
        live: &Live,
        inner: Vec<IpAddr>,
        succession: Succession,
        remote: SocketAddr,
        beside: Option<u32>,
        now: Instant,
    ) {
        // What can not be replaced in time ends at twice its age.
        let lifetime = self.config.ike.rekey_child.as_secs().saturating_mul(2) + 60;
        let expires = seconds() + lifetime;
        let class = self
            .answers
            .peer(&live.peer)
            .and_then(|peer| peer.class.clone());
        let made = Pair::of(&live.spec, live.peer.to_string(), inner, class, expires);
        let pair = match made {
            Ok(pair) => pair,
            Err(error) => return tracing::error!("a pair of SAs can not be shared: {error}"),
        };
        let (spi, esn) = (pair.spi(), pair.esn);
        let owner = beside.and_then(|old| self.ledger.owner(old));
        let heard_by = self.heard_by.get(&live.sa).copied();
        self.write(Write::Pair {
            pair: Box::new(pair.clone()),
            kept: Kept::default(),
        });
        let shared = Shared {
            carrier: Carrier {
                stamp: millis(),
                sequence: millis(),
                succession,
                pair,
            },
            session: live.spec.id,
            sa: Some(live.sa),
            told: remote,
            top: 0,
            volumes: Volumes::default(),
        };
        let connected = self.edges.iter().filter(|(_, edge)| edge.from.is_some());
        let to = connected.filter(|(id, edge)| {
            edge.gets_all(self.distribution) || owner.or(heard_by) == Some(**id)
        });
        let to: Vec<EdgeId> = to.map(|(id, _)| *id).collect();
        for edge in &to {
            self.listener.send(*edge, shared.install());
        }
        self.held.wait_for(remote, spi, &to, now);
        self.shared.insert(spi, shared);
        self.ledger.add(spi, esn, None);
        // Nobody else is offered what one that is gone has owned.
        let there = |edge: &EdgeId| self.edges.get(edge).is_some_and(|e| e.from.is_some());
        let next = owner.filter(there).or(heard_by.filter(there));
        if let Some(edge) = next {
            self.ledger.offer(spi, edge);
        }
    }

    /// A pair goes between other addresses: edges and repository are told.
    pub(super) fn share_anew(&mut self, spi: u32) {
        let Some(shared) = self.shared.get_mut(&spi) else {
            return;
        };
        let Some(live) = self.table.live.get(&shared.session) else {
            return;
        };
        let pair = &mut shared.carrier.pair;
        let spec = &live.spec;
        (pair.local, pair.remote) = (spec.outside_local, spec.outside_remote);
        (pair.encap, pair.roams) = (spec.encap, spec.roams);
        shared.carrier.stamp = millis();
        shared.carrier.sequence = millis().max(shared.carrier.sequence + 1);
        let (install, pair) = (shared.install(), shared.carrier.pair.clone());
        self.keep_moved(pair);
        for (edge, known) in &self.edges {
            if known.from.is_some() {
                self.listener.send(*edge, install.clone());
            }
        }
    }

    /// The repository has where a client is now, and its numbers as they were to be kept last.
    fn keep_moved(&mut self, pair: Pair) {
        if let Some(kept) = self.ledger.kept(pair.spi()) {
            let pair = Box::new(pair);
            self.write(Write::Pair { pair, kept });
        }
    }

    /// An edge has heard a client elsewhere. Only the pair's owner can have.
    pub(super) fn moved_says(&mut self, edge: EdgeId, spi: u32, remote: SocketAddr, now: Instant) {
        if self.ledger.owner(spi) != Some(edge) {
            return;
        }
        let Some(session) = self.shared.get(&spi).map(|shared| shared.session) else {
            return;
        };
        if let Some(live) = self.table.live.get(&session) {
            self.engine.peer_moved(now, live.sa, remote);
            self.heard_by.insert(live.sa, edge);
        }
        self.move_pairs(spi, remote, Some(edge));
    }

    /// All pairs of a session are where one of them is.
    fn move_pairs(&mut self, spi: u32, remote: SocketAddr, but: Option<EdgeId>) {
        let Some(shared) = self.shared.get(&spi) else {
            return;
        };
        let pairs = match shared.sa {
            Some(sa) => self.table.all_of(sa),
            None => vec![shared.session],
        };
        for id in pairs {
            self.move_pair(id, remote, but);
        }
    }

    pub(super) fn move_pair(&mut self, id: SessionId, remote: SocketAddr, but: Option<EdgeId>) {
        let changes = match self.answers.sadb.move_peer(Producer::Ike, id, remote) {
            Ok(changes) => changes,
            Err(error) => {
                return tracing::warn!("a client can not be followed to {remote}: {error}");
            }
        };
        for change in changes {
            let crate::sadb::Change::Move(spec) = change else {
                continue;
            };
            let spi = spec.inbound.as_ref().map_or(0, |sa| sa.spi);
            let mut sa = None;
            if let Some(live) = self.table.live.get_mut(&id) {
                live.spec = spec.clone();
                sa = Some(live.sa);
                self.clients.moved(&live.peer, remote);
            }
            if let Some(sa) = sa {
                self.now_at(remote, sa);
            }
            if let Some(shared) = self.shared.get_mut(&spi) {
                shared.carrier.pair.remote = spec.outside_remote;
                shared.carrier.pair.encap = spec.encap;
                shared.carrier.sequence = millis().max(shared.carrier.sequence + 1);
                let pair = shared.carrier.pair.clone();
                self.keep_moved(pair);
            }
            for (edge, known) in &self.edges {
                if known.from.is_some() && Some(*edge) != but {
                    self.listener.send(*edge, Down::Moved { spi, remote });
                }
            }
        }
    }

    /// A pair exists no longer, anywhere.
    pub(super) fn unshare(&mut self, spi: u32) {
        if self.shared.remove(&spi).is_none() {
            return;
        }
        self.ledger.remove(spi);
        for (edge, known) in &self.edges {
            if known.from.is_some() {
                self.listener.send(*edge, Down::Forget { spi });
            }
        }
    }

    /// The client of a pair has a newer session, which another authority has negotiated: this one is over.
    pub(super) fn superseded(&mut self, spi: u32) {
        let Some(shared) = self.shared.get(&spi) else {
            return;
        };
        let (session, sa) = (shared.session, shared.sa);
        let client = shared.carrier.pair.client.clone();
        let why = "its client has come to another authority";
        match sa.and_then(|sa| self.table.of_sa(sa)) {
            Some(current) => self.end_session(current, why, true),
            None => {
                let text = format!("the SAs of {client} have ended: {why}");
                self.note(NewEvent::new(EventKind::SessionDown, text));
                self.forget(session, spi);
            }
        }
    }

    /// A station has come to the network in front of an edge: if it is a client, the edge has its pairs before
    /// its first packet.
    pub(super) fn associated(&mut self, edge: EdgeId, address: IpAddr) {
        for shared in self.shared.values() {
            if shared.carrier.pair.remote == address {
                self.listener.send(edge, shared.install());
            }
        }
    }

    /// Pairs of earlier runs end when their time is over, or when their client has come anew.
    pub(super) fn let_expired_go(&mut self) {
        let now = seconds();
        let over = |shared: &Shared| shared.sa.is_none() && shared.carrier.pair.expires <= now;
        let over = self.shared.iter().filter(|(_, shared)| over(shared));
        let over: Vec<(u32, SessionId)> = over.map(|(spi, s)| (*spi, s.session)).collect();
        for (spi, id) in over {
            let text = format!("the SAs {spi:#010x} of an earlier run have expired");
            self.note(NewEvent::new(EventKind::SessionDown, text));
            self.forget(id, spi);
        }
    }

    /// A client has come anew: what an earlier run negotiated with it is used no more.
    pub(super) fn retire_earlier(&mut self, client: &str, at: Instant) {
        let earlier = self.shared.values();
        let earlier = earlier.filter(|s| s.sa.is_none() && s.carrier.pair.client == client);
        for id in earlier.map(|shared| shared.session).collect::<Vec<_>>() {
            self.retired.insert(at, id);
        }
    }

    pub(super) fn forget(&mut self, id: SessionId, spi: u32) {
        // Nobody else has put it there.
        let _ = self.answers.sadb.remove(Producer::Ike, id);
        self.unshare(spi);
    }
}
