//! The status: what the core posts now and then, and what the workers show, put together by
//! whoever asks. Nobody who asks waits for the core.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use evergate_common::reason::{Counter, Kind};

use super::core::{Node, Role};
use super::front::Watch;
use super::sessions::Live;
use crate::api::model::{
    self, Authority, Cluster, ClusterState, CounterValue, Drain, FilterClass, Front, Gateway,
    Interface, InterfaceKind, KeyLog, Session, Side, Spi, Status, Tunnel,
};
use crate::dataplane::loader::AttachedMode;
use crate::dataplane::{GroupId, Views};
use crate::kms::RequestState;
use crate::sadb::SessionSpec;

/// What never changes while a node runs.
pub(super) struct Fixed {
    pub(super) name: String,
    pub(super) role: super::config::Role,
    pub(super) identity: String,
    pub(super) started: Instant,
}

/// A cluster's number, what its key request does, and its gateways with their identities.
type PostedCluster = (u32, ClusterState, Vec<(IpAddr, Option<String>)>);

/// What the core posts of a session; whoever reads it puts it into words.
struct PostedSession {
    spec: Arc<SessionSpec>,
    since: Instant,
    resumed: bool,
    /// When this end replaces its pair of SAs.
    rekey_at: Option<Instant>,
}

/// What the core posts.
struct Posted {
    at: Instant,
    interfaces: Vec<Interface>,
    clusters: Vec<PostedCluster>,
    tunnels: Vec<Tunnel>,
    sessions: Vec<PostedSession>,
    drain: Option<Drain>,
    authorities: Vec<Authority>,
    connectivity: Option<model::Connectivity>,
    front: Option<Front>,
    filter: Vec<FilterClass>,
    xdp: [u64; Counter::COUNT],
    keylog: Option<KeyLog>,
}

/// Where the core posts and others read.
pub(super) struct Board {
    fixed: Fixed,
    posted: ArcSwap<Posted>,
    views: Views,
}

impl Board {
    pub(super) fn new(fixed: Fixed, views: Views) -> Self {
        let posted = Posted {
            at: fixed.started,
            interfaces: Vec::new(),
            clusters: Vec::new(),
            tunnels: Vec::new(),
            sessions: Vec::new(),
            drain: None,
            authorities: Vec::new(),
            connectivity: None,
            front: None,
            filter: Vec::new(),
            xdp: [0; Counter::COUNT],
            keylog: None,
        };
        Self {
            fixed,
            posted: ArcSwap::from_pointee(posted),
            views,
        }
    }

    /// The core posts its state.
    pub(super) fn post(&self, node: &Node) {
        self.posted.store(Arc::new(Posted {
            at: Instant::now(),
            interfaces: interfaces(node),
            clusters: clusters(node),
            tunnels: tunnels(node),
            sessions: sessions(node),
            drain: node.drain_view(),
            authorities: node.authorities_view(),
            connectivity: node.connectivity.as_ref().map(|c| c.view(Instant::now())),
            front: node.front.as_ref().map(Watch::view),
            filter: super::filter::view(node),
            xdp: node.dataplane.xdp_counters(),
            keylog: node.keylog.view(),
        }));
    }

    /// The status now.
    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let posted = self.posted.load();
        let view = self.views.load();
        let age = |at: Instant| now.saturating_duration_since(at);
        let clusters = posted.clusters.iter().map(|(id, state, names)| {
            let group = view
                .groups
                .iter()
                .find(|g| matches!(g.id, GroupId::Cluster(c) if c.0 == *id));
            let gateways = group.map(|group| {
                let gateways = group.gateways.iter().map(|gateway| Gateway {
                    address: gateway.address,
                    identity: names
                        .iter()
                        .find(|(address, _)| *address == gateway.address)
                        .and_then(|(_, name)| name.clone()),
                    keyed: gateway.keyed,
                    active: gateway.active,
                    last_heard_us: gateway.last_heard.map(|at| age(at).as_micros() as u64),
                    rtt_us: gateway.rtt.map(|rtt| rtt.as_micros() as u64),
                    heartbeats_sent: gateway.heartbeats_sent,
                    heartbeats_answered: gateway.heartbeats_answered,
                });
                gateways.collect()
            });
            let active = group.and_then(|group| group.active);
            let state = match (active, group.is_some_and(|group| group.rejected)) {
                (Some(_), _) => ClusterState::Up,
                (None, true) if *state != ClusterState::Authenticating => ClusterState::Rejected,
                (None, _) => *state,
            };
            Cluster {
                id: *id,
                active,
                state,
                gateways: gateways.unwrap_or_default(),
            }
        });
        let shown: HashMap<_, _> = view
            .sessions
            .iter()
            .map(|shown| (shown.id, shown))
            .collect();
        let sessions = posted.sessions.iter().map(|posted| {
            let mut session = posted.session(now);
            if let Some(shown) = shown.get(&posted.spec.id) {
                session.active = shown.active;
                session.path_mtu = shown.path.0;
                session.path_state = shown.path.1.word().to_owned();
                session.packets_in = shown.inbound.packets;
                session.bytes_in = shown.inbound.bytes;
                session.packets_out = shown.outbound.packets;
                session.bytes_out = shown.outbound.bytes;
            }
            session
        });
        let (drops, counters) = counted(&view.counters, &posted.xdp);
        Status {
            name: self.fixed.name.clone(),
            role: self.fixed.role,
            identity: self.fixed.identity.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: age(self.fixed.started).as_millis() as u64,
            snapshot_age_ms: age(posted.at).as_millis() as u64,
            interfaces: posted.interfaces.clone(),
            drain: posted.drain,
            edges: Vec::new(),
            authorities: posted.authorities.clone(),
            connectivity: posted.connectivity.clone(),
            front: posted.front.clone(),
            filter: posted.filter.clone(),
            clusters: clusters.collect(),
            tunnels: posted.tunnels.clone(),
            sessions: sessions.collect(),
            counters,
            drops,
            keylog: posted.keylog.clone(),
        }
    }
}

