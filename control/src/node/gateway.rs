//! A gateway's part of the core: its clients, and sessions that it begins itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;

use super::core::{Node, Purpose, Role};
use super::drain::Drain;
use super::establish::Refusal;
use super::events::{EventKind, NewEvent};
use super::routes::{Device, Routes};
use crate::dataplane::{Command, GroupId, GroupSpec, WorkerEvent, WorkerReport};
use crate::ike::{IKE_PORT, Identity, Initiate, NAT_T_PORT, TrafficSelector};

/// A gateway's own.
#[derive(Default)]
pub(super) struct Gateway {
    clients: Clients,
    /// Where the kernel forwards: what leads into the TUN device.
    pub(super) routes: Option<Routes<Device>>,
    /// It lets go of its clients.
    pub(super) drain: Option<Drain>,
}

/// What is known of clients.
#[derive(Default)]
pub(super) struct Clients {
    known: HashMap<Identity, Known>,
    last: u32,
}

struct Known {
    group: GroupId,
    inner: Vec<IpAddr>,
    /// Where its IKE was last, or where the configuration says it is.
    outside: Option<SocketAddr>,
}

impl Gateway {
    /// The inner addresses of a client.
    pub(super) fn inner(&self, client: &Identity) -> &[IpAddr] {
        self.clients.inner(client)
    }

    /// A client is elsewhere now.
    pub(super) fn moved(&mut self, client: &Identity, outside: SocketAddr) {
        self.clients.moved(client, outside);
    }
}

impl Clients {
    /// A client is elsewhere now.
    pub(super) fn moved(&mut self, client: &Identity, outside: SocketAddr) {
        if let Some(known) = self.known.get_mut(client) {
            known.outside = Some(outside);
        }
    }

    /// The inner addresses of a client.
    pub(super) fn inner(&self, client: &Identity) -> &[IpAddr] {
        self.known.get(client).map_or(&[], |known| &known.inner)
    }

    /// Notes the inner addresses of a client.
    pub(super) fn set_inner(&mut self, client: &Identity, inner: &[IpAddr]) {
        if let Some(known) = self.known.get_mut(client) {
            known.inner = inner.to_vec();
        }
    }

    /// The group of a client, made if need be, and whether its addresses are others than before.
    pub(super) fn know(
        &mut self,
        client: &Identity,
        inner: &[IpAddr],
        outside: Option<SocketAddr>,
    ) -> (GroupId, bool) {
        let last = &mut self.last;
        let known = self.known.entry(client.clone()).or_insert_with(|| {
            *last += 1;
            Known {
                group: GroupId::Peer(*last),
                inner: Vec::new(),
                outside: None,
            }
        });
        known.outside = outside.or(known.outside);
        (known.group, known.inner != inner)
    }
}

