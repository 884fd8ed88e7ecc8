//! A guard against regressions: what evergate carries must not fall below a share of what plain routing
//! carries in the same run, on the same machine.
//!
//! It has to hold on a machine that has other work, where something is always lost. So it does not look for
//! a rate without loss: packets are sent as fast as it goes, and those that arrive count. Nothing has a core
//! for itself or goes before others, and the best of several rounds counts, because other work only takes.

use super::measure::{Carried, carried, mixed};
use crate::bench::peers::System;
use crate::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::time::Duration;

/// Less than half of what a busy machine had.
const FLOORS: &str = include_str!("floors.json");
const ROUNDS: usize = 4;
/// Of the gateway with many tunnels: what any machine carries.
const TUNNELS: u16 = 300;
const FLOWS: u16 = 4;
const RATE: u64 = 10_000;
const MOST_LOST: f64 = 0.2;

/// Shares of plain routing in the same run.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    /// Packets of 64 and of 1400 bytes.
    small: f64,
    large: f64,
    /// One TCP stream, beside routing with offloads.
    up: f64,
    down: f64,
}

impl Shares {
    const NONE: Self = Self {
        small: 0.0,
        large: 0.0,
        up: 0.0,
        down: 0.0,
    };

    fn floors() -> Result<Self> {
        serde_json::from_str(FLOORS).context("floors.json")
    }

    fn of(own: &Carried, plain: &Carried) -> Self {
        let share = |own: f64, plain: f64| own / plain.max(1.0);
        Self {
            small: share(own.small, plain.small),
            large: share(own.large, plain.large),
            up: share(own.up, plain.up),
            down: share(own.down, plain.down),
        }
    }

    fn named(self) -> [(&'static str, f64); 4] {
        [
            ("64 B", self.small),
            ("1400 B", self.large),
            ("TCP up", self.up),
            ("TCP down", self.down),
        ]
    }

    fn best(self, other: Self) -> Self {
        Self {
            small: self.small.max(other.small),
            large: self.large.max(other.large),
            up: self.up.max(other.up),
            down: self.down.max(other.down),
        }
    }

    /// What is below its floor, in words.
    fn below(self, floors: Self) -> Vec<String> {
        let all = self.named().into_iter().zip(floors.named());
        let low = all.filter(|((_, share), (_, floor))| share < floor);
        low.map(|((name, share), (_, floor))| format!("{name} {share:.3}, the floor is {floor}"))
            .collect()
    }
}

/// Measures plain routing and evergate in turn, in labs with this prefix, until all shares of plain routing are
/// above their floors; an error if they never are. Returns the shares in words.
pub(crate) fn check(prefix: &str) -> Result<String> {
    let floors = Shares::floors()?;
    let mut best = Shares::NONE;
    for _ in 0..ROUNDS {
        let plain = one(prefix, System::Plain)?;
        let own = one(prefix, System::Evergate)?;
        best = best.best(Shares::of(&own, &plain));
        if best.below(floors).is_empty() {
            let words = best
                .named()
                .map(|(name, share)| format!("{name} {share:.2}"));
            return Ok(words.join(", "));
        }
    }
    bail!(
        "of plain routing in {ROUNDS} rounds: {}",
        best.below(floors).join("; ")
    )
}

/// Sends a mix of sizes slowly through a gateway with many tunnels: packets of all of them and of all their flows
/// must come, in order, and hardly one may be lost.
pub(crate) fn check_tunnels(prefix: &str) -> Result<()> {
    let mut lab = Lab::short(prefix)?;
    let up = System::EvergateTunnels.up(&mut lab, TUNNELS)?;
    let hit = mixed(&lab, &up, FLOWS, RATE, Duration::from_secs(1))?;
    let flows = u64::from(TUNNELS) * u64::from(FLOWS);
    ensure!(
        (hit.tunnels, hit.flows) == (TUNNELS.into(), flows),
        "packets of {} flows in {} tunnels have come, not of {flows} in {TUNNELS}",
        hit.flows,
        hit.tunnels
    );
    ensure!(
        hit.loss < MOST_LOST && hit.reordered == 0,
        "{:.2} % were lost, {} came late in their flow",
        hit.loss * 100.0,
        hit.reordered
    );
    Ok(())
}

fn one(prefix: &str, system: System) -> Result<Carried> {
    let mut lab = Lab::short(prefix)?;
    let up = system.up(&mut lab, 1)?;
    carried(&lab, &up).with_context(|| system.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_below_its_floor_is_told() {
        let floors = Shares::floors().unwrap();
        let carried = |rate: f64| Carried {
            small: rate,
            large: rate,
            up: rate,
            down: rate,
        };
        let plain = carried(1000.0);
        let bad = Shares::of(&carried(1.0), &plain);
        assert_eq!(bad.below(floors).len(), 4);
        // One good round is enough.
        let good = Shares::of(&carried(900.0), &plain);
        assert_eq!(bad.best(good).below(floors), Vec::<String>::new());
        assert_eq!(Shares::of(&plain, &carried(0.0)).small, 1000.0);
    }
}
