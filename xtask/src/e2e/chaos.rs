//! A minute of what `cargo xtask chaos` does for hours.

use super::Case;
use crate::chaos;

pub(super) const CASES: &[Case] = &[("chaos_for_a_minute", chaos::minute)];
