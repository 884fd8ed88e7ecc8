//! What edges say, and what becomes of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Authority;
use super::connectivity::Here;
use super::distribution::Shared;
use crate::cluster::channel::Heard;
use crate::cluster::repository::Write;
use crate::cluster::wire::{Carried, Down, Relayed, Up};
use crate::cluster::{EdgeId, FromEdge, Mark, Order, Run};
use crate::ike::{CookieKeys, Transmit};
use crate::node::config::Distribution;
use crate::node::events::{EventKind, NewEvent};
use crate::node::rekey::with_patience;
use crate::node::sockets::Datagram;

/// So many pairs are told at once, and after such a pause the next ones: an edge takes that many.
const PIECE: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// An edge as its authority knows it.
pub(super) struct Edge {
    /// Of its certificate.
    pub(super) name: String,
    /// Where it connects from, while it does.
    pub(super) from: Option<SocketAddr>,
    /// Of its process, once it has said so.
    pub(super) run: Option<Run>,
    /// It is told of the pairs from this one on, piece by piece.
    pub(super) from_pair: Option<u32>,
    /// It is one of few that get every pair when it is made.
    chosen: bool,
    /// It takes part in the connectivity protocol.
    pub(super) here: Option<Here>,
    /// It gives clients' messages the address that stands for it, and they come by themselves.
    pub(super) translates: bool,
    /// Messages of clients that have come by the channel, and by translation.
    pub(super) relayed: u64,
    pub(super) translated: u64,
}

impl Edge {
    /// Whether it gets every pair when it is made.
    pub(super) fn gets_all(&self, distribution: Distribution) -> bool {
        match distribution {
            Distribution::All => true,
            Distribution::Chosen => self.chosen,
            Distribution::Last => false,
        }
    }

    pub(super) fn new(name: String, chosen: bool) -> Self {
        Self {
            name,
            chosen,
            from: None,
            run: None,
            from_pair: None,
            here: None,
            translates: false,
            relayed: 0,
            translated: 0,
        }
    }
}

fn cookies(keys: &CookieKeys) -> Down {
    Down::Cookies {
        current: keys.current.clone(),
        before: keys.before.clone(),
    }
}

impl Authority {
    /// Takes note of what came by the channel. IKE is given back: much of it may have come at once.
    pub(super) fn on_message(&mut self, heard: Heard) -> Option<Datagram> {
        match heard {
            Heard::Connected { edge, from } => self.connected(edge, from),
            Heard::Ended { edge, parting, why } => {
                // The clock is read after the end was.
                let now = Instant::now();
                let known = self.edges.get_mut(&edge)?;
                (known.from, known.from_pair) = (None, None);
                known.translates = false;
                let text = format!("{} ({edge}) is gone: {why}", known.name);
                if let Some(run) = known.run.take() {
                    self.ledger.gone(edge, run, parting, now);
                }
                self.held.gone(edge);
                self.takes_part_no_more(edge);
                self.note(NewEvent::new(EventKind::EdgeDown, text));
            }
            Heard::Refused { from, why } => {
                let text = format!("somebody at {from} is no edge: {why}");
                self.note(NewEvent::new(EventKind::EdgeRefused, text));
            }
            Heard::Testimony { edge, run, reached } => {
                self.ledger.testified(edge, run, &reached);
                let name = self.edges.get(&edge).map_or("", |known| &known.name);
                let text = format!(
                    "{name} ({edge}) has died with {} pairs, and its notary says how far it came",
                    reached.len()
                );
                self.note(NewEvent::new(EventKind::EdgeDown, text));
            }
            Heard::Message { edge, message } => return self.on_up(edge, message),
        }
        None
    }

    fn connected(&mut self, edge: EdgeId, from: SocketAddr) {
        self.takes_part_no_more(edge);
        let Some(known) = self.edges.get_mut(&edge) else {
            return;
        };
        let everything = known.gets_all(self.distribution);
        known.from = Some(from);
        known.from_pair = everything.then_some(0);
        let text = format!("{} ({edge}) has connected from {from}", known.name);
        if let Some(keys) = &self.cookies {
            self.listener.send(edge, cookies(keys));
        }
        self.note(NewEvent::new(EventKind::EdgeUp, text));
    }

    /// Edges know what cookies are made with, so that their guards can ask for them.
    pub(super) fn tell_cookies(&mut self, now: Instant) {
        let keys = self.engine.cookie_keys(now);
        if self.cookies.as_ref() == Some(&keys) {
            return;
        }
        for (edge, known) in &self.edges {
            if known.from.is_some() {
                self.listener.send(*edge, cookies(&keys));
            }
        }
        self.cookies = Some(keys);
    }

