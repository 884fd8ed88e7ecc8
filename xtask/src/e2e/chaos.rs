//! A minute of what `cargo xtask chaos` does for hours, and what that can not do.

use super::failover::{SOON, survives};
use super::{Case, ensure, in_order, up};
use crate::chaos;
use crate::lab::topology::GATEWAYS;
use crate::lab::{Lab, Place};
use anyhow::Result;

pub(super) const CASES: &[Case] = &[
    ("log_that_can_not_be_written_ends_no_node", full_log),
    ("chaos_for_a_minute", chaos::minute),
    ("chaos_with_edges_for_a_minute", chaos::shared::minute),
];

/// What is logged goes to a disk that is full from the beginning.
fn full_log(lab: &mut Lab) -> Result<()> {
    let places = GATEWAYS.map(Place::Gateway);
    for place in [Place::Client].into_iter().chain(places) {
        let words = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
        lab.run_by(place, words.map(str::to_owned).to_vec());
    }
    up(lab, &in_order(1))?;
    survives(lab, SOON, |lab, number| lab.kill(Place::Gateway(number)))?;
    let ended = lab.unexpected_ends();
    ensure(ended.is_empty(), || format!("{ended:?} ended"))
}
