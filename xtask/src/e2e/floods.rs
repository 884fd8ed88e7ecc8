//! Floods: whoever is flooded goes on serving.

use super::{Case, ensure};
use crate::lab::Lab;
use crate::storm::{Effort, Kind, Stage};
use anyhow::Result;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    ("flood_takes_little_from_a_client", takes_little),
    ("flood_that_no_worker_takes_is_counted", is_counted),
];

/// What a flood leaves of a stream at least, on a machine that has other work; `cargo xtask bench flood`
/// measures it.
const LEFT: f64 = 0.5;

fn takes_little(lab: &mut Lab) -> Result<()> {
    let effort = Effort {
        rate: 200_000,
        pairs: 3,
        slice: Duration::from_millis(500),
    };
    let mut stage = Stage::set(lab)?;
    let mut least = f64::INFINITY;
    for kind in Kind::ALL {
        let mut outcome = stage.weather(kind, effort)?;
        if outcome.share() <= LEFT {
            // A machine that has other work may have had it just then.
            let longer = Effort { pairs: 9, ..effort };
            outcome = stage.weather(kind, longer)?;
        }
        outcome.check()?;
        stage.check()?;
        least = least.min(outcome.share());
        ensure(outcome.share() > LEFT, || {
            format!("{}: {outcome:?}", kind.text())
        })?;
    }
    print!("at least {least:.2} of the goodput … ");
    Ok(())
}

/// What the kernel could not give a worker is in the status, or nobody would know where packets go.
fn is_counted(lab: &mut Lab) -> Result<()> {
    // More than the rings of a worker hold.
    const SENT: u64 = 10_000;
    const HELD: u64 = 2 * 2048;
    let missed = Stage::set(lab)?.overrun(SENT)?;
    ensure(missed >= SENT - HELD, || {
        format!("{missed} counted of {SENT} or more that came while nobody took them")
    })
}
