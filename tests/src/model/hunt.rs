//! Many histories, on all cores, until machine and model part over one; that one is made small.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::history::{Deed, History};
use super::run::{Broken, Report, check, traced};
use crate::seeds::search;

/// What many histories came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub histories: u64,
    pub report: Report,
}

impl Sum {
    fn add(&mut self, other: &Report) {
        self.histories += 1;
        let sum = &mut self.report;
        sum.steps += other.steps;
        sum.heartbeats += other.heartbeats;
        sum.deaths += other.deaths;
        sum.exchanges += other.exchanges;
        sum.refusals += other.refusals;
        sum.changes += other.changes;
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            steps,
            heartbeats,
            deaths,
            exchanges,
            refusals,
            changes,
        } = self.report;
        write!(
            f,
            "{} histories, {steps} steps: {heartbeats} heartbeats, {deaths} deaths, {exchanges} \
             exchanges, {refusals} requests rejected, {changes} changes of the gateway",
            self.histories
        )
    }
}

/// A history over which they part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub broken: Broken,
    pub history: History,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine and model part {}\n", self.broken)?;
        writeln!(f, "{}\n", self.history)?;
        let (trace, _) = traced(&self.history);
        let from = trace.len().saturating_sub(30);
        trace[from..]
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Checks the histories of all these seeds. `progress` hears of each.
///
/// # Errors
/// The first over which machine and model part, without what is not needed for that.
pub fn hunt(seeds: Range<u64>, progress: impl Fn(&Sum) + Sync) -> Result<Sum, Box<Found>> {
    let run = |seed| {
        let history = History::random(seed);
        check(&history).map_err(|broken| Box::new((history, broken)))
    };
    let never_enough = |sum: &mut Sum, report: &Report| {
        sum.add(report);
        progress(sum);
        false
    };
    search(seeds, run, never_enough).map_err(|found| Box::new(shrunk(found.0, found.1)))
}

/// The same without what is not needed for them to part: deeds first in large pieces, then one by one;
/// then what is left of policies.
pub fn shrunk(history: History, broken: Broken) -> Found {
    let mut found = Found { broken, history };
    loop {
        let before = found.history.clone();
        without_deeds(&mut found);
        without_gateways(&mut found);
        round_times(&mut found);
        if found.history == before {
            return found;
        }
    }
}

fn attempt(found: &mut Found, less: History) -> bool {
    match check(&less) {
        Ok(_) => false,
        Err(broken) => {
            *found = Found {
                broken,
                history: less,
            };
            true
        }
    }
}

fn without_deeds(found: &mut Found) {
    let mut piece = found.history.deeds.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < found.history.deeds.len() {
            // With their time, and else without: what follows may have to stay where it is.
            let end = found.history.deeds.len().min(at + piece);
            let mut less = found.history.clone();
            less.deeds.drain(at..end);
            let mut still = found.history.clone();
            let gone: Duration = still.deeds.drain(at..end).map(|(gap, _)| gap).sum();
            match still.deeds.get_mut(at) {
                Some((gap, _)) => *gap += gone,
                None => still.rest += gone,
            }
            if !attempt(found, less) && !attempt(found, still) {
                at = end;
            }
        }
        if piece == 1 {
            return;
        }
        piece = piece.div_ceil(2);
    }
}

fn without_gateways(found: &mut Found) {
    let policies = |history: &History| 1 + history.deeds.len();
    for policy in 0..policies(&found.history) {
        let (mut cluster, mut at) = (0, 0);
        loop {
            let mut less = found.history.clone();
            let of = match policy {
                0 => Some(&mut less.policy),
                later => match less.deeds.get_mut(later - 1) {
                    Some((_, Deed::Reload(policy))) => Some(policy),
                    _ => None,
                },
            };
            let Some(list) = of.and_then(|policy| policy.clusters.get_mut(cluster)) else {
                break;
            };
            if at >= list.1.len() {
                (cluster, at) = (cluster + 1, 0);
                continue;
            }
            list.1.remove(at);
            if list.1.is_empty() || !attempt(found, less) {
                at += 1;
            }
        }
    }
}

fn round_times(found: &mut Found) {
    for at in 0..found.history.deeds.len() {
        let gap = found.history.deeds[at].0;
        let millis = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        for rounder in [
            0,
            millis / 1000 * 1000,
            millis / 100 * 100,
            millis / 10 * 10,
            millis,
        ] {
            let mut less = found.history.clone();
            less.deeds[at].0 = Duration::from_millis(rounder);
            if less != found.history && attempt(found, less) {
                break;
            }
        }
    }
}
