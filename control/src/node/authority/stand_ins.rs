//! Edges that translate addresses: for each of them the authority has an address of its own, where messages of
//! IKE come, and from where the answers to their clients leave. So it shows by which edge a message came, and the
//! authority's routes bring the answers to that edge.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use super::Authority;
use crate::cluster::EdgeId;
use crate::ike::Transmit;
use crate::node::config::NamedEdge;
use crate::node::edge::{Limits, addressee};
use crate::node::events::{EventKind, NewEvent};
use crate::node::sockets::{Datagram, Sockets};

/// Messages that may wait for the core, and answers that may wait to be sent by one edge.
const WAITING: usize = 1024;

/// The addresses that stand for edges.
pub(super) struct StandIns {
    by_edge: BTreeMap<EdgeId, StandIn>,
    heard: mpsc::Receiver<(EdgeId, Datagram)>,
}

struct StandIn {
    address: IpAddr,
    answers: mpsc::Sender<Transmit>,
    /// Messages that were too many, since that was told last.
    refused: Arc<AtomicU64>,
}

impl StandIns {
    /// Listens for edges that may translate. `shared`: the address that clients know.
    pub(super) async fn bind(edges: &[NamedEdge], shared: IpAddr) -> Result<Self> {
        let (heard, queue) = mpsc::channel(WAITING);
        let mut by_edge = BTreeMap::new();
        for edge in edges {
            let Some(address) = edge.translated else {
                continue;
            };
            let sockets = Sockets::bind(address).await.with_context(|| {
                format!(
                    "channel.edge.translated of {}: {address} must be an address of this machine",
                    edge.name
                )
            })?;
            // They get other addresses on their way: nobody could tell these sockets of a path.
            sockets.let_be_cut()?;
            let (answers, to_send) = mpsc::channel(WAITING);
            let refused = Arc::new(AtomicU64::new(0));
            let door = Door {
                edge: edge.number,
                shared,
                sockets,
                heard: heard.clone(),
                answers: to_send,
                refused: Arc::clone(&refused),
            };
            tokio::spawn(door.serve());
            let stand_in = StandIn {
                address,
                answers,
                refused,
            };
            by_edge.insert(edge.number, stand_in);
        }
        Ok(Self {
            by_edge,
            heard: queue,
        })
    }

    /// The next message, and the edge that it came by. Cancel safe.
    pub(super) async fn next(&mut self) -> (EdgeId, Datagram) {
        match self.heard.recv().await {
            Some(heard) => heard,
            // There is no such edge.
            None => pending().await,
        }
    }

    /// What has come besides.
    pub(super) fn next_now(&mut self) -> Option<(EdgeId, Datagram)> {
        self.next().now_or_never()
    }

    /// What stands for an edge.
    pub(super) fn address(&self, edge: EdgeId) -> Option<IpAddr> {
        self.by_edge.get(&edge).map(|stand_in| stand_in.address)
    }

    /// Sends an answer by an edge. What there is no room for is lost, and will be repeated.
    pub(super) fn send(&self, edge: EdgeId, transmit: Transmit) {
        if let Some(stand_in) = self.by_edge.get(&edge) {
            let _ = stand_in.answers.try_send(transmit);
        }
    }

    /// Messages that were too many at once since the last time, by edge.
    pub(super) fn refused(&self) -> HashMap<EdgeId, u64> {
        let all = self.by_edge.iter();
        all.map(|(edge, stand_in)| (*edge, stand_in.refused.swap(0, Ordering::Relaxed)))
            .filter(|(_, refused)| *refused > 0)
            .collect()
    }
}

impl Authority {
    /// An edge says that it translates.
    pub(super) fn translates(&mut self, edge: EdgeId, to: IpAddr) {
        let expected = self.stand_ins.address(edge);
        let Some(known) = self.edges.get_mut(&edge) else {
            return;
        };
        known.translates = expected == Some(to);
        let name = &known.name;
        if known.translates {
            return tracing::info!("{name} ({edge}) translates messages of IKE to {to}");
        }
        let expected = match expected {
            Some(expected) => format!("expected {expected}, its channel.edge.translated here"),
            None => "it has no channel.edge.translated here".to_owned(),
        };
        let text = format!(
            "{name} ({edge}) translates messages of IKE to {to}, where nobody hears them: {expected}"
        );
        self.note(NewEvent::new(EventKind::EdgeRefused, text));
    }

    /// A client's message has come by this edge.
    pub(super) fn heard_translated(&mut self, edge: EdgeId, remote: SocketAddr) {
        self.batch.insert(remote, edge);
        if let Some(known) = self.edges.get_mut(&edge) {
            known.translated += 1;
        }
    }

    /// Tells of messages that were too many.
    pub(super) fn tell_floods(&mut self) {
        for (edge, refused) in self.stand_ins.refused() {
            let text =
                format!("{refused} IKE messages that {edge} has translated were too many at once");
            self.note(NewEvent::new(EventKind::Flood, text));
        }
    }
}

/// The sockets of one address.
struct Door {
    edge: EdgeId,
    shared: IpAddr,
    sockets: Sockets,
    heard: mpsc::Sender<(EdgeId, Datagram)>,
    answers: mpsc::Receiver<Transmit>,
    refused: Arc<AtomicU64>,
}

impl Door {
    async fn serve(mut self) {
        let mut limits = Limits::new(Instant::now());
        loop {
            tokio::select! {
                datagram = self.sockets.receive() => {
                    let Some(mut datagram) = datagram.filter(|datagram| !datagram.esp) else {
                        continue;
                    };
                    // The client has sent it there, and makes the hashes of NAT detection over that.
                    datagram.local.set_ip(self.shared);
                    let Some(addressee) = addressee(&datagram.data) else {
                        continue;
                    };
                    let allowed = limits.allow(addressee, Instant::now());
                    if !allowed || self.heard.try_send((self.edge, datagram)).is_err() {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                answer = self.answers.recv() => {
                    let Some(transmit) = answer else { return };
                    if let Err(error) = self.sockets.send(&transmit).await {
                        tracing::debug!("IKE to {}: {error}", transmit.remote);
                    }
                }
            }
        }
    }
}
