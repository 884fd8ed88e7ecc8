//! A gateway's part of the core: its clients, and sessions that it begins itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;

use super::core::{Node, Purpose, Role};
use super::establish::Refusal;
use super::events::{EventKind, NewEvent};
use super::sockets::IKE;
use crate::dataplane::loader::LoadError;
use crate::dataplane::{Command, GroupId, GroupSpec, WorkerEvent, WorkerReport};
use crate::ike::{Identity, Initiate, TrafficSelector};

/// What a gateway knows of its clients.
#[derive(Default)]
pub(super) struct Gateway {
    clients: HashMap<Identity, Known>,
    last: u32,
}

struct Known {
    group: GroupId,
    inner: Vec<IpAddr>,
    /// Where it was last, or where the configuration says it is.
    outside: Option<IpAddr>,
}

impl Node {
    /// Makes the groups of clients with fixed addresses, so that traffic for them is recognised
    /// before they have a session.
    pub(super) fn prepare_clients(&mut self) -> Result<()> {
        let fixed: Vec<_> = self
            .answers
            .peers
            .iter()
            .filter(|peer| !peer.inner.is_empty())
            .map(|peer| (peer.identity.clone(), peer.inner.clone(), peer.outside))
            .collect();
        for (identity, inner, outside) in fixed {
            self.know_client(&identity, &inner, outside)?;
        }
        Ok(())
    }

    /// The group of a client that has a session now.
    pub(super) fn peer_group(
        &mut self,
        peer: &Identity,
        assigned: &[IpAddr],
        outside: IpAddr,
    ) -> Result<GroupId, Refusal> {
        let fixed = self
            .answers
            .peer(peer)
            .map(|peer| peer.inner.clone())
            .unwrap_or_default();
        let inner = if assigned.is_empty() {
            &fixed
        } else {
            assigned
        };
        Ok(self.know_client(peer, inner, Some(outside))?)
    }

    fn know_client(
        &mut self,
        peer: &Identity,
        inner: &[IpAddr],
        outside: Option<IpAddr>,
    ) -> Result<GroupId, LoadError> {
        let Role::Gateway(gateway) = &mut self.role else {
            return Ok(GroupId::Peer(0));
        };
        let last = &mut gateway.last;
        let known = gateway.clients.entry(peer.clone()).or_insert_with(|| {
            *last += 1;
            Known {
                group: GroupId::Peer(*last),
                inner: Vec::new(),
                outside: None,
            }
        });
        known.outside = outside.or(known.outside);
        let group = known.group;
        if known.inner != inner {
            known.inner = inner.to_vec();
            self.dataplane.set_group(GroupSpec {
                id: group,
                prefixes: inner.iter().copied().map(IpNet::from).collect(),
                watch: None,
                on_demand: true,
            })?;
        }
        Ok(group)
    }

    pub(super) fn on_gateway_report(&mut self, report: WorkerReport) {
        match report.event {
            WorkerEvent::KeyRequest { group, .. } => self.begin_session(group, report.at),
            WorkerEvent::InnerActive { address, here, .. } => {
                let text = if here {
                    format!("{address} is active here and announced on the LAN")
                } else {
                    format!("{address} is active on another gateway now")
                };
                self.note(NewEvent::new(EventKind::Active, text).at(report.at));
            }
            _ => {}
        }
    }

    /// Traffic from the LAN wants a client that has no session: the gateway begins the exchange.
    fn begin_session(&mut self, group: GroupId, now: Instant) {
        let Role::Gateway(gateway) = &self.role else {
            return;
        };
        let found = gateway
            .clients
            .iter()
            .find(|(_, known)| known.group == group);
        let target = found.and_then(|(identity, known)| {
            let peer = self.answers.peer(identity)?;
            Some((
                identity.clone(),
                known.outside?,
                known.inner.clone(),
                peer.psk.clone(),
            ))
        });
        let Some((identity, outside, inner, psk)) = target else {
            self.dataplane
                .command(Command::Rejected(group, Duration::from_secs(5)));
            return;
        };
        let text = format!("traffic for {identity} at {outside}: beginning a session");
        self.note(NewEvent::new(EventKind::KeyRequest, text).at(now));
        let wish = Initiate {
            local: SocketAddr::new(self.address, IKE),
            remote: SocketAddr::new(outside, IKE),
            remote_id: Some(identity),
            psk,
            request_addresses: None,
            local_ts: vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()],
            remote_ts: inner.into_iter().map(TrafficSelector::host).collect(),
            initial_contact: false,
        };
        let sa = self.engine.initiate(now, wish, &mut self.answers);
        self.pending.insert(sa, Purpose::Client(group));
    }
}
