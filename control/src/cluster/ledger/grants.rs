//! Who gets a pair, with which numbers, and what the repository has to keep first.

use super::entry::{Entry, Holder, Rest};
use super::{Ledger, Order};
use crate::cluster::EdgeId;
use crate::cluster::message::{Grant, Kept, Refusal, ToEdge};

impl Ledger {
    /// The repository has what it was to keep.
    pub fn stored(&mut self, spi: u32, kept: Kept) {
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        if entry.storing != Some(kept) {
            return;
        }
        entry.storing = None;
        entry.kept = kept;
        if let Holder::Granting(edge, rest) = entry.holder {
            self.grant(spi, edge, rest);
            return self.settle(spi);
        }
        // What its owner has claimed may have been beyond all that was kept.
        let claimed = entry.wanted > entry.soft;
        let owner = entry.owner().filter(|_| claimed);
        if claimed
            && entry.reach(0, self.terms.burst)
            && let Some(owner) = owner
        {
            self.widen(owner, spi);
        }
        self.settle(spi);
    }

    /// An edge gets what the repository knows to be used up.
    fn grant(&mut self, spi: u32, edge: EdgeId, rest: Rest) {
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        let lost = rest.floor.saturating_sub(entry.reported);
        entry.holder = Holder::Owner(edge);
        entry.top = rest.floor;
        entry.wide = false;
        let highest = rest.floor.max(entry.wanted);
        let soft = highest.saturating_add(self.terms.burst);
        entry.soft = soft.min(entry.kept.hard);
        (entry.restored, entry.base) = (false, entry.leased);
        let first = entry.leased.saturating_add(1);
        entry.leased = (entry.leased.saturating_add(self.terms.block)).min(entry.kept.reserved);
        let grant = Grant {
            floor: rest.floor,
            missing: rest.missing,
            first,
            limits: entry.limits(),
        };
        if rest.guessed {
            self.orders.push_back(Order::Rekey { spi, lost });
        }
        self.send(edge, ToEdge::Grant { spi, grant });
    }

    /// Grants a pair to who waits for it, and has the repository keep more of its numbers where they run out. What
    /// the repository has for used up is enough: who owns it is kept later. Nobody else has that part then, or whoever
    /// had it has stopped; and the next authority begins beyond all of it.
    pub(super) fn settle(&mut self, spi: u32) {
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        if let (&Holder::Nobody(rest), Some(edge)) = (&entry.holder, entry.next) {
            let enough = entry.leased < entry.kept.reserved
                && rest.floor.max(entry.wanted) < entry.kept.hard;
            if entry.storing.is_some() && !enough {
                return;
            }
            entry.next = None;
            entry.rekey |= rest.guessed;
            if entry.leased >= entry.highest {
                let refusal = Refusal::Exhausted;
                self.send(edge, ToEdge::Refuse { spi, refusal });
                self.orders.push_back(Order::Rekey { spi, lost: 0 });
                return;
            }
            entry.term = entry.term.saturating_add(1);
            match enough {
                true => self.grant(spi, edge, rest),
                false => entry.holder = Holder::Granting(edge, rest),
            }
        }
        self.keep(spi);
    }

    /// Has the repository keep who owns a pair, and which numbers it may use.
    fn keep(&mut self, spi: u32) {
        let terms = &self.terms;
        let Some(entry) = self.entries.get_mut(&spi) else {
            return;
        };
        if entry.storing.is_some() {
            return;
        }
        let highest = entry.highest;
        let more = |from: u64, by: u64| from.saturating_add(by).min(highest);
        let mut kept = entry.kept;
        let (owner, top) = match entry.holder {
            Holder::Owner(owner) => (owner, entry.top.max(entry.wanted)),
            Holder::Granting(edge, rest) => (edge, rest.floor.max(entry.wanted)),
            Holder::Nobody(_) | Holder::Asked { .. } => return,
        };
        (kept.owner, kept.term) = (Some(owner), entry.term);
        if kept.reserved.saturating_sub(entry.leased) <= terms.chunk / 2 {
            kept.reserved = kept.reserved.max(more(entry.leased, terms.chunk));
        }
        if kept.hard.saturating_sub(top) <= terms.reserve / 2 {
            kept.hard = kept.hard.max(more(top, terms.reserve));
        }
        kept.rekey |= entry.rekey;
        if kept != entry.kept {
            entry.storing = Some(kept);
            self.orders.push_back(Order::Store { spi, kept });
        }
    }

    /// An owner is told what it may do now.
    pub(super) fn widen(&mut self, edge: EdgeId, spi: u32) {
        if let Some(limits) = self.entries.get(&spi).map(Entry::limits) {
            self.send(edge, ToEdge::Widen { spi, limits });
        }
    }
}
