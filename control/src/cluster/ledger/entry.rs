//! One SA pair of a ledger: who has it, and how far its owner may have come.

use std::time::Instant;

use crate::cluster::message::{Kept, Limits};
use crate::cluster::{EdgeId, Terms};

/// Who has sent less than its limits allow for during so many reports would be long in passing them.
const CALM: u32 = 10;

/// Who may use an SA.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Nobody(Rest),
    /// To be granted as soon as the repository has more of it for used up.
    Granting(EdgeId, Rest),
    Owner(EdgeId),
    /// The owner was asked to give it back until then, unless it has had the packet of this number itself.
    Asked {
        owner: EdgeId,
        until: Instant,
        seen: u64,
    },
}

/// Where the last owner of an SA stopped, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rest {
    pub(super) floor: u64,
    pub(super) missing: u64,
    /// It is only known what it may have done, and that may be far from what it has.
    pub(super) guessed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// Of the owner, or of the one to be.
    pub(super) term: u32,
    /// What the repository is known to have.
    pub(super) kept: Kept,
    /// What it was asked to keep.
    pub(super) storing: Option<Kept>,
    pub(super) holder: Holder,
    /// Who gets it next.
    pub(super) next: Option<EdgeId>,
    /// Outbound numbers up to this one have been granted.
    pub(super) leased: u64,
    /// As the owner last said.
    pub(super) top: u64,
    /// The highest number that is known to be the peer's: above it there is what an owner may have accepted.
    pub(super) reported: u64,
    /// When numbers came last so fast that more than a few may be accepted above those that are reported.
    pub(super) rushed: Option<Instant>,
    pub(super) soft: u64,
    pub(super) wide: bool,
    /// Its owner was told its soft limit by another authority.
    pub(super) restored: bool,
    /// Where the outbound numbers of its owner begin, less one.
    pub(super) base: u64,
    /// It needs fresh keys.
    pub(super) rekey: bool,
    /// The highest number that its owner has claimed.
    pub(super) wanted: u64,
    /// When its owner was last asked to give it back.
    pub(super) asked: Option<Instant>,
    /// The last number that the SA has.
    pub(super) highest: u64,
}

impl Entry {
    pub(super) fn owner(&self) -> Option<EdgeId> {
        match self.holder {
            Holder::Owner(owner) | Holder::Asked { owner, .. } => Some(owner),
            Holder::Nobody(_) | Holder::Granting(..) => None,
        }
    }

    pub(super) fn is_of(&self, edge: EdgeId, term: u32) -> bool {
        self.owner() == Some(edge) && self.term == term
    }

    /// Its owner has seen a number that it may not accept. Says whether it may now.
    pub(super) fn reach(&mut self, seen: u64, margin: u64) -> bool {
        self.wanted = self.wanted.max(seen);
        let soft = self.wanted.saturating_add(margin).min(self.kept.hard);
        self.soft = self.soft.max(soft);
        self.wanted <= self.soft
    }

    /// Nobody owns it any more.
    pub(super) fn free(&mut self, rest: Rest) {
        self.holder = Holder::Nobody(rest);
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            term: self.term,
            soft: self.soft,
            hard: self.kept.hard,
            last: self.leased,
        }
    }

    /// Above all that its owner may have accepted, as long as it was in contact.
    pub(super) fn past_soft(&self, terms: &Terms, now: Instant) -> Rest {
        let doubt = self.soft.saturating_sub(self.top);
        let calm = self
            .rushed
            .is_none_or(|at| at + terms.interval * CALM <= now);
        match self.wide {
            true => self.past_all(),
            // A peer that has become slow would take long to get there by itself.
            false => Rest {
                floor: self.soft,
                missing: 0,
                guessed: calm && doubt > terms.burst,
            },
        }
    }

    /// Above all that it may have accepted, whatever happened to it.
    pub(super) fn past_all(&self) -> Rest {
        Rest {
            floor: self.kept.hard,
            missing: 0,
            guessed: true,
        }
    }
}
