//! What one client has sent and got.

/// Answers that are remembered since a client was told to.
const REMEMBERED: usize = 4096;

/// What one client has got.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// A bit for each request, by its number.
    answered: Vec<u64>,
    /// Requests that were answered more than once.
    pub(super) twice: u64,
    /// When requests were sent and their answers came, since the client was told to remember.
    since: Vec<(u64, u64)>,
}

impl Tally {
    /// Request `number`, sent then, is answered now.
    pub(super) fn answer(&mut self, number: u64, sent_ns: u64, now_ns: u64) {
        let (Ok(at), bit) = (usize::try_from(number / 64), 1_u64 << (number % 64)) else {
            return;
        };
        if self.answered.len() <= at {
            self.answered.resize(at + 1, 0);
        }
        let Some(word) = self.answered.get_mut(at) else {
            return;
        };
        self.twice += u64::from(*word & bit != 0);
        *word |= bit;
        if self.since.len() < REMEMBERED {
            self.since.push((sent_ns, now_ns));
        }
    }

    /// Remembers what comes from now on.
    pub(super) fn arm(&mut self) {
        self.since.clear();
    }

    /// Of the first requests so many were not answered.
    pub(super) fn lost(&self, first: u64) -> u64 {
        let answered = |(at, word): (u64, &u64)| {
            let whole = first.saturating_sub(at * 64).min(64);
            let mask = match whole {
                64 => u64::MAX,
                some => (1 << some) - 1,
            };
            u64::from((word & mask).count_ones())
        };
        let answered: u64 = (0..).zip(&self.answered).map(answered).sum();
        first.saturating_sub(answered)
    }

    /// From an event to the first answer to what was sent after it.
    pub(super) fn outage_ns(&self, event_ns: u64) -> Option<u64> {
        let mut after = self.since.iter().filter(|(sent, _)| *sent >= event_ns);
        after.next().map(|(_, came)| came.saturating_sub(event_ns))
    }

    /// The longest time without an answer from an event until now.
    pub(super) fn gap_ns(&self, event_ns: u64, now_ns: u64) -> u64 {
        let came = self.since.iter().map(|(_, came)| *came);
        let (mut last, mut longest) = (event_ns, 0);
        for came in came.chain([now_ns]).filter(|came| *came >= event_ns) {
            longest = longest.max(came.saturating_sub(last));
            last = came;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_lost_and_what_came_twice() {
        let mut tally = Tally::default();
        for number in (0..200).filter(|n| ![3, 64, 150].contains(n)) {
            tally.answer(number, 0, 0);
        }
        let lost = [3, 4, 64, 65, 150, 151, 200, 210].map(|first| tally.lost(first));
        assert_eq!(lost, [0, 1, 1, 2, 2, 3, 3, 13]);
        assert_eq!(tally.twice, 0);
        tally.answer(7, 0, 0);
        tally.answer(150, 0, 0);
        assert_eq!((tally.twice, tally.lost(200)), (1, 2));
    }

    #[test]
    fn an_outage_ends_with_an_answer_to_what_was_sent_after_it() {
        let mut tally = Tally::default();
        tally.answer(0, 10 * MS, 11 * MS);
        tally.arm();
        for (number, sent, came) in [
            (1, 20, 21),
            (2, 30, 31),
            (3, 38, 66),
            (5, 50, 67),
            (6, 70, 71),
        ] {
            tally.answer(number, sent * MS, came * MS);
        }
        // What was on its way then says nothing.
        assert_eq!(tally.outage_ns(32 * MS), Some(34 * MS));
        assert_eq!(tally.outage_ns(39 * MS), Some(28 * MS));
        assert_eq!(tally.outage_ns(71 * MS), None);
        assert_eq!(tally.gap_ns(20 * MS, 80 * MS), 35 * MS);
        assert_eq!(tally.gap_ns(40 * MS, 80 * MS), 26 * MS);
        assert_eq!(tally.gap_ns(68 * MS, 200 * MS), 129 * MS);
        tally.arm();
        assert_eq!(tally.gap_ns(68 * MS, 100 * MS), 32 * MS);
    }
}
