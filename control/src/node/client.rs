//! A client's part of the core: its policy, the key management service, the TUN device.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use ipnet::IpNet;
use rand::rngs::StdRng;

use super::core::{Node, Purpose, Role};
use super::establish::Refusal;
use super::events::{EventKind, NewEvent};
use super::hooks::{Side, selector};
use super::inner::{Inner, KEPT, can_be_inner};
use super::leaving::Leaving;
use super::life::{GIVEN_UP, Wallet};
use super::routes::{Device, Routes, Wanted};
use crate::dataplane::{Command, GroupId, WorkerEvent, WorkerReport};
use crate::ike::{AddressRequest, IKE_PORT, Initiate, TrafficSelector};
use crate::kms::{Action, KeyManagement};
use crate::policy::{ClusterId, Resolved};
use crate::sadb::SessionId;

/// What a client keeps.
pub(super) struct Client {
    pub(super) kms: KeyManagement<StdRng>,
    pub(super) resolved: Resolved,
    pub(super) policy: PathBuf,
    /// The TUN device.
    pub(super) device: Device,
    /// Inner addresses that gateways have given us.
    pub(super) inner: Inner,
    /// The gateway that traffic of each cluster uses.
    pub(super) active: HashMap<ClusterId, IpAddr>,
    /// Tickets by which sessions are resumed.
    pub(super) wallet: Wallet,
    /// Gateways whose next session is to be authenticated anew.
    pub(super) anew: HashSet<IpAddr>,
    /// The routes may have to get other sources.
    pub(super) sources_stale: bool,
    /// Routes that lead into the TUN device.
    pub(super) routes: Routes<Device>,
    pub(super) rng: StdRng,
    /// The automatically detected server of AUTO tunnels.
    pub(super) auto: Option<IpAddr>,
    /// The outside interface has had our address.
    pub(super) at_home: bool,
    /// The outside address that it is to go on from, but could not yet.
    pub(super) next_address: Option<IpAddr>,
    /// Such a one, after which this was told.
    pub(super) stays: Option<IpAddr>,
    /// Gateways that have sent us elsewhere.
    pub(super) leaving: Leaving,
}

impl Client {
    /// The group that a gateway's session belongs to first.
    pub(super) fn group_of(&self, gateway: IpAddr) -> Option<GroupId> {
        self.kms.clusters_of(gateway).next().map(GroupId::Cluster)
    }

    pub(super) fn ranges(&self) -> Vec<(IpAddr, Vec<IpNet>)> {
        let mut ranges: Vec<(IpAddr, Vec<IpNet>)> = Vec::new();
        for cluster in &self.resolved.clusters {
            let tunnels = self
                .resolved
                .tunnels
                .iter()
                .filter(|t| t.cluster == cluster.id);
            let prefixes: Vec<IpNet> = tunnels.flat_map(|t| t.prefixes.clone()).collect();
            ranges.extend(cluster.gateways.iter().map(|g| (*g, prefixes.clone())));
        }
        ranges
    }
}

