//! Which tickets have been used: each gives one session.

use std::collections::{BTreeSet, HashSet};

use super::TicketId;

/// Used tickets, until they expire.
pub(super) struct Used {
    ids: HashSet<TicketId>,
    by_expiry: BTreeSet<(u64, TicketId)>,
    most: usize,
}

impl Used {
    pub(super) fn new(most: usize) -> Used {
        Used {
            ids: HashSet::new(),
            by_expiry: BTreeSet::new(),
            most: most.max(1),
        }
    }

    pub(super) fn contains(&self, id: &TicketId) -> bool {
        self.ids.contains(id)
    }

    /// Notes a ticket; false if it is known already.
    pub(super) fn take(&mut self, id: TicketId, now: u64, expires: u64) -> bool {
        while let Some((at, old)) = self.by_expiry.first().copied()
            && (at <= now || self.ids.len() >= self.most && !self.ids.contains(&id))
        {
            self.by_expiry.remove(&(at, old));
            self.ids.remove(&old);
        }
        let new = self.ids.insert(id);
        if new {
            self.by_expiry.insert((expires, id));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_and_those_that_expire_first_are_forgotten() {
        let mut used = Used::new(3);
        let id = |n: u8| [n; 16];
        assert!(used.take(id(1), 0, 50));
        assert!(!used.take(id(1), 0, 50));
        assert!(used.take(id(2), 0, 40) && used.take(id(3), 0, 60));
        // No room: the one that expires first goes.
        assert!(used.take(id(4), 0, 70));
        let known = |used: &Used| [1, 2, 3, 4].map(|n| used.contains(&id(n)));
        assert_eq!(known(&used), [true, false, true, true]);
        assert!(
            !used.take(id(3), 0, 60),
            "the table is full, and it is known"
        );
        assert!(used.take(id(5), 65, 90));
        assert_eq!(known(&used), [false, false, false, true]);
        assert_eq!((used.ids.len(), used.by_expiry.len()), (2, 2));
    }
}
