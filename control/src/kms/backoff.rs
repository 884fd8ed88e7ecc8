//! Waiting times that grow and are spread, so that many clients do not come back at once.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::Settings;

impl Settings {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_secs(3600);

    pub(super) fn clamped(self) -> Settings {
        let retry_cap = self.retry_cap.clamp(Self::SHORTEST, Self::LONGEST);
        let retry_first = self.retry_first.clamp(Self::SHORTEST, retry_cap);
        Settings {
            retry_first,
            retry_cap,
            standby: self.standby,
        }
    }

    /// The wait after the `failures`-th failure in a row (from 1): doubling from `retry_first` to
    /// `retry_cap`, and of that a random part between one half and all.
    pub(super) fn backoff(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self
            .retry_first
            .saturating_mul(1 << doublings)
            .min(self.retry_cap);
        full / 2 + up_to(full / 2, rng)
    }

    /// The wait before a background attempt: anything up to `retry_first`.
    pub(super) fn spread(&self, rng: &mut impl Rng) -> Duration {
        up_to(self.retry_first, rng)
    }
}

fn up_to(most: Duration, rng: &mut impl Rng) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.random_range(0..=nanos))
}
