//! A gateway lets go of its clients before maintenance (`evergate drain`): it takes nobody any more,
//! says so in its heartbeats, and asks each client to leave for another gateway (RFC 5685). Who has
//! not left when the patience is over is deleted.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use evergate_common::heartbeat::{HEALTH_DRAINING, HEALTH_WELL};

use super::commands::Answer;
use super::core::{Node, Role};
use super::events::{EventKind, NewEvent};
use crate::api::model::{self, Done};
use crate::api::server::CommandError;
use crate::ike::GatewayIdentity;
use crate::sadb::SessionId;

/// A client that stays is asked again after this time: it may have found no other gateway.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// So many are asked, or deleted, at each tick of 200 ms: the other gateways have to take them all.
const AT_ONCE: usize = 200;

/// Where clients are sent, in turn.
pub(super) struct Elsewhere {
    gateways: Vec<GatewayIdentity>,
    turn: usize,
}

impl Elsewhere {
    pub(super) fn new(gateways: Vec<GatewayIdentity>) -> Self {
        Self { gateways, turn: 0 }
    }

    /// The next one for a peer at `remote`, who did not come from there just now.
    pub(super) fn next(&mut self, remote: IpAddr, from: Option<IpAddr>) -> Option<GatewayIdentity> {
        let fits = |gateway: &GatewayIdentity| match gateway {
            GatewayIdentity::Address(at) => at.is_ipv4() == remote.is_ipv4() && Some(*at) != from,
            GatewayIdentity::Fqdn(_) => true,
        };
        let (head, tail) = self.gateways.split_at_checked(self.turn)?;
        let mut round = tail.iter().chain(head).zip(1..);
        let (found, steps) = round.find(|(gateway, _)| fits(gateway))?;
        self.turn = (self.turn + steps) % self.gateways.len();
        Some(found.clone())
    }
}

/// How far a gateway has let go of its clients.
pub(super) struct Drain {
    since: Instant,
    /// Until then they leave by themselves.
    until: Instant,
    ask_at: Instant,
    unasked: Vec<SessionId>,
    /// That nobody is left was told.
    drained: bool,
}

fn sessions(count: usize) -> String {
    match count {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    }
}

impl Node {
    /// Begins to drain, or ends it.
    pub(super) fn drain(&mut self, undo: bool) -> Answer<Done> {
        let now = Instant::now();
        let Role::Gateway(gateway) = &mut self.role else {
            let text = "only a gateway drains: a client has nobody to let go of";
            return Err(CommandError::Invalid(text.to_owned()));
        };
        let health = if undo { HEALTH_WELL } else { HEALTH_DRAINING };
        self.dataplane
            .set_health(health)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let left = match &self.edge {
            Some(edge) => edge.owned(),
            None => self.table.sessions(),
        };
        if let Some(edge) = &mut self.edge
            && undo
        {
            edge.give_back(true);
        }
        let text = match (undo, gateway.drain.is_some()) {
            (true, false) => return Ok(Done::new("not draining: clients are taken already")),
            (false, true) => return Ok(Done::new("draining already")),
            (true, true) => {
                gateway.drain = None;
                self.answers.elsewhere = None;
                "draining is over: clients are taken again".to_owned()
            }
            (false, false) => {
                let config = &self.config.drain;
                gateway.drain = Some(Drain {
                    since: now,
                    until: now + config.patience,
                    ask_at: now,
                    unasked: Vec::new(),
                    drained: false,
                });
                // All gateways of a cluster may have the same list.
                let others = config.gateways.iter();
                let others = others.filter(|g| **g != GatewayIdentity::Address(self.address));
                self.answers.elsewhere = Some(Elsewhere::new(others.cloned().collect()));
                // Soon, and not only at the next tick.
                self.tick = now;
                let (left, patience) = (sessions(left), config.patience.as_secs());
                format!("draining: {left} to let go of, by force after {patience} s")
            }
        };
        self.note(NewEvent::new(EventKind::Drain, text.clone()));
        Ok(Done::new(text))
    }

