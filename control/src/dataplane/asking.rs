//! Questions about SPIs that no session has. All that strangers can send must cost little.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;

use super::net::icmp::RateLimit;

/// An SPI that nobody knows is asked about again after so long.
const AGAIN: Duration = Duration::from_millis(50);

/// So many are remembered at most: of as many clients that come here at once.
const ASKED: usize = 2048;

/// So many are asked about in a second, and at once.
const RATE: (u32, u32) = (5_000, 1024);

/// Where there is no room, what may be forgotten is looked for so often.
const SWEEP: Duration = Duration::from_millis(1);

/// Whether a question about an SPI is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Now,
    Lately,
    Never,
}

/// What was asked lately.
pub(super) struct Questions {
    asked: HashMap<u32, Instant, FxBuildHasher>,
    rate: RateLimit,
    sweep_at: Instant,
}

impl Questions {
    /// With room for all that may be remembered, if anything is to be asked.
    pub(super) fn new(asks: bool, now: Instant) -> Self {
        // Twice of it, so that places of entries that are gone are swept up without a new table.
        let room = if asks { 2 * ASKED } else { 0 };
        Self {
            asked: HashMap::with_capacity_and_hasher(room, FxBuildHasher),
            rate: RateLimit::new(RATE.0, RATE.1, now),
            sweep_at: now,
        }
    }

    /// Whether an SPI that no session has may be asked about, or was so lately.
    pub(super) fn may_ask(&mut self, spi: u32, now: Instant) -> Asked {
        if self.asked.get(&spi).is_some_and(|at| now < *at + AGAIN) {
            return Asked::Lately;
        }
        if self.asked.len() >= ASKED && now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            self.asked.retain(|_, at| now < *at + AGAIN);
        }
        let known = self.asked.contains_key(&spi);
        if !known && self.asked.len() >= ASKED || !self.rate.allow(now) {
            return Asked::Never;
        }
        self.asked.insert(spi, now);
        Asked::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_asked_about_at_once_and_a_flood_is_not() {
        let start = Instant::now();
        let mut questions = Questions::new(true, start);
        let room = questions.asked.capacity();
        let mut ask = |spis: std::ops::Range<u32>, ms: u64| {
            let now = start + Duration::from_millis(ms);
            let asked = spis.map(|spi| questions.may_ask(spi, now));
            let asked: Vec<Asked> = asked.collect();
            [Asked::Now, Asked::Lately, Asked::Never]
                .map(|kind| asked.iter().filter(|found| **found == kind).count())
        };
        assert_eq!(ask(0..1000, 0), [1000, 0, 0]);
        assert_eq!(ask(0..1000, 20), [0, 1000, 0]);
        // A bucket's worth in each fifth of a second.
        assert_eq!(ask(5000..105_000, 220), [1024, 0, 98_976]);
        assert_eq!(ask(0..10, 420), [10, 0, 0], "again");
        assert_eq!(questions.asked.capacity(), room, "no new table");
    }
}