impl Node {
    /// Gives the TUN device the inner addresses that a gateway has assigned.
    pub(super) async fn use_inner_addresses(&mut self, assigned: &[IpAddr]) -> Result<(), Refusal> {
        let Role::Client(client) = &mut self.role else {
            return Ok(());
        };
        let gateways = self.answers.peers.iter().filter_map(|peer| peer.outside);
        let taken: Vec<IpAddr> = gateways.chain([self.address]).collect();
        if let Some(address) = assigned.iter().find(|a| !can_be_inner(**a, &taken)) {
            return Err(Refusal::InnerAddress { address: *address });
        }
        if assigned.len() > KEPT {
            return Err(Refusal::TooManyAddresses);
        }
        for address in assigned {
            if !client.inner.has(*address) {
                if let Some(other) = client.inner.newest(address.is_ipv4()) {
                    tracing::warn!(
                        "a gateway assigned {address} although {other} was asked for: connections \
                         from {other} will not outlive a change to it; give all gateways the same \
                         pool"
                    );
                }
                client.device.add_address(*address).await?;
            }
            client.inner.took(*address);
        }
        let needed = |address: IpAddr| {
            let host = IpNet::from(address);
            let mut live = self.table.live.values();
            assigned.contains(&address)
                || client.routes.use_source(address)
                || live.any(|live| live.spec.local_inner.contains(&host))
        };
        for address in client.inner.surplus(needed) {
            match client.device.remove_address(address).await {
                Ok(()) => client.inner.dropped(address),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        client.sources_stale = true;
        if let Side::Client { inner, .. } = &mut self.answers.side {
            *inner = client.inner.addresses().to_vec();
        }
        Ok(())
    }

    /// New connections get the address that the gateway in use has assigned: it drops others, and
    /// the kernel by itself would go on choosing the first one that there ever was.
    pub(super) async fn follow_sources(&mut self) {
        let Role::Client(client) = &mut self.role else {
            return;
        };
        if !std::mem::take(&mut client.sources_stale) {
            return;
        }
        let mut wanted = Wanted::new();
        for tunnel in &client.resolved.tunnels {
            let active = client.active.get(&tunnel.cluster);
            let session = active.and_then(|gateway| client.kms.session(*gateway));
            let live = session.and_then(|session| self.table.live.get(&SessionId(session.0)));
            let owned = live.map(|live| &live.spec.local_inner[..]);
            let ranges = tunnel.prefixes.iter();
            wanted.extend(ranges.map(|range| {
                let source = client.inner.source(owned, range.addr().is_ipv4());
                (*range, source)
            }));
        }
        client.routes.follow(&wanted).await;
    }

    pub(super) fn next_key_action(&mut self) -> Option<Action> {
        match &mut self.role {
            Role::Client(client) => client.kms.next_action(),
            Role::Gateway(_) => None,
        }
    }

    pub(super) async fn on_key_action(&mut self, action: Action) -> Result<()> {
        let now = Instant::now();
        match action {
            Action::Authenticate { gateway } => self.authenticate(gateway, now),
            Action::Granted { cluster, gateway } => {
                self.dataplane
                    .command(Command::Granted(GroupId::Cluster(cluster), gateway));
            }
            Action::Rejected {
                cluster,
                tried,
                retry_at,
            } => {
                let wait = retry_at.saturating_duration_since(now);
                self.dataplane
                    .command(Command::Rejected(GroupId::Cluster(cluster), wait));
                let tried: Vec<String> = tried
                    .iter()
                    .map(|(gateway, why)| format!("{gateway}: {why}"))
                    .collect();
                let text = format!(
                    "no gateway of cluster {cluster} authenticated ({}); next try in {:.1} s",
                    tried.join(", "),
                    wait.as_secs_f64()
                );
                self.note(NewEvent::new(EventKind::KeyRejected, text).cluster(cluster.0));
            }
            Action::DropSession { session, .. } => {
                let id = SessionId(session.0);
                // A session that a newer one has replaced still receives for a while.
                if !self.dying.contains(id) {
                    self.end_session(id, GIVEN_UP, true)?;
                }
            }
        }
        Ok(())
    }

    fn authenticate(&mut self, gateway: IpAddr, now: Instant) {
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let Some(peer) = self.answers.peer_at(gateway) else {
            let why = "no [[peer]] of the configuration has this address as `outside`";
            client.kms.on_failed(gateway, why.to_owned(), now);
            return;
        };
        // Connections have the address of the session in use: of this gateway, or of the one that
        // is active before it. Only without any is it the one that came last.
        let active = client.kms.clusters_of(gateway);
        let active = active.filter_map(|cluster| client.active.get(&cluster).copied());
        let sessions = std::iter::once(gateway).chain(active);
        let session = sessions
            .filter_map(|gateway| client.kms.session(gateway))
            .next();
        let live = session.and_then(|session| self.table.live.get(&SessionId(session.0)));
        let owned = live.map(|live| &live.spec.local_inner[..]);
        let current = |v4: bool| {
            let used = client.inner.source(owned, v4);
            used.or_else(|| client.inner.newest(v4))
        };
        let v4 = current(true).and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None });
        let v6 = current(false).and_then(|a| if let IpAddr::V6(a) = a { Some(a) } else { None });
        let ranges = self.answers.ranges_of(gateway);
        let (has_v4, has_v6) = (
            ranges.iter().any(|r| r.addr().is_ipv4()),
            ranges.iter().any(|r| r.addr().is_ipv6()),
        );
        let mut local_ts = Vec::new();
        if has_v4 {
            local_ts.push(TrafficSelector::any_v4());
        }
        if has_v6 {
            local_ts.push(TrafficSelector::any_v6());
        }
        let wish = Initiate {
            local: SocketAddr::new(self.address, IKE_PORT),
            remote: SocketAddr::new(gateway, IKE_PORT),
            remote_id: Some(peer.identity.clone()),
            auth: peer.auth.clone(),
            request_addresses: Some(AddressRequest {
                v4: has_v4.then_some(v4),
                v6: has_v6.then_some(v6),
            }),
            local_ts,
            remote_ts: ranges.iter().map(selector).collect(),
            // A session that is made anew leaves the old one in use until it is there.
            initial_contact: client.kms.session(gateway).is_none(),
            follows_redirects: peer.redirects,
            redirected_from: client.leaving.sent_to(gateway).filter(|_| peer.redirects),
        };
        // What another gateway of the cluster has issued is for the case that it is gone.
        let clusters = client.resolved.clusters.iter();
        let others = clusters.filter(|cluster| cluster.gateways.contains(&gateway));
        let others = others.flat_map(|cluster| cluster.gateways.iter().copied());
        let others = others.filter(|other| client.kms.session(*other).is_none());
        let ticket = match client.anew.remove(&gateway) {
            true => None,
            false => client.wallet.take(gateway, others, now),
        };
        let (tried, ticket) = ticket.unzip();
        let sa = match ticket {
            Some(ticket) => self.engine.resume(now, wish, ticket, &mut self.answers),
            None => self.engine.initiate(now, wish, &mut self.answers),
        };
        let purpose = Purpose::Gateway {
            gateway,
            ranges,
            ticket: tried,
        };
        self.pending.insert(sa, purpose);
    }

