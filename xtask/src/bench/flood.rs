//! What floods of all kinds leave of a client's stream, beside the same floods dropped by an XDP program
//! that does nothing else.

use super::{Effort, keep, median};
use crate::storm::{self, Kind, Stage};
use crate::style::rate;
use anyhow::Result;
use std::time::Duration;

/// Frames a second.
const RATE: u64 = 200_000;

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    let (pairs, millis) = if effort.quick { (2, 1000) } else { (6, 2000) };
    let much = storm::Effort {
        rate: RATE,
        pairs,
        slice: Duration::from_millis(millis),
    };
    let mut lab = effort.lab()?;
    let mut stage = Stage::set(&mut lab)?;
    println!("  one TCP stream, client → target, {pairs} × {millis} ms each way in turn");
    println!(
        "  {:<30} {:>13} {:>13} {:>13} {:>7} {:>10} {:>10} {:>8}",
        "flood", "no flood", "dropped", "live", "share", "sent/s", "live/s", "counted"
    );
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let outcome = stage.weather(kind, much)?;
        println!(
            "  {:<30} {:>13} {:>13} {:>13} {:>7.2} {:>10.0} {:>10.0} {:>8.2}",
            kind.text(),
            rate(outcome.quiet),
            rate(median(&outcome.dropped)),
            rate(median(&outcome.live)),
            outcome.share(),
            median(&outcome.sent_dropped),
            median(&outcome.sent_live),
            outcome.counted,
        );
        all.push(outcome);
    }
    match stage.check() {
        Ok(()) => println!("  the client kept its gateway all the time"),
        Err(error) => println!("  {error:#}"),
    }
    keep("flood", &all)
}
