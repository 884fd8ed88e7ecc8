//! What gets through, beside plain routing of the same minute.

use super::Case;
use crate::bench::rig;
use crate::lab::Lab;
use anyhow::Result;

pub(super) const CASES: &[Case] = &[
    ("throughput_has_its_share_of_plain_routing", has_its_share),
    ("throughput_of_many_tunnels", many_tunnels),
];

/// Of short labs beside this one, which has nobody in it.
fn beside(lab: &Lab) -> String {
    format!("{}r-", lab.prefix().trim_end_matches('-'))
}

fn has_its_share(lab: &mut Lab) -> Result<()> {
    let ratios = rig::check(&beside(lab))?;
    print!("{ratios} … ");
    Ok(())
}

/// The generator's packets take turns in a few hundred SAs with flows in each, and all of them arrive.
fn many_tunnels(lab: &mut Lab) -> Result<()> {
    rig::check_tunnels(&beside(lab))
}
