//! A session of a client gets fresh keys: a new pair of SAs takes the place of the old one on every edge.

use std::sync::Arc;
use std::time::Instant;

use super::Authority;
use crate::cluster::wire::{Down, Succession};
use crate::ike::{Event, Outbound, SaId};
use crate::node::establish::AFTERLIFE;
use crate::node::events::{EventKind, NewEvent};
use crate::node::sessions::successor;
use crate::sadb::Change;

impl Authority {
    /// A new pair of SAs for a session that is there.
    pub(super) fn succeeded(&mut self, event: Event, now: Instant) {
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
            return;
        };
        let of_lane = self.table.of_lane(sa, child.lane);
        let current = of_lane.or(self.table.of_sa(sa));
        let Some(current) = current.and_then(|id| self.table.live.get(&id)) else {
            // A session that is not wanted any more: its end is on its way.
            self.answers.sadb.release_spi(child.spi_in);
            return;
        };
        let mut live = current.clone();
        let (old, window) = (live.spec.id, self.config.esp.replay_window);
        let beside = live.spec.inbound.as_ref().map(|sa| sa.spi);
        let made = successor(&live.spec, &child, &exporter, window).map_err(|bad| bad.to_string());
        let added = made.and_then(|spec| self.answers.sadb.insert(spec).map_err(|e| e.to_string()));
        let changes = match added {
            Ok(changes) => changes,
            Err(why) => {
                self.answers.sadb.release_spi(child.spi_in);
                let why = format!("its new keys are of no use: {why}");
                return self.end_session(old, &why, true);
            }
        };
        let shared = beside.and_then(|spi| self.shared.get(&spi));
        let inner = shared.map(|shared| shared.carrier.pair.inner.clone());
        let remote = live.spec.peer_at();
        let told = self.places.get(&sa).copied().unwrap_or(remote);
        for change in changes {
            let Change::Add(spec) = change else { continue };
            self.keylog.esp(&spec);
            live.spec = Arc::clone(&spec);
            (live.alive, live.asked) = (now, now);
            live.redundant = outbound == Outbound::Never;
            live.retired = live.redundant;
            self.table.insert(live.clone());
            let succession = match outbound {
                Outbound::AtOnce => Succession::AtOnce,
                Outbound::WhenHeard => Succession::WhenHeard,
                Outbound::Never => Succession::Never,
            };
            let inner = inner.clone().unwrap_or_default();
            self.share(&live, inner, succession, told, beside, now);
            if let Some(at) = self.dying.remove(old) {
                self.dying.insert(at, spec.id);
            }
            if !live.redundant && live.spec.lane == 0 {
                let text = format!("session with {} has a fresh pair of SAs", live.peer);
                self.note(NewEvent::new(EventKind::SessionRekeyed, text));
            }
        }
    }

    /// A pair of SAs is closed on both sides.
    pub(super) fn child_closed(&mut self, sa: SaId, spi_in: u32, now: Instant) {
        let Some(shared) = self.shared.get(&spi_in).filter(|s| s.sa == Some(sa)) else {
            return;
        };
        let id = shared.session;
        if !self.engine.is_established(sa) && self.table.of_sa(sa) == Some(id) {
            return self.end_session(id, "its child SA was deleted by the peer", false);
        }
        let Some(live) = self.table.live.get(&id) else {
            return;
        };
        let current = self.table.of_lane(sa, live.spec.lane);
        // The client receives on its successor, or it would not have let it go.
        let current = current.filter(|current| *current != id && !live.redundant);
        let next = current.and_then(|current| self.table.live.get(&current));
        if let Some(next) = next.and_then(|next| next.spec.inbound.as_ref()) {
            let spi = next.spi;
            for (edge, known) in &self.edges {
                if known.from.is_some() {
                    self.listener.send(*edge, Down::SendOn { spi });
                }
            }
            if let Some(shared) = self.shared.get_mut(&spi) {
                shared.carrier.succession = Succession::AtOnce;
                shared.carrier.sequence += 1;
            }
        }
        // What is in flight still comes.
        self.retired.insert(now + AFTERLIFE, id);
    }
}
