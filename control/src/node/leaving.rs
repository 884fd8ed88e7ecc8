//! A client that a gateway sends elsewhere (RFC 5685). Where to is the gateway's to propose, and the
//! policy's to allow: only gateways of the same cluster are followed to. Make before break: the
//! session stays until traffic goes through another one, and a while longer for what is in flight.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use super::core::{Node, Purpose, Role};
use super::establish::AFTERLIFE;
use super::events::{EventKind, NewEvent};
use super::hooks::Answers;
use crate::dataplane::Command;
use crate::ike::{Failure, GatewayIdentity, Identity, RedirectLimit, SaId};
use crate::kms::SessionHandle;
use crate::sadb::SessionId;

/// What a client knows of gateways that have sent it elsewhere.
#[derive(Default)]
pub(super) struct Leaving {
    /// Those that want to be left, as long as there is a session with them.
    gateways: HashSet<IpAddr>,
    /// Sessions that were left, and end soon.
    left: HashMap<IpAddr, SessionId>,
    /// From each gateway that was named, who has named it; for its first message.
    named_by: HashMap<IpAddr, IpAddr>,
    limit: RedirectLimit,
}

impl Leaving {
    /// Who has sent us to this gateway, to be told to it once.
    pub(super) fn sent_to(&mut self, gateway: IpAddr) -> Option<IpAddr> {
        self.named_by.remove(&gateway)
    }

    /// A session that was left goes on under another name, with fresh keys.
    pub(super) fn rekeyed(&mut self, old: SessionId, new: SessionId) {
        for left in self.left.values_mut().filter(|left| **left == old) {
            *left = new;
        }
    }
}

impl Answers {
    /// The address of a gateway that was named. A name means what the configuration says.
    fn gateway_named(&self, gateway: &GatewayIdentity) -> Option<IpAddr> {
        match gateway {
            GatewayIdentity::Address(at) => Some(*at),
            GatewayIdentity::Fqdn(name) => {
                let peer = self.peer(&Identity::Fqdn(name.clone()));
                peer.and_then(|peer| peer.outside)
            }
        }
    }
}

impl Node {
    /// The gateway of an established session wants to be left.
    pub(super) fn redirected(&mut self, sa: SaId, to: &GatewayIdentity, now: Instant) {
        let live = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id));
        let Some((gateway, peer)) = live.and_then(|l| Some((l.spec.gateway?, l.peer.clone())))
        else {
            return;
        };
        let allowed = self.answers.peer_at(gateway).is_some_and(|p| p.redirects);
        let named = self.answers.gateway_named(to);
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let news = !client.leaving.gateways.contains(&gateway);
        let refused = if !allowed {
            Some("the configuration does not let it")
        } else if !client.kms.has_other(gateway) {
            Some("the policy has no other gateway for its tunnels")
        } else if news && !client.leaving.limit.pass(now) {
            Some("it is one redirect too many in a short time")
        } else {
            None
        };
        if let Some(why) = refused {
            let text = format!("{peer} at {gateway} wants to be left for {to}: refused, {why}");
            return self.note(NewEvent::new(EventKind::Redirected, text).gateway(gateway));
        }
        client.leaving.gateways.insert(gateway);
        let followed = named.filter(|to| client.kms.prefer(gateway, *to));
        if let Some(to) = followed {
            client.leaving.named_by.insert(to, gateway);
        }
        self.dataplane.command(Command::Leave(gateway, followed));
        if news {
            let text = match followed {
                Some(to) => format!("{peer} at {gateway} wants to be left for {to}"),
                None => format!("{peer} at {gateway} wants to be left"),
            };
            self.note(NewEvent::new(EventKind::Redirected, text).gateway(gateway));
        }
        self.leave_the_unused(now);
    }

    /// A gateway does not take us, and may have said who does. `None` if that is followed, or it is
    /// nothing of the kind; else why not.
    pub(super) fn sent_elsewhere(
        &mut self,
        purpose: Option<&Purpose>,
        error: &Failure,
        now: Instant,
    ) -> Option<&'static str> {
        let (Some(Purpose::Gateway { gateway, .. }), Failure::Redirected(to)) = (purpose, error)
        else {
            return None;
        };
        let named = self.answers.gateway_named(to);
        let Role::Client(client) = &mut self.role else {
            return None;
        };
        // In the background the list decides.
        if !client.kms.is_asked(*gateway) {
            return None;
        }
        if !client.leaving.limit.pass(now) {
            return Some("one redirect too many in a short time");
        }
        match named.filter(|to| client.kms.prefer(*gateway, *to)) {
            Some(to) => {
                client.leaving.named_by.insert(to, *gateway);
                None
            }
            None => Some("no cluster of the policy lists it beside this one"),
        }
    }

    /// Ends sessions with gateways that want to be left, once nothing uses them.
    pub(super) fn leave_the_unused(&mut self, now: Instant) {
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let active = &client.active;
        let left = client
            .leaving
            .gateways
            .extract_if(|gateway| !active.values().any(|used| used == gateway));
        for gateway in left {
            if let Some(session) = client.kms.session(gateway) {
                client.kms.on_left(gateway, now);
                let session = SessionId(session.0);
                self.dying.insert(now + AFTERLIFE, session);
                client.leaving.left.insert(gateway, session);
            }
        }
        let dying = &self.dying;
        client.leaving.left.retain(|_, id| dying.contains(*id));
    }

    /// Traffic has gone back to a gateway that was left: the others are worse. Its session does not end
    /// then.
    pub(super) fn taken_back(&mut self, gateway: IpAddr, now: Instant) {
        let Role::Client(client) = &mut self.role else {
            return;
        };
        if let Some(id) = client.leaving.left.remove(&gateway)
            && client.kms.session(gateway).is_none()
            && self.dying.remove(id).is_some()
        {
            client.leaving.gateways.insert(gateway);
            client
                .kms
                .on_peer_initiated(gateway, SessionHandle(id.0), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_keys_leave_a_session_left() {
        let gateway = IpAddr::from([192, 0, 2, 1]);
        let mut leaving = Leaving::default();
        leaving.left.insert(gateway, SessionId(1));
        leaving.rekeyed(SessionId(7), SessionId(8));
        leaving.rekeyed(SessionId(1), SessionId(2));
        assert_eq!(leaving.left, HashMap::from([(gateway, SessionId(2))]));
    }
}
