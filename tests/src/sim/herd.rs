//! One death, many clients: where they go, and when.

use std::time::Duration;

use evergate::liveness::Timing;
use evergate::policy::HeartbeatMode;

use super::{Broken, Fault, Scenario, World, gateway_address};

/// How a herd took the death of the first gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Herd {
    pub clients: usize,
    /// Clients on each gateway before, and after, in the order of the gateways.
    pub before: Vec<u64>,
    pub after: Vec<u64>,
    /// Pearson's chi-square of either against equal shares, and the most that chance explains: its
    /// quantile of 99.9 %.
    pub chi_square: [(f64, f64); 2],
    /// Exchanges begun in each [`Herd::SLOT`] after the death, as long as there are any.
    pub exchanges: Vec<u64>,
    /// The longest time without an answer.
    pub longest: Duration,
}

/// Quantiles of 99.9 % for 1 to 8 degrees of freedom.
const QUANTILES: [f64; 8] = [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12];

/// Pearson's chi-square of `counts` against equal shares.
fn chi_square(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let parts = counts
        .iter()
        .map(|count| (*count as f64 - expected).powi(2) / expected);
    parts.sum()
}

impl Herd {
    /// Of [`Herd::exchanges`].
    pub const SLOT: Duration = Duration::from_millis(50);

    /// Lets so many clients live with five gateways, and kills one.
    ///
    /// # Errors
    /// What was broken meanwhile.
    pub fn run(clients: usize, standby: usize, seed: u64) -> Result<Herd, Broken> {
        let death = Duration::from_secs(8);
        let scenario = Scenario {
            seed,
            clients,
            gateways: 5,
            standby,
            timing: Timing {
                mode: HeartbeatMode::Instant,
                response_time: Duration::from_millis(100),
                defer_time: Duration::from_millis(500),
            },
            rekeying: None,
            tickets: false,
            nat: false,
            pace: Duration::from_secs(1),
            delay: Duration::from_micros(500),
            jitter: Duration::from_micros(500),
            drift: Vec::new(),
            loss: 0,
            doubled: 0,
            faults: vec![(death, Fault::Crash(0))],
            settle: Duration::from_secs(5),
        };
        let mut world = World::new(scenario);
        world.go_until(death - Duration::from_millis(1))?;
        let before = world.census();
        world.go_until(world.scenario.end())?;
        let after = world.census();
        let mut exchanges = Vec::new();
        for begun in world.clients.iter().flat_map(|client| &client.begun) {
            let Some(later) = begun.checked_sub(death) else {
                continue;
            };
            let slot = (later.as_nanos() / Self::SLOT.as_nanos()) as usize;
            if exchanges.len() <= slot {
                exchanges.resize(slot + 1, 0);
            }
            exchanges[slot] += 1;
        }
        let judged = |counts: &[u64]| (chi_square(counts), QUANTILES[counts.len() - 2]);
        Ok(Herd {
            clients,
            chi_square: [judged(&before), judged(&after[1..])],
            before,
            after,
            exchanges,
            longest: world.report().longest,
        })
    }

    /// Whether chance explains how they spread, nobody stayed with the dead, and no [`Herd::SLOT`] had
    /// more than a fifth of the exchanges.
    pub fn is_even(&self) -> bool {
        let (all, most) = (self.exchanges.iter(), self.exchanges.iter().max());
        let spread = most.is_some_and(|most| most * 5 <= all.sum());
        let all = self.chi_square.iter();
        let even = all.clone().all(|(found, most)| found < most);
        even && spread
            && self.after.first() == Some(&0)
            && self.after.iter().sum::<u64>() == self.clients as u64
    }
}

impl World {
    /// How many clients use each gateway.
    fn census(&self) -> Vec<u64> {
        let gateways = 0..self.gateways.len();
        let users = gateways.map(|g| {
            let address = Some(gateway_address(g));
            let all = self.clients.iter();
            all.filter(|client| client.active() == address).count() as u64
        });
        users.collect()
    }
}

impl std::fmt::Display for Herd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [(before, most), (after, most_after)] = self.chi_square;
        writeln!(f, "{} clients on gateways: {:?}", self.clients, self.before)?;
        writeln!(f, "  chi-square {before:.1}, by chance up to {most}")?;
        writeln!(f, "after the death of the first: {:?}", self.after)?;
        writeln!(f, "  chi-square {after:.1}, by chance up to {most_after}")?;
        let slot = Self::SLOT.as_millis();
        writeln!(
            f,
            "exchanges in each {slot} ms after it: {:?}",
            self.exchanges
        )?;
        write!(f, "longest time without an answer: {:?}", self.longest)
    }
}
