//! Pairs of SAs beside a session's own, one for each further worker (RFC 9611), so that each can seal and
//! open by itself. Whoever began the session asks for them; what a peer does not grant goes by the
//! session's own pair.

use std::time::{Duration, Instant};

use super::core::Node;
use crate::ike::{Failure, SaId};
use crate::sadb::SessionSpec;

/// What did not come about is asked for again after this time.
const AGAIN: Duration = Duration::from_secs(10);

impl Node {
    /// Whether a new session is to have pairs for all workers. Only a peer that is known to understand
    /// is asked: others may take a further pair for a new one in place of the old.
    pub(super) fn wants_lanes(&self, spec: &SessionSpec) -> bool {
        let several = self.dataplane.workers() > 1;
        several && spec.initiator && spec.gateway.is_some() && spec.heartbeat_key.is_some()
    }

    /// Asks for the pairs that sessions lack.
    pub(super) fn complete_lanes(&mut self, now: Instant) {
        let workers = u16::try_from(self.dataplane.workers()).unwrap_or(u16::MAX);
        if workers < 2 {
            return;
        }
        let mut wanted = Vec::new();
        for id in self.table.current() {
            let Some(live) = self.table.live.get(&id) else {
                continue;
            };
            let sa = live.sa;
            let due = live.lanes_at.is_some_and(|at| at <= now) && !self.dying.contains(id);
            if !due || !self.engine.is_established(sa) {
                continue;
            }
            let lacks = |lane: &u16| self.table.of_lane(sa, *lane).is_none();
            wanted.extend((1..workers).filter(lacks).map(|lane| (sa, lane)));
            if let Some(live) = self.table.live.get_mut(&id) {
                live.lanes_at = Some(now + AGAIN);
            }
        }
        for (sa, lane) in wanted {
            self.engine.add_lane(now, sa, lane, &mut self.answers);
        }
    }

    /// A further pair was not to be had: for good, if the peer says so.
    pub(super) fn lane_refused(&mut self, sa: SaId, error: &Failure) {
        let for_good = matches!(error, Failure::TsMaxQueue | Failure::NoAdditionalSas);
        let session = self.table.of_sa(sa).filter(|_| for_good);
        if let Some(live) = session.and_then(|id| self.table.live.get_mut(&id)) {
            live.lanes_at = None;
        }
    }
}