    /// Tells edges that have connected what they are to have, piece by piece: their queues are not endless.
    pub(super) fn go_on_telling(&mut self, now: Instant) {
        if self.tell_at.is_some_and(|at| now < at) {
            return;
        }
        self.tell_at = None;
        for (edge, known) in &mut self.edges {
            let Some(from) = known.from_pair else {
                continue;
            };
            let mut some = self.shared.range(from..);
            for (_, shared) in some.by_ref().take(PIECE) {
                self.listener.send(*edge, shared.install());
            }
            known.from_pair = some.next().map(|(spi, _)| *spi);
            match known.from_pair {
                Some(_) => self.tell_at = Some(now + PAUSE),
                None => self.listener.send(*edge, Down::Complete),
            }
        }
    }

    fn on_up(&mut self, edge: EdgeId, message: Up) -> Option<Datagram> {
        let now = Instant::now();
        match message {
            // The channel has seen to it.
            Up::Greeting { .. } | Up::Testimony { .. } => {}
            Up::Ike(relayed) => {
                self.answer_by(edge, false);
                return self.heard_from_client(edge, relayed);
            }
            Up::Here { at, messages } => self.takes_part(edge, at, messages),
            Up::Fetched { spi, sequence } => self.fetched(edge, spi, sequence),
            Up::Numbers(numbers) => self.on_numbers(edge, numbers, now),
            Up::Installed { spi } => self.confirmed(edge, spi),
            Up::NotInstalled { spi, why } => {
                tracing::warn!("{edge} can not use the pair {spi:#010x}: {why}");
                self.confirmed(edge, spi);
            }
            Up::Query { spi } => {
                let answer = match self.shared.get(&spi) {
                    Some(shared) => shared.install(),
                    None => Down::Unknown { spi },
                };
                self.listener.send(edge, answer);
            }
            Up::Moved { spi, remote } => self.moved_says(edge, spi, remote, now),
            Up::Superseded { spi } => self.superseded(spi),
            Up::Translates { to } => self.translates(edge, to),
            Up::Associated { address } => self.associated(edge, address),
            Up::Carried { pairs } => self.carried(edge, &pairs, now),
        }
        None
    }

    /// An edge has an IKE message of a client.
    pub(super) fn heard_from_client(&mut self, edge: EdgeId, relayed: Relayed) -> Option<Datagram> {
        let Relayed {
            local,
            remote,
            data,
        } = relayed;
        // What has another address of ours was not sent to the edges together.
        if local.ip() != self.address {
            return None;
        }
        self.batch.insert(remote, edge);
        if let Some(known) = self.edges.get_mut(&edge) {
            known.relayed += 1;
        }
        Some(Datagram {
            local,
            remote,
            data,
            esp: false,
        })
    }

    fn on_numbers(&mut self, edge: EdgeId, numbers: FromEdge, now: Instant) {
        match numbers {
            FromEdge::Hello { run, notary, held } => {
                if let Some(known) = self.edges.get_mut(&edge) {
                    known.run = Some(run);
                }
                self.came_so_far(edge, &held, now);
                self.ledger.hello(edge, run, &held);
                if notary {
                    self.ledger.has_notary(edge);
                }
            }
            FromEdge::Report(report) => {
                self.came_so_far(edge, &report.marks, now);
                self.ledger.report(edge, &report, now);
            }
            FromEdge::Claim(claim) => {
                self.ledger.claim(edge, claim, now);
                if let Some(sa) = self.shared.get(&claim.spi).and_then(|shared| shared.sa) {
                    self.heard_by.insert(sa, edge);
                }
            }
            FromEdge::Yielded(yielded) => self.ledger.yielded(edge, &yielded),
            FromEdge::Leaving => self.ledger.leaving(edge),
        }
    }

    /// Who sends lives; and what has protected enough gets fresh keys.
    fn came_so_far(&mut self, edge: EdgeId, marks: &[Mark], now: Instant) {
        let most = self.config.ike.rekey_packets;
        for mark in marks {
            let Some(shared) = self.shared.get_mut(&mark.spi) else {
                continue;
            };
            let news = mark.top > shared.top;
            shared.top = shared.top.max(mark.top);
            let Some(live) = self.table.live.get_mut(&shared.session) else {
                continue;
            };
            if news {
                live.alive = now;
                self.heard_by.insert(live.sa, edge);
            }
            if mark.top.max(mark.sent) >= most && !live.retired {
                self.engine.rekey_child(now, live.sa, mark.spi);
            }
        }
    }

