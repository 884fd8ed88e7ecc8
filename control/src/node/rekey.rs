//! A session gets fresh keys: a new pair of SAs takes the place of the old one, without a lost
//! packet.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::core::{Node, Role};
use super::establish::AFTERLIFE;
use super::events::{EventKind, NewEvent};
use super::sessions::{Live, successor};
use crate::dataplane::{Command, Sending, SessionView, Traffic};
use crate::ike::{Event, Failure, Outbound, SaId};
use crate::kms::SessionHandle;
use crate::sadb::{Change, SessionId};

/// What is to be reached before fresh keys are asked for. Both ends count about the same: the one that did not
/// begin the session waits a little longer, for the other one to act.
pub(super) fn with_patience(limit: u64, initiator: bool) -> u64 {
    match initiator {
        true => limit,
        false => limit.saturating_add(limit / 8),
    }
}

/// Whether a pair of SAs has carried so much that fresh keys are due.
fn has_carried_enough(limit: Traffic, view: &SessionView, initiator: bool) -> bool {
    let more = |of: fn(&Traffic) -> u64| of(&view.inbound).max(of(&view.outbound));
    let patience = |limit| with_patience(limit, initiator);
    more(|traffic| traffic.packets) >= patience(limit.packets)
        || more(|traffic| traffic.bytes) >= patience(limit.bytes)
}

impl Node {
    /// A new pair of SAs for a session that is there.
    pub(super) async fn rekeyed(&mut self, event: Event, now: Instant) -> Result<()> {
        let (Event::ChildRekeyed {
            id: sa,
            child,
            outbound,
            exporter,
            ..
        }
        | Event::ChildAdded {
            id: sa,
            child,
            outbound,
            exporter,
        }) = event
        else {
            return Ok(());
        };
        let session = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id));
        let of_lane = self.table.of_lane(sa, child.lane);
        let before = of_lane.and_then(|id| self.table.live.get(&id));
        let Some(current) = before.or(session) else {
            // A session that is not wanted any more: its end is on its way.
            self.answers.sadb.release_spi(child.spi_in);
            return Ok(());
        };
        let is_new_lane = before.is_none();
        let mut live = current.clone();
        let (old, window) = (live.spec.id, self.config.esp.replay_window);
        let made = successor(&live.spec, &child, &exporter, window)
            .map_err(|bad| bad.to_string())
            .and_then(|spec| {
                let added = self.answers.sadb.insert(spec);
                added.map_err(|error| error.to_string())
            });
        let changes = match made {
            Ok(changes) => changes,
            Err(why) => {
                self.answers.sadb.release_spi(child.spi_in);
                return self.end_session(old, &format!("its new keys are of no use: {why}"), true);
            }
        };
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            let new = spec.id;
            live.spec = Arc::clone(&spec);
            (live.alive, live.asked) = (now, now);
            if spec.lane > 0 {
                (live.reauth_at, live.lanes_at) = (None, None);
            }
            live.redundant = outbound == Outbound::Never;
            live.retired = live.redundant;
            let (group, retired) = (live.group, live.retired);
            let event = told(&live, "has a fresh pair of SAs");
            self.table.insert(live.clone());
            let sending = match outbound {
                Outbound::AtOnce => Sending::AtOnce,
                Outbound::WhenHeard => Sending::WhenHeard,
                Outbound::Never => Sending::Told,
            };
            self.classify(new)?;
            let lane = spec.lane;
            let session = self.table.of_sa(sa);
            let dies = lane > 0 && session.is_some_and(|id| self.dying.contains(id));
            self.dataplane.succeed_session(spec, group, sending).await?;
            if dies {
                // Another session has taken over.
                self.dataplane.command(Command::Cease(new));
            }
            if retired {
                continue;
            }
            if is_new_lane {
                let peer = &live.peer;
                tracing::debug!("session with {peer}: a pair of SAs for another worker, {lane}");
                continue;
            }
            if lane > 0 {
                continue;
            }
            if let (Some(gateway), Role::Client(client)) = (live.spec.gateway, &mut self.role) {
                let handle = |id: SessionId| SessionHandle(id.0);
                client.kms.on_rekeyed(gateway, handle(old), handle(new));
                client.leaving.rekeyed(old, new);
            }
            // A session that only receives any more goes on doing so under its new name.
            if let Some(at) = self.dying.remove(old) {
                self.dying.insert(at, new);
            }
            self.note(event);
        }
        Ok(())
    }

    /// A pair of SAs is closed on both sides.
    pub(super) fn child_closed(&mut self, sa: SaId, spi_in: u32, now: Instant) -> Result<()> {
        let Some(id) = self.answers.sadb.by_inbound_spi(spi_in).map(|spec| spec.id) else {
            return Ok(());
        };
        if !self.engine.is_established(sa) && self.table.of_sa(sa) == Some(id) {
            return self.end_session(id, "its child SA was deleted by the peer", true);
        }
        let Some(live) = self.table.live.get(&id).filter(|live| live.sa == sa) else {
            return Ok(());
        };
        let current = self.table.of_lane(sa, live.spec.lane);
        if current == Some(id) && live.spec.lane > 0 {
            self.dataplane.command(Command::Cease(id));
        }
        // The peer receives on its successor, or it would not have let it go.
        if let Some(current) = current.filter(|current| *current != id && !live.redundant) {
            self.dataplane.send_on(current);
        }
        // What is in flight still comes.
        self.retired.insert(now + AFTERLIFE, id);
        Ok(())
    }

    /// No new pair of SAs came about; IKE tries again, until the old one's time is over.
    pub(super) fn rekey_failed(&self, sa: SaId, error: &Failure) {
        let live = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id));
        // While both ends do the same, or a session ends, one of them always fails.
        if let Some(live) = live.filter(|_| self.engine.is_established(sa)) {
            let (peer, outside) = (&live.peer, live.spec.outside_remote);
            tracing::info!("no fresh keys with {peer} at {outside} for now: {error}");
        }
    }

    /// The IKE SA of a session has fresh keys.
    pub(super) fn ike_rekeyed(&self, sa: SaId) {
        let live = self.table.of_sa(sa).and_then(|id| self.table.live.get(&id));
        if let Some(live) = live {
            self.note(told(live, "has a fresh IKE SA"));
        }
    }

    /// The peer has lost count of what came from us: what is sent from now on has numbers so much higher.
    pub(super) fn go_ahead(&self, sa: SaId, by: u64) {
        for id in self.table.all_of(sa) {
            self.dataplane.command(Command::SkipAhead(id, by));
        }
    }

    /// Asks for fresh keys where the old ones have protected enough.
    pub(super) fn judge_traffic(&mut self, now: Instant) {
        let view = self.dataplane.views().load();
        let limit = Traffic {
            packets: self.config.ike.rekey_packets,
            bytes: self.config.ike.rekey_bytes,
        };
        for shown in view.sessions.iter() {
            let live = self.table.live.get(&shown.id);
            let Some(live) = live.filter(|live| !live.retired) else {
                continue;
            };
            if let Some(inbound) = &live.spec.inbound
                && has_carried_enough(limit, shown, live.spec.initiator)
            {
                self.engine.rekey_child(now, live.sa, inbound.spi);
            }
        }
    }
}

