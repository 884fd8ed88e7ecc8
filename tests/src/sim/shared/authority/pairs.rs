//! Pairs of SAs: from the negotiation to the edges and into the repository, and their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evergate::cluster::repository::{Stored, Write};
use evergate::cluster::wire::{Carrier, Down, Succession};
use evergate::cluster::{EdgeId, Kept, Pair};
use evergate::ike::{Event, Outbound, SaId};
use evergate::sadb::{Change, Path, Producer, SessionId, SessionSpec};

use super::super::super::nat::encapsulation;
use super::super::super::session::spec_of;
use super::super::super::table::AFTERLIFE;
use super::super::SHARED;
use super::{Authority, Live, Step, id};

/// A pair that edges have, or may have.
pub(super) struct Shared {
    pub(super) carrier: Carrier,
    pub(super) session: SessionId,
    /// Of this run; none of what an earlier one negotiated.
    pub(super) sa: Option<SaId>,
    pub(super) told: SocketAddr,
    pub(super) top: u64,
}

impl Shared {
    pub(super) fn install(&self) -> Down {
        Down::Install(Box::new(self.carrier.clone()))
    }
}

fn spi_of(spec: &SessionSpec) -> u32 {
    spec.inbound.as_ref().map_or(0, |sa| sa.spi)
}

impl Authority {
    /// A pair that an earlier run negotiated: edges may go on with it until it expires.
    pub(super) fn restore(&mut self, stored: Stored) {
        let Stored { pair, kept } = stored;
        let (spi, esn) = (pair.spi(), pair.esn);
        let Ok(spec) = pair.session() else { return };
        for change in self.owner.sadb.insert(spec).unwrap_or_default() {
            let Change::Add(spec) = change else { continue };
            let shared = Shared {
                told: spec.peer_at(),
                session: spec.id,
                sa: None,
                top: 0,
                carrier: Carrier {
                    stamp: 0,
                    sequence: 0,
                    succession: Succession::First,
                    pair: pair.clone(),
                },
            };
            self.shared.insert(spi, shared);
        }
        self.ledger.add(spi, esn, Some(kept));
    }

    pub(super) fn established(&mut self, event: Event, step: &mut Step<'_>) {
        let Event::Established {
            id: sa,
            local,
            remote,
            peer,
            nat,
            child,
            ..
        } = event
        else {
            return;
        };
        let now = step.now;
        let client = peer.to_string();
        let ends = [SHARED, remote.ip()];
        let encap = encapsulation(nat, local, remote);
        let mut spec = spec_of(ends, None, &child, encap);
        spec.peer = client.clone().into();
        let changes = match self.owner.sadb.insert(spec) {
            Ok(changes) => changes,
            Err(error) => {
                step.watch.holds(false, &format!("no session: {error}"));
                return self.engine.close(now, sa);
            }
        };
        if let Some(edge) = self.batch.get(&remote) {
            self.heard_by.insert(sa, *edge);
        }
        self.now_at(remote, sa);
        for change in changes {
            let Change::Add(spec) = change else { continue };
            let new = spec.id;
            let live = Live {
                sa,
                client: client.clone(),
                spec,
                retired: false,
                redundant: false,
                alive: now,
                asked: now,
            };
            self.enter(live.clone());
            self.share(&live, Succession::First, remote, None, step);
            let older = self
                .live
                .iter()
                .filter(|(_, other)| other.client == client && other.sa != sa && !other.retired);
            for older in older.map(|(id, _)| *id).collect::<Vec<_>>() {
                if older != new {
                    self.let_die(older, now);
                }
            }
            let earlier = self.shared.values();
            let earlier = earlier.filter(|s| s.sa.is_none() && s.carrier.pair.client == client);
            for id in earlier.map(|shared| shared.session).collect::<Vec<_>>() {
                if !self.retired.iter().any(|(_, retired)| *retired == id) {
                    self.retired.push((now + AFTERLIFE, id));
                }
            }
        }
    }

    fn enter(&mut self, live: Live) {
        let new = live.spec.id;
        if !live.retired
            && let Some(old) = self.by_sa.insert(live.sa, new)
            && let Some(old) = self.live.get_mut(&old)
        {
            old.retired = true;
        }
        self.live.insert(new, live);
    }

