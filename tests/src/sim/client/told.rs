//! What IKE, the key management and the monitor tell a client, and what becomes of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use evergate::ike::{
    AddressRequest, CloseReason, Event, IKE_PORT, Initiate, Ticket, TrafficSelector,
};
use evergate::kms::{self, SessionHandle};
use evergate::liveness;
use evergate::sadb::SessionId;
use evergate_common::heartbeat;
use rand::RngExt as _;

use super::super::nat::{encapsulation, path};
use super::super::owner::{methods, targets};
use super::super::session::Session;
use super::super::{Packet, Step};
use super::{ASKED, CLUSTER, Client};

impl Client {
    pub(super) fn on_ike(&mut self, event: Event, step: &mut Step<'_>) {
        let now = step.now;
        match event {
            Event::Established {
                id,
                local,
                remote,
                nat,
                resumed,
                child,
                exporter,
                ..
            } => {
                let gateway = remote.ip();
                let ends = [local.ip(), gateway];
                let encap = encapsulation(nat, local, remote);
                step.watch.resumed += u64::from(resumed);
                let (sadb, keys) = (&mut self.owner.sadb, (&child, &exporter));
                let session = Session::new(sadb, step.watch, id, ends, Some(gateway), keys, encap);
                self.pending.remove(&id);
                let handle = SessionHandle(session.id.0);
                let others = self.table.others(gateway, id);
                self.table.insert(session);
                others
                    .into_iter()
                    .for_each(|other| self.table.let_die(other, now));
                self.kms.on_authenticated(gateway, handle, now);
                self.monitor.on_keyed(gateway, now);
            }
            Event::Failed {
                id, error, spi_in, ..
            } => {
                if let Some(spi) = spi_in {
                    self.owner.sadb.release_spi(spi);
                }
                if let Some(gateway) = self.pending.remove(&id) {
                    self.kms.on_failed(gateway, error.to_string(), now);
                }
            }
            Event::Redirected { id, .. } => {
                let session = self.table.of_sa(id);
                let gateway = session.and_then(|session| session.spec.gateway);
                if let Some(gateway) = gateway
                    && self.kms.has_other(gateway)
                {
                    if !self.leaving.contains(&gateway) {
                        self.leaving.push(gateway);
                    }
                    self.monitor.on_leave(gateway, None, now);
                }
            }
            Event::ChildRekeyed {
                id: sa,
                child,
                outbound,
                exporter,
                ..
            } => {
                let (sadb, made) = (&mut self.owner.sadb, (sa, &child, &exporter));
                let renamed = self.table.rekeyed(sadb, step.watch, made, outbound);
                step.watch.rekeyings += u64::from(renamed.is_some());
                if let Some((old, new)) = renamed
                    && let Some(gateway) = self.table.get(new).and_then(|s| s.spec.gateway)
                {
                    let handle = |id: SessionId| SessionHandle(id.0);
                    self.kms.on_rekeyed(gateway, handle(old), handle(new));
                    for left in self.left.values_mut().filter(|left| **left == old) {
                        *left = new;
                    }
                }
            }
            Event::ChildClosed { id: sa, spi_in, .. } => {
                let of = (sa, self.engine.is_established(sa));
                if let Some(id) = self.table.child_closed(of, spi_in, now) {
                    self.wallet.retain(|_, (of, _)| *of != sa);
                    self.end(id, true, now);
                }
            }
            Event::Rekeyed { .. } => step.watch.rekeyings += 1,
            Event::ChildFailed { spi_in, .. } => self.owner.sadb.release_spi(spi_in),
            Event::Ticket { id: sa, ticket } => {
                let gateway = self.table.of_sa(sa).and_then(|s| s.spec.gateway);
                if let Some(gateway) = gateway {
                    self.wallet.insert(gateway, (sa, ticket));
                }
            }
            Event::Relocated {
                id,
                local,
                remote,
                nat,
            } => {
                let path = path(nat, local, remote);
                self.table.relocate(&mut self.owner.sadb, id, &path);
            }
            Event::Closed { id: sa, reason, .. } => {
                if reason == CloseReason::PeerDeleted {
                    self.wallet.retain(|_, (of, _)| *of != sa);
                }
                if let Some(id) = self.table.of_sa(sa).map(|session| session.id) {
                    self.end(id, false, now);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_key_action(&mut self, action: kms::Action, now: Instant) {
        match action {
            kms::Action::Authenticate { gateway } => {
                self.begun.push(now.saturating_duration_since(self.start));
                let ticket = self.ticket(gateway);
                let at = |ip| SocketAddr::new(ip, IKE_PORT);
                let wish = Initiate {
                    local: at(self.address),
                    remote: at(gateway),
                    remote_id: None,
                    auth: methods(),
                    request_addresses: Some(AddressRequest {
                        v4: Some(None),
                        v6: None,
                    }),
                    local_ts: vec![TrafficSelector::any_v4()],
                    remote_ts: vec![targets()],
                    initial_contact: self.kms.session(gateway).is_none(),
                    follows_redirects: true,
                    redirected_from: None,
                };
                let id = match ticket {
                    Some(ticket) => self.engine.resume(now, wish, ticket, &mut self.owner),
                    None => self.engine.initiate(now, wish, &mut self.owner),
                };
                self.pending.insert(id, gateway);
            }
            kms::Action::Granted { gateway, .. } => match self.table.lead(gateway).is_some() {
                true => self.monitor.on_granted(gateway, now),
                false => self.monitor.on_key_failed(now),
            },
            kms::Action::Rejected { retry_at, .. } => {
                self.refused_until = Some(retry_at);
                self.monitor.on_key_failed(now);
            }
            kms::Action::DropSession { session, .. } => {
                let id = SessionId(session.0);
                if !self.table.dies(id) {
                    self.end(id, true, now);
                }
            }
        }
    }

    /// What a session with a gateway is resumed by: its own ticket, or the newest of those of gateways
    /// that are gone.
    fn ticket(&mut self, gateway: IpAddr) -> Option<Ticket> {
        let issuer = match self.wallet.contains_key(&gateway) {
            true => gateway,
            false => {
                let kms = &self.kms;
                let others = self.policy.iter();
                let others = others.filter(|other| kms.session(**other).is_none());
                let others = others.filter_map(|other| Some((self.wallet.get(other)?.0, *other)));
                others.max()?.1
            }
        };
        let (_, ticket) = self.wallet.remove(&issuer)?;
        Some(ticket)
    }

    pub(super) fn on_monitor(&mut self, action: liveness::Action, step: &mut Step<'_>) {
        match action {
            liveness::Action::Heartbeat { gateway, counter } => {
                let Some(session) = self.table.leading(gateway) else {
                    return;
                };
                let token: [u8; 8] = step.rng.random();
                if session.asked.len() >= ASKED {
                    session.asked.remove(0);
                }
                session.asked.push((counter, token));
                let spi = session.spi_out().to_be_bytes();
                let bytes = heartbeat::encode_request(&session.heartbeat_key, counter, spi, token);
                step.out.push((gateway, Packet::Esp(bytes.to_vec())));
            }
            liveness::Action::Activate { gateway } => {
                step.watch.switched(self.index, gateway);
                self.taken_back(gateway, step.now);
                self.refused_until = None;
                self.kms.on_active(CLUSTER, Some(gateway), step.now);
                let session = self.table.leading(gateway);
                step.watch
                    .holds(session.is_some(), "a gateway is used without a session");
                if let Some(dummy) = session.and_then(|s| s.seal(None, step.watch)) {
                    step.out.push((gateway, Packet::Esp(dummy)));
                }
            }
            liveness::Action::Inactive => self.kms.on_active(CLUSTER, None, step.now),
            liveness::Action::Dead { gateway, .. } => {
                self.kms.on_dead(gateway, step.now);
                while let Some(action) = self.kms.next_action() {
                    self.on_key_action(action, step.now);
                }
                let with = |session: &&Session| session.spec.gateway == Some(gateway);
                let all = self.table.iter().filter(with);
                let dying: Vec<_> = all
                    .map(|session| session.id)
                    .filter(|id| self.table.dies(*id))
                    .collect();
                dying
                    .into_iter()
                    .for_each(|id| self.end(id, true, step.now));
                let kept = self.table.iter().any(|session| with(&session));
                step.watch
                    .holds(!kept, "a session is kept for a gateway declared dead");
            }
            liveness::Action::RequestKey { after } => self.kms.request(CLUSTER, after, step.now),
            liveness::Action::Health { .. } => {}
        }
    }
}