/// Inner addresses of a client with a new session. Only a session that the client began assigns
/// some; one that we began is for those that we know, or for what the client agreed to.
pub(super) fn inner_of(
    assigned: &[IpAddr],
    fixed: &[IpAddr],
    known: &[IpAddr],
    agreed: &[TrafficSelector],
) -> Vec<IpAddr> {
    let first = [assigned, fixed, known].into_iter().find(|a| !a.is_empty());
    match first {
        Some(addresses) => addresses.to_vec(),
        None => agreed
            .iter()
            .filter(|selector| selector.start == selector.end)
            .map(|selector| selector.start)
            .collect(),
    }
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
            .map(|peer| {
                let outside = peer.outside.map(|ip| SocketAddr::new(ip, IKE_PORT));
                (peer.identity.clone(), peer.inner.clone(), outside)
            })
            .collect();
        for (identity, inner, outside) in fixed {
            self.know_client(&identity, &inner, outside)?;
        }
        Ok(())
    }

    /// The group of a client that has a session now. `peer` is the configured identity.
    pub(super) fn peer_group(
        &mut self,
        peer: &Identity,
        assigned: &[IpAddr],
        agreed: &[TrafficSelector],
        outside: SocketAddr,
    ) -> Result<GroupId, Refusal> {
        let fixed = self.answers.inner_of(peer);
        let known = match &self.role {
            Role::Gateway(gateway) => gateway.clients.inner(peer),
            Role::Client(_) => &[],
        };
        let inner = inner_of(assigned, fixed.unwrap_or_default(), known, agreed);
        self.know_client(peer, &inner, Some(outside))
    }

    pub(super) fn know_client(
        &mut self,
        peer: &Identity,
        inner: &[IpAddr],
        outside: Option<SocketAddr>,
    ) -> Result<GroupId, Refusal> {
        let Role::Gateway(gateway) = &mut self.role else {
            return Err(Refusal::NotInPolicy);
        };
        let (group, changed) = gateway.clients.know(peer, inner, outside);
        if changed {
            self.dataplane.set_group(GroupSpec {
                id: group,
                prefixes: inner.iter().copied().map(IpNet::from).collect(),
                watch: None,
                // Only an authority can begin one for an edge.
                on_demand: self.edge.is_none(),
            })?;
            gateway.clients.set_inner(peer, inner);
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
    pub(super) fn begin_session(&mut self, group: GroupId, now: Instant) {
        let Role::Gateway(gateway) = &self.role else {
            return;
        };
        let drains = gateway.drain.is_some();
        let mut clients = gateway.clients.known.iter().filter(|_| !drains);
        let found = clients.find(|(_, known)| known.group == group);
        let target = found.and_then(|(identity, known)| {
            Some((
                identity.clone(),
                known.outside?,
                known.inner.clone(),
                self.answers.methods(identity)?,
            ))
        });
        let Some((identity, outside, inner, auth)) = target else {
            self.dataplane
                .command(Command::Rejected(group, Duration::from_secs(5)));
            return;
        };
        let text = format!(
            "traffic for {identity} at {}: beginning a session",
            outside.ip()
        );
        self.note(NewEvent::new(EventKind::KeyRequest, text).at(now));
        let wish = Initiate {
            // The mapping of a NAT before the client is for port 4500.
            local: SocketAddr::new(
                self.address,
                match outside.port() {
                    IKE_PORT => IKE_PORT,
                    _ => NAT_T_PORT,
                },
            ),
            remote: outside,
            remote_id: Some(identity),
            auth,
            request_addresses: None,
            local_ts: vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()],
            remote_ts: inner.into_iter().map(TrafficSelector::host).collect(),
            initial_contact: false,
            follows_redirects: false,
            redirected_from: None,
        };
        let sa = self.engine.initiate(now, wish, &mut self.answers);
        self.pending.insert(sa, Purpose::Client(group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_session_that_we_began_keeps_the_client_s_addresses() {
        let [a, b, c, d] = ["10.99.0.1", "10.99.0.2", "10.99.0.3", "10.99.0.4"].map(ip);
        let agreed = [TrafficSelector::host(d), TrafficSelector::any_v6()];
        for (assigned, fixed, known, expected) in [
            (&[a][..], &[b][..], &[c][..], a),
            (&[], &[b], &[c], b),
            (&[], &[], &[c], c),
            (&[], &[], &[], d),
        ] {
            assert_eq!(inner_of(assigned, fixed, known, &agreed), [expected]);
        }
        assert!(inner_of(&[], &[], &[], &[TrafficSelector::any_v4()]).is_empty());
    }

    #[test]
    fn a_client_has_one_group_and_news_of_it_change_only_what_is_new() {
        let mut gateway = Clients::default();
        let name = |name: &str| Identity::Fqdn(name.into());
        let (a, outside) = (ip("10.99.0.1"), "192.0.2.7:500".parse().unwrap());
        let (first, changed) = gateway.know(&name("a.example"), &[a], Some(outside));
        assert!(changed);
        gateway.set_inner(&name("a.example"), &[a]);
        assert_eq!(gateway.know(&name("a.example"), &[a], None), (first, false));
        let known = &gateway.known[&name("a.example")];
        assert_eq!(known.outside, Some(outside), "where it was last");
        assert_ne!(gateway.know(&name("b.example"), &[], None).0, first);
    }
}
