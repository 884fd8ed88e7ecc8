//! A gateway that is an edge: it shares its outside address with others, carries the IKE messages of
//! clients to an authority and back, and uses the SAs that the authority negotiates, as far as it is told.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use futures_util::FutureExt;
use rand::Rng as _;
use rustc_hash::FxBuildHasher;

use super::core::Node;
use super::events::{EventKind, NewEvent};
use super::life::Worry;
use super::sessions::Live;
use super::sockets::Datagram;
use crate::api::model;
use crate::cluster::channel::{News, Uplink};
use crate::cluster::wire::{Carrier, Down, Relayed, Succession, Up};
use crate::cluster::{self, Act, Claim, Run, Terms};
use crate::dataplane::net::icmp::RateLimit;
use crate::dataplane::{Command, Lease, Sending, WorkerEvent};
use crate::ike::{Identity, Rank, SaId, Transmit};
use crate::sadb::{Change, Path, SessionId};

use super::roaming::Witness;

/// Messages of the channel that are taken at once.
const BATCH: usize = 256;

/// Workers may take so long to say where they stopped, when the node ends.
const PARTING: Duration = Duration::from_millis(300);

/// IKE messages that an edge relays in a second, and at once: those that begin an exchange with nobody, which
/// anybody can send, and all others. More would keep the channel from what matters more.
const FIRST: (u32, u32) = (5_000, 1_000);
const OTHERS: (u32, u32) = (20_000, 4_000);

/// An edge's own.
pub(super) struct Edge {
    /// Which numbers may be used here.
    core: cluster::Edge,
    /// The authority that it is connected to.
    authority: Option<SocketAddr>,
    /// By inbound SPI.
    pairs: HashMap<u32, Known>,
    /// Of the packet filter, by client.
    classes: HashMap<Identity, String>,
    /// New ones that the authority waits for.
    unconfirmed: Vec<u32>,
    first: RateLimit,
    others: RateLimit,
    /// Messages that were not relayed since that was told last.
    refused: u64,
}

/// A pair that this edge has.
struct Known {
    session: SessionId,
    /// Of the carrier that brought it.
    sequence: u64,
    /// Seconds since 1970.
    expires: u64,
    /// The authority has not spoken of it since it was connected to.
    stale: bool,
}

impl Edge {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            core: cluster::Edge::new(Terms::default(), Run(rand::rng().next_u64())),
            authority: None,
            pairs: HashMap::new(),
            classes: HashMap::new(),
            unconfirmed: Vec::new(),
            first: RateLimit::new(FIRST.0, FIRST.1, now),
            others: RateLimit::new(OTHERS.0, OTHERS.1, now),
            refused: 0,
        }
    }

    /// Whether an IKE message may go to the authority now.
    fn may_relay(&mut self, message: &[u8], now: Instant) -> bool {
        // The responder's SPI, which the first message of an IKE SA does not have (RFC 7296 section 3.1).
        let limit = match message.get(8..16) {
            Some([0, 0, 0, 0, 0, 0, 0, 0]) => &mut self.first,
            Some(_) => &mut self.others,
            None => return false,
        };
        let allowed = limit.allow(now);
        self.refused += u64::from(!allowed);
        allowed
    }

    /// The class of the packet filter that a client has.
    pub(super) fn class_of(&self, client: &Identity) -> Option<String> {
        self.classes.get(client).cloned()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    /// Pairs that may be used here.
    pub(super) fn owned(&self) -> usize {
        self.core.owned()
    }

    /// Gives everything back, or takes pairs again.
    pub(super) fn give_back(&mut self, undo: bool) {
        match undo {
            true => self.core.take_again(),
            false => self.core.give_back(),
        }
    }
}

fn uplink(uplink: &mut Option<Uplink>, message: Up) -> bool {
    uplink.as_mut().is_some_and(|uplink| uplink.send(message))
}

impl Node {
    pub(super) fn authority_view(&self) -> Option<model::Authority> {
        let edge = self.edge.as_ref()?;
        Some(model::Authority {
            at: edge.authority,
            pairs: edge.pairs.len() as u64,
            owned: edge.owned() as u64,
        })
    }

