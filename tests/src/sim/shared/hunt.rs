//! Many scenarios with edges, on all cores, until enough of those have died or a promise is broken.

use std::ops::Range;
use std::time::Duration;

use super::{Broken, Promises, Report, Scenario, World};
use crate::seeds::search;

/// What many runs came to: the sums of what [`Report`] has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SharedSum {
    pub runs: u64,
    pub deaths: u64,
    pub authorities: u64,
    pub sent: u64,
    pub answered: u64,
    pub routes: u64,
    pub changes: u64,
    pub rekeyings: u64,
    pub moves: u64,
    pub repeated: u64,
    pub anew: u64,
    pub promises: Promises,
    /// The longest of all.
    pub longest: Duration,
}

impl SharedSum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.deaths += report.deaths;
        self.authorities += report.authorities;
        self.sent += report.sent;
        self.answered += report.answered;
        self.routes += report.routes;
        self.changes += report.changes;
        self.rekeyings += report.rekeyings;
        self.moves += report.moves;
        self.repeated += report.repeated;
        self.anew += report.anew;
        self.promises.add(&report.promises);
        self.longest = self.longest.max(report.longest);
    }
}

impl std::fmt::Display for SharedSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Promises {
            standby,
            others,
            tightest,
        } = self.promises;
        write!(
            f,
            "{} scenarios, edges lost {} times and authorities {}, {} packets, {} answers, {} \
             repeated by somebody, {} routes changed, {} times another edge answered, {} \
             rekeyings, {} moves, {} sessions begun anew; through in time {standby} times where \
             the rules say how soon ({:.0} % of the bound at most), {others} times where they do \
             not ({:.0} %)",
            self.runs,
            self.deaths,
            self.authorities,
            self.sent,
            self.answered,
            self.repeated,
            self.routes,
            self.changes,
            self.rekeyings,
            self.moves,
            self.anew,
            100.0 * tightest[0],
            100.0 * tightest[1],
        )
    }
}

/// The smallest scenario found that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFound {
    pub broken: Broken,
    pub scenario: Scenario,
}

impl std::fmt::Display for SharedFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{:#?}", self.broken, self.scenario)
    }
}

/// Runs the scenarios of `seeds` until so many edges were lost in them. `progress` hears of each.
///
/// # Errors
/// One that breaks a promise, without what is not needed to break it.
pub fn hunt(
    seeds: Range<u64>,
    deaths: u64,
    progress: impl Fn(&SharedSum) + Sync,
) -> Result<SharedSum, Box<SharedFound>> {
    let run = |seed| {
        let scenario = Scenario::random(seed);
        World::run(&scenario).map_err(|broken| Box::new((scenario, broken)))
    };
    let enough = |sum: &mut SharedSum, report: &Report| {
        sum.add(report);
        progress(sum);
        sum.deaths >= deaths
    };
    search(seeds, run, enough).map_err(|found| Box::new(shrunk(found.0, found.1)))
}

/// The same without what is not needed to break it: first in large pieces, then one by one.
fn shrunk(mut scenario: Scenario, mut broken: Broken) -> SharedFound {
    let mut piece = scenario.troubles.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < scenario.troubles.len() {
            let mut less = scenario.clone();
            let end = less.troubles.len().min(at + piece);
            less.troubles.drain(at..end);
            match World::run(&less) {
                Ok(_) => at = end,
                Err(other) => (scenario, broken) = (less, other),
            }
        }
        if piece == 1 {
            return SharedFound { broken, scenario };
        }
        piece = piece.div_ceil(2);
    }
}
