//! What bounds the traces that strangers leave.

use std::time::{Duration, Instant};

/// So many refusals of strangers are told at once …
const BURST: u32 = 10;
/// … and then one in this time.
const PERIOD: Duration = Duration::from_secs(1);

/// A token bucket for events that anyone on the network can cause.
#[derive(Default)]
pub(crate) struct Refusals {
    /// When the bucket will be full again, less what is in it: the later, the emptier.
    spent: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Whether one more may be told, and then how many before it were not.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        let spent = self.spent.map_or(now, |at| at.max(now));
        if spent.saturating_duration_since(now) > PERIOD * (BURST - 1) {
            self.untold += 1;
            return None;
        }
        self.spent = Some(spent + PERIOD);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_at_once_then_one_a_second() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let told = |r: &mut Refusals, now| (0..50).filter_map(|_| r.pass(now)).collect::<Vec<_>>();
        assert_eq!(told(&mut refusals, start), [0; 10]);
        assert_eq!(told(&mut refusals, start + PERIOD), [40]);
        assert_eq!(told(&mut refusals, start + PERIOD * 3), [49, 0]);
        // However long it is quiet, no more than the burst is saved up.
        let told = told(&mut refusals, start + PERIOD * 1000);
        assert_eq!((told.len(), told.first()), (10, Some(&48)));
    }
}