    /// A new pair of SAs for a session that is there.
    pub(super) fn succeeded(&mut self, event: Event, step: &mut Step<'_>) {
        let (Event::ChildRekeyed {
            id: sa,
            child,
            outbound,
            ..
        }
        | Event::ChildAdded {
            id: sa,
            child,
            outbound,
            ..
        }) = event
        else {
            return;
        };
        let now = step.now;
        let current = self.by_sa.get(&sa).and_then(|id| self.live.get(id));
        let Some(mut live) = current.cloned() else {
            // A session that is not wanted any more: its end is on its way.
            return self.owner.sadb.release_spi(child.spi_in);
        };
        let (old, before) = (live.spec.id, live.spec.clone());
        let beside = spi_of(&before);
        let ends = [before.outside_local, before.outside_remote];
        let mut spec = spec_of(ends, None, &child, before.encap);
        (spec.peer, spec.roams) = (before.peer.clone(), before.roams);
        let changes = match self.owner.sadb.insert(spec) {
            Ok(changes) => changes,
            Err(error) => {
                step.watch.holds(false, &format!("no fresh keys: {error}"));
                return;
            }
        };
        let told = self.places.get(&sa).copied().unwrap_or(before.peer_at());
        for change in changes {
            let Change::Add(spec) = change else { continue };
            let new = spec.id;
            live.spec = spec;
            (live.alive, live.asked) = (now, now);
            live.redundant = outbound == Outbound::Never;
            live.retired = live.redundant;
            self.enter(live.clone());
            let succession = match outbound {
                Outbound::AtOnce => Succession::AtOnce,
                Outbound::WhenHeard => Succession::WhenHeard,
                Outbound::Never => Succession::Never,
            };
            self.share(&live, succession, told, Some(beside), step);
            for (_, dying) in self.dying.iter_mut().filter(|(_, dying)| *dying == old) {
                *dying = new;
            }
        }
    }

    /// A pair of SAs is closed on both sides.
    pub(super) fn child_closed(&mut self, sa: SaId, spi_in: u32, step: &mut Step<'_>) {
        let Some(shared) = self.shared.get(&spi_in).filter(|s| s.sa == Some(sa)) else {
            return;
        };
        let session = shared.session;
        let current = self.by_sa.get(&sa).copied();
        if !self.engine.is_established(sa) && current == Some(session) {
            return self.end_session(session, false, step);
        }
        let Some(live) = self.live.get(&session) else {
            return;
        };
        let current = current.filter(|current| *current != session && !live.redundant);
        let next = current.and_then(|current| self.live.get(&current));
        if let Some(spi) = next.map(|next| spi_of(&next.spec)) {
            self.tell_all(&Down::SendOn { spi });
            if let Some(shared) = self.shared.get_mut(&spi) {
                shared.carrier.succession = Succession::AtOnce;
                shared.carrier.sequence += 1;
            }
        }
        // What is in flight still comes.
        if !self.retired.iter().any(|(_, retired)| *retired == session) {
            self.retired.push((step.now + AFTERLIFE, session));
        }
    }

    /// Gives a pair to the edges that are to have it, and to the repository.
    fn share(
        &mut self,
        live: &Live,
        succession: Succession,
        remote: SocketAddr,
        beside: Option<u32>,
        step: &mut Step<'_>,
    ) {
        let child = self
            .rekeying
            .map_or(3600, |rekeying| rekeying.child.as_secs());
        let expires = step.unix + 2 * child + 60;
        let inner = Self::inner_of(&live.client).into_iter().collect();
        let pair = match Pair::of(&live.spec, live.client.clone(), inner, None, expires) {
            Ok(pair) => pair,
            Err(error) => return step.watch.holds(false, &error.to_string()),
        };
        let (spi, esn) = (pair.spi(), pair.esn);
        step.keys.learn(&pair, step.watch);
        let owner = beside.and_then(|old| self.ledger.owner(old));
        let heard_by = self.heard_by.get(&live.sa).copied();
        self.write(Write::Pair {
            pair: Box::new(pair.clone()),
            kept: Kept::default(),
        });
        let shared = Shared {
            carrier: Carrier {
                stamp: step.millis(),
                sequence: step.millis(),
                succession,
                pair,
            },
            session: live.spec.id,
            sa: Some(live.sa),
            told: remote,
            top: 0,
        };
        let connected = (0..self.edges.len()).filter(|edge| self.edges[*edge].connected);
        let connected = connected.map(id);
        let to: Vec<EdgeId> = match self.everywhere {
            true => connected.collect(),
            false => connected
                .filter(|edge| owner.or(heard_by) == Some(*edge))
                .collect(),
        };
        for edge in &to {
            self.tell(usize::from(edge.0), shared.install());
        }
        self.held.wait_for(remote, spi, &to, step.now);
        self.shared.insert(spi, shared);
        self.ledger.add(spi, esn, None);
        let there = |edge: &EdgeId| self.edges[usize::from(edge.0)].connected;
        let next = owner.filter(there).or(heard_by.filter(there));
        if let Some(edge) = next {
            self.ledger.offer(spi, edge);
        }
    }

