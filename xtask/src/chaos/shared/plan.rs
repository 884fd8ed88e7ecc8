//! Which deeds come when: all of it follows from the seed, nothing from what happens in a run.

use crate::chaos::plan::{CALM, Chance};
use serde::Serialize;
use std::time::Duration;

/// What is done: to the edge that clients' packets come to, to the authority, or to its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// SIGKILL, and the router brings the packets to another edge.
    EdgeKilled,
    /// The router does so first, then SIGTERM.
    EdgeEnded,
    /// SIGSTOP and SIGCONT; the router brings them elsewhere.
    EdgeFrozen,
    /// `evergate drain`, and the router brings them elsewhere.
    EdgeDrained,
    /// A cable is pulled out of the switch, and the router brings them elsewhere.
    EdgeWithoutLan,
    EdgeWithoutWan,
    /// The router brings them to one edge after the other.
    Moves,
    AuthorityKilled,
    AuthorityEnded,
    AuthorityFrozen,
    /// The disk that it keeps the SAs on.
    DiskFull,
}

/// What a deed is done to: one of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Edge,
    Router,
    Authority,
    Disk,
}

impl Deed {
    pub(super) const ALL: [Self; 11] = [
        Self::EdgeKilled,
        Self::EdgeEnded,
        Self::EdgeFrozen,
        Self::EdgeDrained,
        Self::EdgeWithoutLan,
        Self::EdgeWithoutWan,
        Self::Moves,
        Self::AuthorityKilled,
        Self::AuthorityEnded,
        Self::AuthorityFrozen,
        Self::DiskFull,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EdgeKilled => "edge killed",
            Self::EdgeEnded => "edge ended",
            Self::EdgeFrozen => "edge frozen",
            Self::EdgeDrained => "edge drained",
            Self::EdgeWithoutLan => "edge's LAN cable pulled",
            Self::EdgeWithoutWan => "edge's WAN cable pulled",
            Self::Moves => "moves between edges",
            Self::AuthorityKilled => "authority killed",
            Self::AuthorityEnded => "authority ended",
            Self::AuthorityFrozen => "authority frozen",
            Self::DiskFull => "repository's disk full",
        }
    }

    pub(super) fn object(self) -> Object {
        match self {
            Self::EdgeKilled
            | Self::EdgeEnded
            | Self::EdgeFrozen
            | Self::EdgeDrained
            | Self::EdgeWithoutLan
            | Self::EdgeWithoutWan => Object::Edge,
            Self::Moves => Object::Router,
            Self::AuthorityKilled | Self::AuthorityEnded | Self::AuthorityFrozen => {
                Object::Authority
            }
            Self::DiskFull => Object::Disk,
        }
    }

    /// Whether IKE SAs are lost by it.
    pub(super) fn ends_authority(self) -> bool {
        matches!(self, Self::AuthorityKilled | Self::AuthorityEnded)
    }
}

/// A deed with its beginning and its end since the round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) deed: Deed,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) number: usize,
    pub(super) at: Duration,
    /// One for each object at most.
    pub(super) acts: Vec<Act>,
    pub(super) length: Duration,
}

/// All rounds of a seed, without end: two of three have one deed, the others two or three.
pub(super) struct Plan {
    chance: Chance,
    deck: Vec<Deed>,
    next: usize,
    at: Duration,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            deck: Vec::new(),
            next: 0,
            at: Duration::ZERO,
        }
    }

    /// Every deed once, in an order by chance, then again.
    fn draw(&mut self) -> Deed {
        if self.deck.is_empty() {
            self.deck = Deed::ALL.to_vec();
            for left in (1..self.deck.len()).rev() {
                let other = self.chance.below(left as u64 + 1) as usize;
                self.deck.swap(left, other);
            }
        }
        self.deck.pop().unwrap_or(Deed::Moves)
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let count = match self.chance.below(3) {
            0 => 2 + self.chance.below(2) as usize,
            _ => 1,
        };
        let (mut acts, mut aside) = (Vec::<Act>::new(), Vec::new());
        while acts.len() < count {
            let deed = self.draw();
            if acts.iter().any(|act| act.deed.object() == deed.object()) {
                aside.push(deed);
                continue;
            }
            let from = match count {
                1 => 0,
                _ => self.chance.below(800),
            };
            let lasts = 300 + self.chance.below(2500);
            acts.push(Act {
                deed,
                from: Duration::from_millis(from),
                until: Duration::from_millis(from + lasts),
            });
        }
        self.deck.extend(aside);
        acts.sort_by_key(|act| act.from);
        let end = acts.iter().map(|act| act.until).max().unwrap_or_default();
        let round = Round {
            number: self.next,
            at: self.at,
            acts,
            length: end + CALM,
        };
        self.next += 1;
        self.at += round.length;
        Some(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_says_all_and_every_deed_comes_alone_and_with_others() {
        let rounds = |seed| Plan::new(seed).take(300).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        let (mut alone, mut together) = (HashSet::new(), HashSet::new());
        for round in rounds(1) {
            let set = match round.acts.len() {
                1 => &mut alone,
                _ => &mut together,
            };
            set.extend(round.acts.iter().map(|act| act.deed));
            for act in &round.acts {
                assert!(act.from < act.until && act.until + CALM <= round.length);
                let same = |other: &&Act| other.deed.object() == act.deed.object();
                assert_eq!(round.acts.iter().filter(same).count(), 1, "{round:?}");
            }
        }
        let all = Deed::ALL.into_iter().collect();
        assert_eq!((&alone, &together), (&all, &all));
    }
}
