//! How often a peer's packets come, when they are few.

use std::time::{Duration, Instant};

/// The time between the last packets of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// Between the last two, and the two before.
    gaps: [Duration; 2],
}

impl Pace {
    /// A packet, or more at once, has come.
    pub(super) fn moved(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let [before, _] = self.gaps;
            self.gaps = [now.saturating_duration_since(last), before];
        }
    }

    /// In so long no further packet is to be expected: half of what lay between the last ones, so that one that
    /// comes early is not too early, and at least `spare` less than it. `most` at most.
    pub(super) fn pause(&self, spare: Duration, most: Duration) -> Duration {
        let [one, other] = self.gaps;
        let gap = one.min(other);
        gap.saturating_sub(spare).min(gap / 2).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_come_regularly_leave_a_pause() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        // When packets come, and the pause after the last one, in milliseconds.
        let rows: [(&[u64], u64); 8] = [
            (&[], 0),
            (&[0], 0),
            (&[0, 20], 0),
            (&[0, 30, 61], 15),
            (&[0, 20, 41], 8),
            (&[0, 11, 22], 0),
            // One that came early says that the next one may.
            (&[0, 20, 23, 43], 0),
            (&[0, 1000, 2000], 250),
        ];
        for (packets, pause) in rows {
            let mut pace = Pace::default();
            for at in packets {
                pace.moved(start + ms(*at));
            }
            assert_eq!(
                pace.pause(ms(12), ms(250)).as_millis(),
                pause.into(),
                "{packets:?}"
            );
        }
    }
}