    pub(super) fn on_client_report(&mut self, report: WorkerReport) {
        if let WorkerEvent::Active {
            gateway: Some(gateway),
            ..
        } = report.event
        {
            self.taken_back(gateway, Instant::now());
        }
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let now = report.at;
        let cluster_of = |group| match group {
            GroupId::Cluster(cluster) => Some(cluster),
            _ => None,
        };
        let event = match report.event {
            WorkerEvent::KeyRequest { group, after } => {
                let Some(cluster) = cluster_of(group) else {
                    return;
                };
                client.kms.request(cluster, after, Instant::now());
                let text = match after {
                    Some(after) => format!("key request, from the gateway after {after} on"),
                    None => "key request".to_owned(),
                };
                NewEvent::new(EventKind::KeyRequest, text).cluster(cluster.0)
            }
            WorkerEvent::Active { group, gateway } => {
                let Some(cluster) = cluster_of(group) else {
                    return;
                };
                client.kms.on_active(cluster, gateway, Instant::now());
                match gateway {
                    Some(gateway) => client.active.insert(cluster, gateway),
                    None => client.active.remove(&cluster),
                };
                client.sources_stale = true;
                match gateway {
                    Some(gateway) => {
                        let text = format!("traffic goes through {gateway}");
                        NewEvent::new(EventKind::Active, text)
                            .cluster(cluster.0)
                            .gateway(gateway)
                    }
                    None => {
                        NewEvent::new(EventKind::Active, "no gateway is active").cluster(cluster.0)
                    }
                }
            }
            WorkerEvent::Dead {
                group,
                gateway,
                silent_for,
            } => {
                let Some(cluster) = cluster_of(group) else {
                    return;
                };
                let now = Instant::now();
                client.kms.on_dead(gateway, now);
                // Those that were left or replaced, and were to receive for a while, need not any more.
                let all = self.table.live.values();
                let of_it = all.filter(|live| live.spec.gateway == Some(gateway));
                for live in of_it {
                    if self.dying.contains(live.spec.id) {
                        self.dying.insert(now, live.spec.id);
                    }
                }
                let silent = silent_for.as_secs_f64() * 1e3;
                let text = format!("gateway {gateway} is dead: silent for {silent:.1} ms");
                NewEvent::new(EventKind::GatewayDead, text)
                    .cluster(cluster.0)
                    .gateway(gateway)
            }
            WorkerEvent::HeartbeatLost { group, gateway } => {
                let Some(cluster) = cluster_of(group) else {
                    return;
                };
                let text = format!("{gateway} did not answer a heartbeat; a second one was sent");
                NewEvent::new(EventKind::HeartbeatLost, text)
                    .cluster(cluster.0)
                    .gateway(gateway)
            }
            WorkerEvent::Health {
                group,
                gateway,
                health,
            } => {
                let Some(cluster) = cluster_of(group) else {
                    return;
                };
                tracing::info!("{gateway} of cluster {cluster} says its health is {health:#04x}");
                return;
            }
            WorkerEvent::InnerActive { .. }
            | WorkerEvent::PeerMoved { .. }
            | WorkerEvent::PathMtu { .. }
            | WorkerEvent::TooLong(_)
            | WorkerEvent::Progress(_)
            | WorkerEvent::Claimed { .. }
            | WorkerEvent::UnknownSpi(_)
            | WorkerEvent::Stopped { .. }
            | WorkerEvent::Failed(_) => return,
        };
        self.note(event.at(now));
        self.leave_the_unused(Instant::now());
    }
}