/// Drops, and everything else, of workers and XDP programs together.
pub(super) fn counted(
    worker: &[u64; Counter::COUNT],
    xdp: &[u64; Counter::COUNT],
) -> (Vec<CounterValue>, Vec<CounterValue>) {
    let values = Counter::ALL
        .iter()
        .zip(worker.iter().zip(xdp))
        .map(|(counter, (a, b))| {
            let value = CounterValue {
                name: counter.label().to_owned(),
                text: counter.text().to_owned(),
                value: a + b,
            };
            (counter.kind(), value)
        });
    let (drops, others): (Vec<_>, Vec<_>) = values.partition(|(kind, _)| *kind == Kind::Drop);
    let plain = |list: Vec<(Kind, CounterValue)>| list.into_iter().map(|(_, v)| v).collect();
    (plain(drops), plain(others))
}

fn interfaces(node: &Node) -> Vec<Interface> {
    let fib = node.fib.load();
    let find = |name: &str| fib.interfaces().iter().find(|i| i.name == name);
    let kind = |side: Side, name: &str| {
        let attached = node.dataplane.attached.iter().find(|(at, _)| at == name);
        match attached {
            Some((_, attached)) if attached.mode == AttachedMode::Native => {
                InterfaceKind::XdpNative
            }
            Some(_) => InterfaceKind::XdpGeneric,
            None if side == Side::Outside => InterfaceKind::Udp,
            None if node.config.role == super::config::Role::Gateway => InterfaceKind::Routed,
            None => InterfaceKind::Tun,
        }
    };
    let sides = [
        (Side::Outside, node.config.outside.interface.as_str()),
        (Side::Inside, node.inside_name.as_str()),
    ];
    sides
        .into_iter()
        .map(|(side, name)| Interface {
            side,
            name: name.to_owned(),
            kind: kind(side, name),
            up: find(name).is_some_and(|i| i.up),
            mtu: find(name).map_or(0, |i| i.mtu),
        })
        .collect()
}

fn clusters(node: &Node) -> Vec<PostedCluster> {
    let Role::Client(client) = &node.role else {
        return Vec::new();
    };
    let clusters = client.resolved.clusters.iter().map(|cluster| {
        let state = match client.kms.request_state(cluster.id) {
            Some(RequestState::Authenticating(_)) => ClusterState::Authenticating,
            Some(RequestState::BackOff(_)) => ClusterState::Rejected,
            _ => ClusterState::Idle,
        };
        let names = cluster
            .gateways
            .iter()
            .map(|g| (*g, node.answers.name_of(*g)))
            .collect();
        (cluster.id.0, state, names)
    });
    clusters.collect()
}

fn tunnels(node: &Node) -> Vec<Tunnel> {
    let Role::Client(client) = &node.role else {
        return Vec::new();
    };
    let tunnels = client.resolved.tunnels.iter().map(|tunnel| Tunnel {
        number: tunnel.number,
        range: if tunnel.start == tunnel.end {
            tunnel.start.to_string()
        } else {
            format!("{} – {}", tunnel.start, tunnel.end)
        },
        cluster: tunnel.cluster.0,
    });
    tunnels.collect()
}

impl PostedSession {
    fn session(&self, now: Instant) -> Session {
        let spec = &self.spec;
        // What the session's client has: on a gateway the peer's addresses, on a client its own.
        let inner = if spec.gateway.is_some() {
            &spec.local_inner
        } else {
            &spec.remote_inner
        };
        let rekey_in = self.rekey_at.map(|at| at.saturating_duration_since(now));
        Session {
            peer: spec.peer.to_string(),
            outside: spec.outside_remote,
            inner: inner.iter().map(|net| net.addr()).collect(),
            spi_in: Spi(spec.inbound.as_ref().map_or(0, |sa| sa.spi)),
            spi_out: Spi(spec.outbound.as_ref().map_or(0, |sa| sa.spi)),
            cipher: spec
                .outbound
                .as_ref()
                .map_or("none", |sa| sa.cipher.name())
                .to_owned(),
            active: false,
            edge: None,
            path_mtu: 0,
            path_state: String::new(),
            age_ms: now.saturating_duration_since(self.since).as_millis() as u64,
            rekey_in_ms: rekey_in.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            initiator: spec.initiator,
            resumed: self.resumed,
        }
    }
}

fn sessions(node: &Node) -> Vec<PostedSession> {
    let current = node.table.live.values().filter(|live| !live.retired);
    let live = current.map(|live| PostedSession {
        spec: Arc::clone(&live.spec),
        since: live.since,
        resumed: live.resumed,
        rekey_at: rekey_at(node, live),
    });
    let mut sessions: Vec<_> = live.collect();
    sessions.sort_by_key(|session| session.spec.id);
    sessions
}

/// When this end replaces a session's pair of SAs.
fn rekey_at(node: &Node, live: &Live) -> Option<Instant> {
    let spi = live.spec.inbound.as_ref()?.spi;
    node.engine.child_rekey_at(live.sa, spi)
}
