//! Sessions that are to go at a time, the soonest first.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::sadb::SessionId;

/// When which session goes.
#[derive(Default)]
pub(super) struct Departures {
    when: HashMap<SessionId, Instant>,
    order: BTreeSet<(Instant, SessionId)>,
}

impl Departures {
    /// It goes at that time; or sooner, if it was to.
    pub(super) fn insert(&mut self, at: Instant, id: SessionId) {
        if self.when.get(&id).is_some_and(|before| *before <= at) {
            return;
        }
        self.remove(id);
        self.when.insert(id, at);
        self.order.insert((at, id));
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Instant> {
        let at = self.when.remove(&id)?;
        self.order.remove(&(at, id));
        Some(at)
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.when.contains_key(&id)
    }

    /// The next time at which one goes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// One whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<SessionId> {
        let (at, id) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.remove(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_soonest_goes_first_and_none_before_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut departures = Departures::default();
        for (seconds, id) in [(3, 1), (1, 2), (2, 3), (5, 3)] {
            departures.insert(at(seconds), SessionId(id));
        }
        assert_eq!(departures.next(), Some(at(1)));
        assert!(departures.contains(SessionId(3)));
        assert_eq!(departures.remove(SessionId(2)), Some(at(1)));
        assert_eq!(departures.remove(SessionId(2)), None);
        assert_eq!(departures.pop(at(1)), None);
        assert_eq!(departures.pop(at(4)), Some(SessionId(3)));
        assert_eq!(departures.pop(at(4)), Some(SessionId(1)));
        assert_eq!((departures.pop(at(9)), departures.next()), (None, None));
        assert!(!departures.contains(SessionId(1)));
    }
}