    /// IKE is the authority's. What can not be told it is lost, and will be repeated.
    pub(super) fn relay(&mut self, datagrams: Vec<Datagram>) {
        let now = Instant::now();
        for datagram in datagrams {
            let edge = self.edge.as_mut();
            if edge.is_some_and(|edge| !edge.may_relay(&datagram.data, now)) {
                continue;
            }
            let relayed = Relayed {
                local: datagram.local,
                remote: datagram.remote,
                data: datagram.data,
            };
            uplink(&mut self.inputs.uplink, Up::Ike(relayed));
        }
    }

    /// The channel has something, and mostly more: that new pairs can be received on is waited for once.
    pub(super) async fn on_all_news(&mut self, first: News) -> Result<()> {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(news) = next.take() else { break };
            self.on_news(news).await?;
            let more = self.inputs.uplink.as_mut().map(|uplink| uplink.next());
            next = more.and_then(FutureExt::now_or_never);
        }
        // What was taken out must not be lost.
        match next {
            Some(news) => self.on_news(news).await,
            None => Ok(()),
        }
    }

    /// The channel has something.
    pub(super) async fn on_news(&mut self, news: News) -> Result<()> {
        let now = Instant::now();
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        match news {
            News::Connected { authority } => {
                edge.authority = Some(authority);
                edge.core.connected(now);
                for known in edge.pairs.values_mut() {
                    known.stale = true;
                }
                let text = format!("connected to the authority at {authority}");
                self.note(NewEvent::new(EventKind::EdgeUp, text));
            }
            News::Ended { why } => {
                edge.authority = None;
                edge.core.disconnected();
                let text = format!("no authority any more, traffic goes on as it is: {why}");
                self.note(NewEvent::new(EventKind::EdgeDown, text));
            }
            News::Failed { authority, why } => {
                let text = format!("the authority at {authority} can not be reached: {why}");
                self.note(NewEvent::new(EventKind::EdgeRefused, text));
            }
            News::Message(message) => self.on_down(*message, now).await?,
        }
        Ok(())
    }

    async fn on_down(&mut self, message: Down, now: Instant) -> Result<()> {
        match message {
            // The channel has seen to it. Who does not know a pair can not be asked for it.
            Down::Greeting { .. } | Down::Unknown { .. } => {}
            Down::Leaving => {
                if let Some(edge) = &mut self.edge {
                    edge.core.abandoned();
                }
            }
            Down::Numbers(numbers) => {
                if let Some(edge) = &mut self.edge {
                    edge.core.hear(numbers, now);
                }
            }
            Down::Ike(Relayed {
                local,
                remote,
                data,
            }) => {
                let transmit = Transmit {
                    local,
                    remote,
                    data,
                };
                // Its pair must be received on before the client learns of it.
                self.dataplane.let_all_in().await?;
                if let Err(error) = self.sockets.send(&transmit).await {
                    tracing::debug!("IKE to {remote}: {error}");
                }
            }
            Down::Install(carrier) => self.take_pair(*carrier, now).await?,
            Down::Forget { spi } => self.drop_pair(spi)?,
            Down::Complete => self.drop_pairs(|known| known.stale)?,
            Down::Moved { spi, remote } => {
                if let Some(id) = self.pair(spi) {
                    self.peer_moved(id, remote, Witness::Ike)?;
                }
            }
            Down::SendOn { spi } => {
                if let Some(id) = self.pair(spi) {
                    self.dataplane.send_on(id);
                }
            }
        }
        Ok(())
    }

    /// Forgets a pair, of which the authority may think that it is used here.
    fn drop_pair(&mut self, spi: u32) -> Result<()> {
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        edge.core.forgotten(spi);
        match edge.pairs.remove(&spi) {
            Some(known) => self.remove_pair(known.session).map(drop),
            None => Ok(()),
        }
    }

    /// Forgets all pairs that are like that.
    fn drop_pairs(&mut self, which: impl Fn(&Known) -> bool) -> Result<()> {
        let pairs = self.edge.iter().flat_map(|edge| &edge.pairs);
        let over = pairs.filter(|(_, known)| which(known));
        let over: Vec<u32> = over.map(|(spi, _)| *spi).collect();
        over.into_iter().try_for_each(|spi| self.drop_pair(spi))
    }

    fn pair(&self, spi: u32) -> Option<SessionId> {
        let known = self.edge.as_ref()?.pairs.get(&spi)?;
        Some(known.session)
    }

    /// A pair has come: it is installed, or brought up to date.
    async fn take_pair(&mut self, carrier: Carrier, now: Instant) -> Result<()> {
        let spi = carrier.pair.spi();
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        if let Some(known) = edge.pairs.get_mut(&spi) {
            // Of several the most current one counts.
            let news = carrier.sequence > known.sequence;
            known.sequence = known.sequence.max(carrier.sequence);
            known.stale = false;
            let id = known.session;
            edge.unconfirmed.push(spi);
            if news {
                if carrier.succession == Succession::AtOnce {
                    self.dataplane.send_on(id);
                }
                let path = Path {
                    local: carrier.pair.local,
                    remote: carrier.pair.remote,
                    encap: carrier.pair.encap,
                    roams: carrier.pair.roams,
                };
                self.relocate_pair(id, &path)?;
            }
            return Ok(());
        }
        if let Err(why) = self.install_pair(carrier, now).await? {
            tracing::warn!("the pair {spi:#010x} can not be used here: {why}");
            uplink(&mut self.inputs.uplink, Up::NotInstalled { spi, why });
        }
        Ok(())
    }

    async fn install_pair(&mut self, carrier: Carrier, now: Instant) -> Result<Result<(), String>> {
        let pair = &carrier.pair;
        let spi = pair.spi();
        let client: Identity = match pair.client.parse() {
            Ok(client) => client,
            Err(_) => return Ok(Err(format!("`{}` is no identity", pair.client))),
        };
        let spec = match pair.session() {
            Ok(spec) => spec,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let peer_at = spec.peer_at();
        let group = match self.know_client(&client, &pair.inner, Some(peer_at)) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let beside = self.table.of_group(group).next().is_some();
        let changes = match self.answers.sadb.insert(spec) {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let id = spec.id;
            self.table.insert(Live {
                // Only what is shown hangs on it: the pair in use of each client.
                sa: SaId(FxBuildHasher.hash_one((&pair.client, pair.lane))),
                peer: client.clone(),
                spec: Arc::clone(&spec),
                group,
                rank: Rank::new(&[Vec::new(), Vec::new()]),
                since: now,
                retired: false,
                redundant: false,
                alive: now,
                asked: now,
                resumed: false,
                reauth_at: None,
                lanes_at: None,
                worry: Worry::default(),
            });
            let sending = match carrier.succession {
                Succession::First => None,
                Succession::AtOnce => Some(Sending::AtOnce),
                Succession::WhenHeard => Some(Sending::WhenHeard),
                Succession::Never => Some(Sending::Told),
            };
            // What takes nobody's place here need not wait for it.
            let sending = sending.filter(|_| beside);
            self.carry(spec, group, sending, false).await?;
            if let (Some(edge), Some(class)) = (&mut self.edge, &pair.class) {
                edge.classes.insert(client.clone(), class.clone());
            }
            self.classify(id)?;
            if let Some(edge) = &mut self.edge {
                let known = Known {
                    session: id,
                    sequence: carrier.sequence,
                    expires: pair.expires,
                    stale: false,
                };
                edge.pairs.insert(spi, known);
                edge.unconfirmed.push(spi);
            }
        }
        Ok(Ok(()))
    }

    /// Does what the numbers' core wants to be done, and says which pairs can be received on: to be called
    /// when they can. Says whether there was anything.
    pub(super) fn pump_edge(&mut self) -> Result<bool> {
        let Some(edge) = &mut self.edge else {
            return Ok(false);
        };
        let (mut worked, mut over) = (false, Vec::new());
        for spi in std::mem::take(&mut edge.unconfirmed) {
            worked = true;
            uplink(&mut self.inputs.uplink, Up::Installed { spi });
        }
        while let Some(act) = edge.core.act() {
            worked = true;
            let lease = match act {
                Act::Send(message) => {
                    uplink(&mut self.inputs.uplink, Up::Numbers(message));
                    continue;
                }
                Act::Take { spi, grant, .. } if !edge.pairs.contains_key(&spi) => {
                    // It could not be installed: nothing of it was used.
                    let (term, sent) = (grant.limits.term, grant.first.saturating_sub(1));
                    edge.core
                        .stopped(spi, term, grant.floor, grant.missing, sent);
                    continue;
                }
                Act::Take {
                    spi,
                    grant,
                    inbound,
                } => Lease::Take {
                    spi,
                    floor: grant.floor,
                    missing: grant.missing,
                    inbound,
                    first: grant.first,
                    outbound: grant.limits.last,
                },
                Act::Bound {
                    spi,
                    inbound,
                    outbound,
                } => Lease::Bound {
                    spi,
                    inbound,
                    outbound,
                },
                Act::Stop { spi, term, tell } => Lease::Stop { spi, term, tell },
                Act::Forget { spi } => {
                    over.push(spi);
                    continue;
                }
            };
            self.dataplane.command(Command::Lease(lease));
        }
        over.into_iter().try_for_each(|spi| self.drop_pair(spi))?;
        Ok(worked)
    }

    /// The same of a node that ends: an error would change nothing any more.
    fn pump_what_is_left(&mut self) {
        if let Err(error) = self.pump_edge() {
            tracing::warn!("a pair of SAs can not be forgotten: {error}");
        }
    }

    /// Time has passed for an edge.
    pub(super) fn poll_edge(&mut self, now: Instant, ticked: bool) -> Result<()> {
        let Some(edge) = &mut self.edge else {
            return Ok(());
        };
        edge.core.poll(now);
        if !ticked {
            return Ok(());
        }
        let refused = std::mem::take(&mut edge.refused);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        self.drop_pairs(|known| known.expires <= seconds)?;
        if refused > 0 {
            let text = format!("{refused} IKE messages were too many at once, and not relayed");
            self.note(NewEvent::new(EventKind::Flood, text));
        }
        Ok(())
    }

    /// A worker tells about shared sessions.
    pub(super) fn on_edge_report(&mut self, event: &WorkerEvent, at: Instant) {
        let Some(edge) = &mut self.edge else {
            return;
        };
        match event {
            WorkerEvent::Progress(all) => {
                for progress in all {
                    edge.core
                        .progress(progress.spi, progress.top, progress.sent, at);
                }
            }
            WorkerEvent::Claimed { spi, seen } => {
                let claim = Claim {
                    spi: *spi,
                    seen: *seen,
                };
                edge.core.claim(claim, at);
            }
            WorkerEvent::UnknownSpi(spi) => {
                uplink(&mut self.inputs.uplink, Up::Query { spi: *spi });
            }
            WorkerEvent::Stopped {
                progress,
                term,
                missing,
            } => {
                let (top, sent) = (progress.top, progress.sent);
                edge.core.stopped(progress.spi, *term, top, *missing, sent);
            }
            _ => {}
        }
    }

    /// The authority hears of a client that its NAT has moved.
    pub(super) fn tell_moved(&mut self, spec: &crate::sadb::SessionSpec, remote: SocketAddr) {
        if let (Some(_), Some(inbound)) = (&self.edge, &spec.inbound) {
            let spi = inbound.spi;
            uplink(&mut self.inputs.uplink, Up::Moved { spi, remote });
        }
    }

    /// Gives back what the authority may give to others: the node ends.
    pub(super) async fn part(&mut self) {
        let Some(edge) = &mut self.edge else {
            return;
        };
        edge.core.give_back();
        let deadline = Instant::now() + PARTING;
        loop {
            self.pump_what_is_left();
            self.dataplane.wake();
            if self.edge.as_ref().is_none_or(|edge| edge.core.holds() == 0) {
                break;
            }
            let report = tokio::time::timeout_at(deadline.into(), self.inputs.reports.recv()).await;
            let Ok(Some(report)) = report else { break };
            self.on_edge_report(&report.event, report.at);
        }
        if let Some(edge) = &mut self.edge {
            edge.core.leave();
        }
        self.pump_what_is_left();
        if let Some(uplink) = &mut self.inputs.uplink {
            uplink.leave().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_first_messages_leaves_room_for_others() {
        let now = Instant::now();
        let mut edge = Edge::new();
        let (mut first, mut other) = ([0; 28], [0; 28]);
        first[0] = 1;
        (other[0], other[8]) = (1, 1);
        let relayed = (0..100_000).filter(|_| edge.may_relay(&first, now)).count();
        assert!((1..=1001).contains(&relayed), "{relayed}");
        assert!(edge.may_relay(&other, now));
        assert!(!edge.may_relay(&first[..12], now), "no IKE header");
        assert!(edge.may_relay(&first, now + Duration::from_millis(1)));
        assert_eq!(edge.refused, 100_000 - relayed as u64);
    }
}
