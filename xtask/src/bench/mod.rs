//! `cargo xtask bench`: what evergate reaches, each figure beside plain routing of the same run.
//!
//! Nothing here passes or fails; the figures are printed and written to `target/bench/`.

mod flood;
mod flow;
mod handshakes;
mod herd;
mod outage;
mod peers;
pub(crate) mod rig;
mod sharing;
mod soak;

use crate::lab::Lab;
use crate::style::bold;
use crate::{PACKAGES, build, paths, sh, toolchain};
use anyhow::{Result, bail};
use serde::Serialize;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

/// The prefix of the benchmarks' lab, if no other one is wanted.
pub(crate) const PREFIX: &str = "egb-";

/// Of the rig in each tunnel: enough to reach all queues and workers, few enough for any cache.
pub(crate) const FLOWS: NonZeroU16 = NonZeroU16::new(16).unwrap();

/// Of the herd: as many as two processors carry that have all else to do.
pub(crate) const RATE: NonZeroU32 = NonZeroU32::new(50).unwrap();

const NAMES: &[&str] = &[
    "rig",
    "outage",
    "tcp",
    "udp",
    "xdp",
    "memory",
    "esp",
    "ike",
    "handshakes",
    "flood",
    "sharing",
    "herd",
    "soak",
];

/// How much time a run may take, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort<'a> {
    pub(crate) quick: bool,
    /// Of the soak.
    pub(crate) minutes: u64,
    /// Of the lab.
    pub(crate) prefix: &'a str,
    /// Of the rig; without: all.
    pub(crate) peers: Option<&'a str>,
    /// Of the rig's row with many tunnels; without: as many as usual if there is time.
    pub(crate) tunnels: Option<u16>,
    /// Of the rig, in each tunnel.
    pub(crate) flows: u16,
    /// Echo requests of each client of the herd in a second.
    pub(crate) rate: u32,
    /// Nothing is built: what is measured is there.
    pub(crate) as_built: bool,
}

impl Effort<'_> {
    /// A lab without nodes in it; a former one with the same prefix is removed first.
    fn lab(self) -> Result<Lab> {
        Lab::up(self.prefix, 1)
    }
}

pub(crate) fn run(name: Option<&str>, effort: Effort<'_>) -> Result<()> {
    if let Some(name) = name
        && !NAMES.contains(&name)
    {
        bail!(
            "no benchmark {name:?}: expected one of {}",
            NAMES.join(", ")
        );
    }
    toolchain::packages(PACKAGES)?;
    if !effort.as_built {
        toolchain::ensure().map(drop)?;
        build::release()?;
    }
    for chosen in NAMES
        .iter()
        .copied()
        .filter(|n| name.is_none_or(|name| name == *n))
    {
        println!("\n{}", bold(&format!("── {chosen} ──")));
        match chosen {
            "rig" => rig::run(effort)?,
            "outage" => outage::run(effort)?,
            "tcp" => flow::tcp(effort)?,
            "udp" => flow::udp(effort)?,
            "xdp" => {
                sh::run(build::cargo().args(["bench", "-p", "evergate-tests", "--bench", "xdp"]))?
            }
            "memory" => sh::run(build::cargo().args([
                "bench",
                "-p",
                "evergate-tests",
                "--bench",
                "memory",
            ]))?,
            "esp" => esp()?,
            "ike" => sh::run(build::cargo().args([
                "bench", "-p", "evergate", "--bench", "ike", "--bench", "threads",
            ]))?,
            "handshakes" => handshakes::run(effort)?,
            "flood" => flood::run(effort)?,
            "sharing" => sharing::run(effort)?,
            "herd" => herd::run(effort)?,
            _ => soak::run(effort)?,
        }
    }
    Ok(())
}

/// Sealing and opening, by all libraries that can be had here.
fn esp() -> Result<()> {
    sh::run(build::cargo().args([
        "bench", "-p", "evergate", "--bench", "esp", "--bench", "lookup",
    ]))?;
    let mut features = "aws-lc".to_owned();
    match Path::new("/usr/include/intel-ipsec-mb.h").exists() {
        true => features.push_str(",ipsec-mb"),
        false => println!(
            "  without Intel's multi-buffer library: its header is not there (Debian: libipsec-mb-dev)"
        ),
    }
    let mut bench = build::cargo();
    bench.args(["bench", "-p", "evergate", "--bench", "aead", "--features"]);
    sh::run(bench.arg(&features))?;
    // Cargo has built the binary, too, with these features; what follows runs the usual one.
    build::release()
}

/// Writes figures as JSON.
fn keep(name: &str, figures: &impl Serialize) -> Result<()> {
    let folder = paths::target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_string_pretty(figures)?)?;
    println!("  {}", path.display());
    Ok(())
}

/// The middle of the samples; zero when there is none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