    pub(super) fn relocated(&mut self, sa: SaId, path: &Path, step: &mut Step<'_>) {
        for pair in self.all_of(sa) {
            let changes = self.owner.sadb.relocate(Producer::Ike, pair, path);
            for change in changes.unwrap_or_default() {
                let Change::Move(spec) = change else { continue };
                let spi = spi_of(&spec);
                if let Some(live) = self.live.get_mut(&pair) {
                    live.spec = spec;
                }
                self.share_anew(spi, step);
            }
        }
    }

    /// A pair goes between other addresses: edges and repository are told.
    fn share_anew(&mut self, spi: u32, step: &mut Step<'_>) {
        let Some(shared) = self.shared.get_mut(&spi) else {
            return;
        };
        let Some(live) = self.live.get(&shared.session) else {
            return;
        };
        let (pair, spec) = (&mut shared.carrier.pair, &live.spec);
        (pair.local, pair.remote) = (spec.outside_local, spec.outside_remote);
        (pair.encap, pair.roams) = (spec.encap, spec.roams);
        shared.carrier.stamp = step.millis();
        shared.carrier.sequence = step.millis().max(shared.carrier.sequence + 1);
        let (install, pair) = (shared.install(), shared.carrier.pair.clone());
        self.keep_moved(pair);
        self.tell_all(&install);
    }

    fn keep_moved(&mut self, pair: Pair) {
        if let Some(kept) = self.ledger.kept(pair.spi()) {
            let pair = Box::new(pair);
            self.write(Write::Pair { pair, kept });
        }
    }

    pub(super) fn move_pair(
        &mut self,
        pair: SessionId,
        remote: SocketAddr,
        but: Option<usize>,
        step: &mut Step<'_>,
    ) {
        let changes = self.owner.sadb.move_peer(Producer::Ike, pair, remote);
        for change in changes.unwrap_or_default() {
            let Change::Move(spec) = change else { continue };
            let spi = spi_of(&spec);
            let mut sa = None;
            if let Some(live) = self.live.get_mut(&pair) {
                live.spec = Arc::clone(&spec);
                sa = Some(live.sa);
            }
            if let Some(sa) = sa {
                self.now_at(remote, sa);
            }
            if let Some(shared) = self.shared.get_mut(&spi) {
                shared.carrier.pair.remote = spec.outside_remote;
                shared.carrier.pair.encap = spec.encap;
                shared.carrier.sequence = step.millis().max(shared.carrier.sequence + 1);
                let pair = shared.carrier.pair.clone();
                self.keep_moved(pair);
            }
            for edge in (0..self.edges.len()).filter(|edge| Some(*edge) != but) {
                self.tell(edge, Down::Moved { spi, remote });
            }
        }
    }

    pub(super) fn let_expired_go(&mut self, step: &mut Step<'_>) {
        let over =
            |shared: &Shared| shared.sa.is_none() && shared.carrier.pair.expires <= step.unix;
        let over = self.shared.iter().filter(|(_, shared)| over(shared));
        let over: Vec<(u32, SessionId)> = over.map(|(spi, s)| (*spi, s.session)).collect();
        over.into_iter().for_each(|(spi, id)| self.forget(id, spi));
    }

    /// Removes a session everywhere, with all its pairs of SAs.
    pub(super) fn end_session(&mut self, session: SessionId, tell: bool, step: &mut Step<'_>) {
        let Some(sa) = self.live.get(&session).map(|live| live.sa) else {
            return;
        };
        if tell {
            self.engine.close(step.now, sa);
        }
        self.all_of(sa)
            .into_iter()
            .for_each(|id| self.remove_pair(id));
        self.forget_place(sa);
    }

    pub(super) fn remove_pair(&mut self, pair: SessionId) {
        let other = |entry: &(Instant, SessionId)| entry.1 != pair;
        self.dying.retain(other);
        self.retired.retain(other);
        if let Some(live) = self.live.remove(&pair)
            && self.by_sa.get(&live.sa) == Some(&pair)
        {
            self.by_sa.remove(&live.sa);
        }
        let spi = self.owner.sadb.get(pair).map(|spec| spi_of(spec));
        if let Some(spi) = spi {
            self.forget(pair, spi);
        }
    }

    pub(super) fn forget(&mut self, pair: SessionId, spi: u32) {
        let _ = self.owner.sadb.remove(Producer::Ike, pair);
        if self.shared.remove(&spi).is_some() {
            self.ledger.remove(spi);
            self.tell_all(&Down::Forget { spi });
        }
    }
}