    /// Asks clients to leave, and deletes what is left in the end.
    pub(super) fn go_on_draining(&mut self, now: Instant) -> Result<()> {
        let Role::Gateway(gateway) = &mut self.role else {
            return Ok(());
        };
        let Some(drain) = &mut gateway.drain else {
            return Ok(());
        };
        if now >= drain.ask_at {
            drain.ask_at = now + ASK_AGAIN;
            drain.unasked = self.table.current();
        }
        let rest = drain.unasked.len().saturating_sub(AT_ONCE);
        let asked = drain.unasked.split_off(rest);
        let over = now >= drain.until;
        let done = match &self.edge {
            Some(edge) => edge.owned() == 0,
            None => self.table.live.is_empty(),
        };
        let news = std::mem::replace(&mut drain.drained, done) != done;
        if let Some(edge) = &mut self.edge {
            // Each goes when another edge hears its client; what is left has nobody who sends.
            if over {
                edge.give_back(false);
            }
        } else if over {
            for id in self.table.current().into_iter().take(AT_ONCE) {
                self.end_session(id, "drained", true)?;
            }
        } else {
            asked.into_iter().for_each(|id| self.ask_to_leave(id, now));
        }
        if done && news {
            self.note(NewEvent::new(
                EventKind::Drain,
                match self.edge {
                    Some(_) => "drained: no pair of SAs is in use here",
                    None => "drained: no session is left",
                },
            ));
        }
        Ok(())
    }

    fn ask_to_leave(&mut self, id: SessionId, now: Instant) {
        let Some(live) = self.table.live.get(&id) else {
            return;
        };
        let elsewhere = self.answers.elsewhere.as_mut();
        let named = elsewhere.and_then(|e| e.next(live.spec.outside_remote, None));
        // A client of ours has its own list: whoever names itself only wants to be left. Others
        // would come back to it.
        let ours = live.spec.heartbeat_key.is_some();
        let itself = ours.then_some(GatewayIdentity::Address(self.address));
        if let Some(to) = named.or(itself) {
            self.engine.redirect(now, live.sa, to);
        }
    }

    /// What the status says of it.
    pub(super) fn drain_view(&self) -> Option<model::Drain> {
        let Role::Gateway(gateway) = &self.role else {
            return None;
        };
        let drain = gateway.drain.as_ref()?;
        let now = Instant::now();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(model::Drain {
            sessions: self
                .edge
                .as_ref()
                .map_or(self.table.sessions(), |e| e.owned()) as u64,
            since_ms: millis(now.saturating_duration_since(drain.since)),
            patience_ms: millis(drain.until.saturating_duration_since(now)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_sent_to_the_next_gateway_that_it_can_reach() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let [b, c, six] = ["192.0.2.2", "192.0.2.3", "2001:db8::2"].map(ip);
        let gateways = [b, six, c].map(GatewayIdentity::Address).to_vec();
        let mut elsewhere = Elsewhere::new(gateways);
        let (v4, v6) = (ip("198.51.100.7"), ip("2001:db8:1::7"));
        for (remote, from, to) in [
            (v4, None, Some(b)),
            (v4, None, Some(c)),
            (v4, None, Some(b)),
            (v4, Some(c), Some(b)),
            (v6, None, Some(six)),
            (v6, Some(six), None),
            (v4, None, Some(c)),
        ] {
            let expected = to.map(GatewayIdentity::Address);
            assert_eq!(elsewhere.next(remote, from), expected);
        }
        let name = GatewayIdentity::Fqdn("gw.example".into());
        let mut elsewhere = Elsewhere::new(vec![name.clone()]);
        assert_eq!(elsewhere.next(v6, Some(six)), Some(name));
        assert_eq!(Elsewhere::new(Vec::new()).next(v4, None), None);
    }
}
