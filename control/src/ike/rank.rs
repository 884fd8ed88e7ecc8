//! Which of two sessions stays when both peers began one at the same time.

use std::time::{Duration, Instant};

use super::event::SaId;

/// Sessions that come about within this time of each other, one begun by either side, count as
/// begun at the same time.
pub const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// The nonces of a session, the lower first. Both ends see the same, whatever else they name the
/// session by. In the manner of RFC 7296 section 2.8: of two sessions, the one with the lowest of
/// the four nonces has the lower rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rank {
    lower: Vec<u8>,
    higher: Vec<u8>,
}

impl Rank {
    /// Of a session that stands for so long that none can have been begun at the same time.
    pub fn unknown() -> Rank {
        Rank {
            lower: Vec::new(),
            higher: Vec::new(),
        }
    }

    pub(crate) fn new([ni, nr]: &[Vec<u8>; 2]) -> Rank {
        Rank {
            lower: ni.min(nr).clone(),
            higher: ni.max(nr).clone(),
        }
    }
}

/// One of several sessions with the same peer, as [`Event::Established`](super::Event::Established)
/// told of it.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    pub id: SaId,
    /// When it was told.
    pub at: Instant,
    /// We started it.
    pub initiator: bool,
    pub rank: &'a Rank,
}

/// Which of two sessions with the same peer stays: usually the newer. But each end may have
/// finished its own last, and if each then dropped the other's, none would be left; so of two that
/// both sides began within [`SIMULTANEOUS`], the one with the higher rank stays, at both ends.
pub fn survivor(one: Contender<'_>, other: Contender<'_>) -> SaId {
    let newer = one.max_by_age(other);
    let apart = one
        .at
        .saturating_duration_since(other.at)
        .max(other.at.saturating_duration_since(one.at));
    if one.initiator == other.initiator || apart > SIMULTANEOUS || one.rank == other.rank {
        return newer.id;
    }
    if one.rank > other.rank {
        one.id
    } else {
        other.id
    }
}

impl<'a> Contender<'a> {
    fn max_by_age(self, other: Contender<'a>) -> Contender<'a> {
        if (self.at, self.id) > (other.at, other.id) {
            self
        } else {
            other
        }
    }
}