fn told(live: &Live, what: &str) -> NewEvent {
    let (peer, outside) = (&live.peer, live.spec.outside_remote);
    let text = format!("session with {peer} at {outside} {what}");
    let event = NewEvent::new(EventKind::SessionRekeyed, text);
    match live.spec.gateway {
        Some(gateway) => event.gateway(gateway),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_direction_and_either_measure_count() {
        let limit = Traffic {
            packets: 8000,
            bytes: 1_600_000,
        };
        let enough = |initiator, inbound: (u64, u64), outbound: (u64, u64)| {
            let traffic = |(packets, bytes)| Traffic { packets, bytes };
            let view = SessionView {
                id: SessionId(1),
                active: true,
                inbound: traffic(inbound),
                outbound: traffic(outbound),
                path: (1500, crate::dataplane::pmtu::Phase::Followed),
                last_heard: None,
            };
            has_carried_enough(limit, &view, initiator)
        };
        for (inbound, outbound, expected) in [
            ((7999, 1_599_999), (7999, 1_599_999), [false, false]),
            ((8000, 0), (0, 0), [true, false]),
            ((0, 0), (9000, 0), [true, true]),
            ((0, 1_600_000), (0, 0), [true, false]),
            ((0, 0), (0, 1_800_000), [true, true]),
        ] {
            assert_eq!(
                [true, false].map(|began| enough(began, inbound, outbound)),
                expected
            );
        }
    }
}