    /// What has carried enough bytes, on all edges together, gets fresh keys too.
    fn carried(&mut self, edge: EdgeId, pairs: &[Carried], now: Instant) {
        let Some(run) = self.edges.get(&edge).and_then(|known| known.run) else {
            return;
        };
        let most = self.config.ike.rekey_bytes;
        for Carried { spi, volume } in pairs {
            let Some(shared) = self.shared.get_mut(spi) else {
                continue;
            };
            shared.volumes.told(edge, run, *volume);
            let live = self.table.live.get(&shared.session);
            let Some(live) = live.filter(|live| !live.retired) else {
                continue;
            };
            if shared.volumes.most() >= with_patience(most, live.spec.initiator) {
                self.engine.rekey_child(now, live.sa, *spi);
            }
        }
    }

    fn confirmed(&mut self, edge: EdgeId, spi: u32) {
        if let Some(shared) = self.shared.get(&spi) {
            self.held.confirmed(shared.told, spi, edge);
        }
    }

    /// Sends what the ledger wants to be said and kept.
    pub(super) fn carry_out(&mut self, order: Order) {
        match order {
            Order::Send { edge, message } => self.listener.send(edge, Down::Numbers(message)),
            Order::Store { spi, kept } => {
                let number = self.write_soon(Write::Kept { spi, kept });
                self.storing.insert(number, (spi, kept));
            }
            Order::Erase { spi } => {
                self.write_soon(Write::Erase { spi });
            }
            Order::Rekey { spi, lost } => {
                let shared = self.shared.get(&spi);
                let session = shared.map(|shared| shared.session);
                if let Some(shared) = shared.filter(|s| lost > 0 && s.sa.is_none()) {
                    // Nobody can give it fresh keys. Without it its client finds out, and comes anew.
                    let text = format!(
                        "the SAs of {} are given up: their edge is gone, and the authority that negotiated them",
                        shared.carrier.pair.client
                    );
                    let session = shared.session;
                    self.note(NewEvent::new(EventKind::SessionDown, text));
                    return self.forget(session, spi);
                }
                let live = session.and_then(|session| self.table.live.get(&session));
                if let Some(live) = live.filter(|live| !live.retired) {
                    let (sa, now) = (live.sa, Instant::now());
                    // Beyond all that may have been accepted, if the client knows how to get there.
                    let skips = lost > 0 && shared.is_some_and(Shared::can_skip);
                    if !(skips && self.engine.ask_ahead(now, sa, lost.saturating_add(1))) {
                        self.engine.rekey_child(now, sa, spi);
                    }
                }
            }
        }
    }

    /// Sends an IKE message by the edge that its peer was heard by last.
    pub(super) fn transmit(&mut self, transmit: Transmit) {
        let remote = transmit.remote;
        let session = self.at.get(&remote);
        let known = session.and_then(|sa| self.heard_by.get(sa)).copied();
        let connected = |edge: &EdgeId| self.edges.get(edge).is_some_and(|e| e.from.is_some());
        let by_now = self.batch.get(&remote).copied().or(known).filter(connected);
        // An edge that is gone: any other one has the same address.
        let any = || self.edges.keys().copied().find(|edge| connected(edge));
        let Some(edge) = by_now.or_else(any) else {
            return;
        };
        if let Some(transmit) = self.held.hold(edge, transmit) {
            self.relay(edge, transmit);
        }
    }

    fn relay(&mut self, edge: EdgeId, transmit: Transmit) {
        if self.edges.get(&edge).is_some_and(|edge| edge.translates) {
            return self.stand_ins.send(edge, transmit);
        }
        let Transmit {
            local,
            remote,
            data,
        } = transmit;
        let relayed = Relayed {
            local,
            remote,
            data,
        };
        if let Err(relayed) = self.relay_by_message(edge, relayed) {
            self.listener.send(edge, Down::Ike(relayed));
        }
    }

    /// Sends what need not wait any more.
    pub(super) fn release(&mut self, now: Instant) {
        let (messages, late) = self.held.release(now);
        for edge in late {
            tracing::warn!(
                "{edge} has not confirmed an SA in time: its client is answered all the same"
            );
        }
        for (edge, transmit) in messages {
            self.relay(edge, transmit);
        }
    }
}
