//! Clocks of nodes: each goes a little faster or slower than the world's.

use std::time::{Duration, Instant};

use super::{Place, Scenario};

/// A node's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    /// Faster by so many millionths.
    drift: i32,
}

impl Clock {
    pub(super) fn new(start: Instant, drift: i32) -> Clock {
        Clock { start, drift }
    }

    fn rate(self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.drift)).unwrap_or(1)
    }

    /// What it shows.
    pub(super) fn shows(self, world: Duration) -> Instant {
        let nanos = world.as_nanos() * self.rate() / 1_000_000;
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When it will show that, not a nanosecond before.
    pub(super) fn when(self, shown: Instant) -> Duration {
        let nanos = shown.saturating_duration_since(self.start).as_nanos();
        let nanos = (nanos * 1_000_000).div_ceil(self.rate());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The clock of each node.
pub(super) struct Clocks {
    clients: Vec<Clock>,
    gateways: Vec<Clock>,
}

impl Clocks {
    pub(super) fn new(scenario: &Scenario, start: Instant) -> Clocks {
        let mut all = scenario.drift.iter().copied().chain(std::iter::repeat(0));
        let mut some = |count| {
            let drifts = all.by_ref().take(count);
            drifts.map(|drift| Clock::new(start, drift)).collect()
        };
        Clocks {
            clients: some(scenario.clients),
            gateways: some(scenario.gateways),
        }
    }

    pub(super) fn of(&self, place: Place) -> Clock {
        match place {
            Place::Client(index) => self.clients[index],
            Place::Gateway(index) => self.gateways[index],
        }
    }
}
