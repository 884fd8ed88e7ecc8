//! Many scenarios, on all cores, until enough has gone wrong in them or a promise is broken.

use std::ops::Range;
use std::time::Duration;

use super::{Broken, Promises, Report, Scenario, World};
use crate::seeds::search;

/// What many runs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Scenarios run.
    pub runs: u64,
    /// The sums of what [`Report`] has.
    pub failovers: u64,
    pub sent: u64,
    pub answered: u64,
    pub switches: u64,
    pub rekeyings: u64,
    pub resumed: u64,
    pub moves: u64,
    pub promises: Promises,
    /// The longest of all.
    pub longest: Duration,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.failovers += report.failovers;
        self.sent += report.sent;
        self.answered += report.answered;
        self.switches += report.switches;
        self.rekeyings += report.rekeyings;
        self.resumed += report.resumed;
        self.moves += report.moves;
        self.promises.add(&report.promises);
        self.longest = self.longest.max(report.longest);
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Promises {
            standby,
            others,
            tightest,
        } = self.promises;
        write!(
            f,
            "{} scenarios, {} failovers, {} packets, {} answers, {} changes of the gateway, {} \
             rekeyings, {} sessions resumed, {} moves; \
             through in time {standby} times with a session to go on with ({:.0} % of the bound at \
             most), {others} times without ({:.0} %)",
            self.runs,
            self.failovers,
            self.sent,
            self.answered,
            self.switches,
            self.rekeyings,
            self.resumed,
            self.moves,
            100.0 * tightest[0],
            100.0 * tightest[1],
        )
    }
}

/// The smallest scenario found that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub broken: Broken,
    pub scenario: Scenario,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{:#?}", self.broken, self.scenario)
    }
}

/// Runs the scenarios of `seeds` until they have had so many failovers. `progress` hears of each.
///
/// # Errors
/// One that breaks a promise, without what is not needed to break it.
pub fn hunt(
    seeds: Range<u64>,
    failovers: u64,
    progress: impl Fn(&Sum) + Sync,
) -> Result<Sum, Box<Found>> {
    let run = |seed| {
        let scenario = Scenario::random(seed);
        World::run(&scenario).map_err(|broken| Box::new((scenario, broken)))
    };
    let enough = |sum: &mut Sum, report: &Report| {
        sum.add(report);
        progress(sum);
        sum.failovers >= failovers
    };
    search(seeds, run, enough).map_err(|found| Box::new(shrunk(found.0, found.1)))
}

/// The same without what is not needed to break it: first in large pieces, then fault by fault.
fn shrunk(mut scenario: Scenario, mut broken: Broken) -> Found {
    let mut piece = scenario.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < scenario.faults.len() {
            let mut less = scenario.clone();
            let end = less.faults.len().min(at + piece);
            less.faults.drain(at..end);
            match World::run(&less) {
                Ok(_) => at = end,
                Err(other) => (scenario, broken) = (less, other),
            }
        }
        if piece == 1 {
            return Found { broken, scenario };
        }
        piece = piece.div_ceil(2);
    }
}
