//! What gets through, beside plain routing of the same minute.

use super::Case;
use crate::bench::rig;
use crate::lab::Lab;
use anyhow::Result;

pub(super) const CASES: &[Case] = &[("throughput_has_its_share_of_plain_routing", has_its_share)];

fn has_its_share(lab: &mut Lab) -> Result<()> {
    // Short labs of its own, beside this one, which has nobody in it.
    let prefix = format!("{}r-", lab.prefix().trim_end_matches('-'));
    let ratios = rig::check(&prefix)?;
    print!("{ratios} … ");
    Ok(())
}
