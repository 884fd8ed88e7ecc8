//! How long nothing comes through when the active gateway fails.

use super::{Effort, keep, median};
use crate::lab::topology::{GATEWAYS, PLAIN_TARGET, TARGETS};
use crate::lab::{GENERAL, Lab, Place, Setup};
use crate::probe::{Probe, now_ns};
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// A way to fail, and how it is made good.
struct Way {
    name: &'static str,
    standby: bool,
    /// Plain routing, through the kernel of one of the gateways, suffers from it as well.
    cable: bool,
    harm: fn(&mut Lab, u8) -> Result<()>,
    heal: fn(&mut Lab, u8) -> Result<()>,
}

const WAYS: &[Way] = &[
    Way {
        name: "kill, one standby",
        standby: true,
        cable: false,
        harm: kill,
        heal: start,
    },
    Way {
        name: "kill, no standby",
        standby: false,
        cable: false,
        harm: kill,
        heal: start,
    },
    Way {
        name: "LAN cable, one standby",
        standby: true,
        cable: true,
        harm: pull_lan,
        heal: restore_lan,
    },
    Way {
        name: "WAN cable, one standby",
        standby: true,
        cable: true,
        harm: pull_wan,
        heal: restore_wan,
    },
    Way {
        name: "frozen, one standby",
        standby: true,
        cable: false,
        harm: freeze,
        heal: thaw,
    },
];

fn kill(lab: &mut Lab, number: u8) -> Result<()> {
    lab.kill(Place::Gateway(number))
}

fn start(lab: &mut Lab, number: u8) -> Result<()> {
    lab.start_gateway(number)
}

fn pull_lan(lab: &mut Lab, number: u8) -> Result<()> {
    lab.pull_lan(number)
}

fn restore_lan(lab: &mut Lab, number: u8) -> Result<()> {
    lab.restore_lan(number)
}

fn pull_wan(lab: &mut Lab, number: u8) -> Result<()> {
    lab.pull_wan(number)
}

fn restore_wan(lab: &mut Lab, number: u8) -> Result<()> {
    lab.restore_wan(number)
}

fn freeze(lab: &mut Lab, number: u8) -> Result<()> {
    lab.freeze(Place::Gateway(number))
}

fn thaw(lab: &mut Lab, number: u8) -> Result<()> {
    lab.thaw(Place::Gateway(number))
}

#[derive(Debug, Serialize)]
struct Row {
    way: String,
    outages_ms: Vec<f64>,
    median_ms: f64,
    worst_ms: f64,
    lost_probes: Vec<u64>,
    /// The longest gap of plain routing beside each, which nothing of ours can cause; 0 for cables,
    /// which it needs as well.
    plain_ms: Vec<f64>,
    plain_worst_ms: f64,
    not_recovered: usize,
}

#[derive(Debug, Serialize)]
struct Figures {
    /// The longest gap that the probe sees with plain routing and nothing failing.
    plain_longest_gap_ms: f64,
    rows: Vec<Row>,
}

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    let rounds = if effort.quick { 3 } else { 20 };
    let plain = plain_gap(effort, if effort.quick { 2 } else { 10 })?;
    println!("  {rounds} failures each; HeartbeatDeferTime = HeartbeatResponseTime = 5ms");
    println!("  plain routing, nothing fails: longest gap {plain:.1} ms");
    println!(
        "  {:<24} {:>10} {:>10} {:>10} {:>12}   each, ms (plain routing beside it, above 15 ms)",
        "what fails", "median", "worst", "lost", "plain worst"
    );
    let mut rows = Vec::new();
    for way in WAYS {
        let row = measure(effort, way, rounds)?;
        let lost: Vec<f64> = row.lost_probes.iter().map(|n| *n as f64).collect();
        let each: Vec<String> = (row.outages_ms.iter().zip(&row.plain_ms))
            .map(|(ms, plain)| match *plain > 15.0 {
                true => format!("{ms:.0} ({plain:.0})"),
                false => format!("{ms:.0}"),
            })
            .collect();
        println!(
            "  {:<24} {:>7.1} ms {:>7.1} ms {:>10.0} {:>9.1} ms   {}{}",
            row.way,
            row.median_ms,
            row.worst_ms,
            median(&lost),
            row.plain_worst_ms,
            each.join(" "),
            match row.not_recovered {
                0 => String::new(),
                n => format!("   {n} did not recover in time"),
            }
        );
        rows.push(row);
    }
    keep(
        "outage",
        &Figures {
            plain_longest_gap_ms: plain,
            rows,
        },
    )
}

fn plain_gap(effort: Effort<'_>, seconds: u64) -> Result<f64> {
    let lab = effort.lab()?;
    let probe = Probe::start_at(&lab, PLAIN_TARGET, 7000)?;
    std::thread::sleep(Duration::from_millis(200));
    let from = now_ns();
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(probe.outage_until_now(from).millis())
}

fn measure(effort: Effort<'_>, way: &Way, rounds: usize) -> Result<Row> {
    let mut lab = effort.lab()?;
    let general = match way.standby {
        true => GENERAL.to_owned(),
        false => GENERAL.replace("Standby = 1", "Standby = 0"),
    };
    lab.configure(&Setup {
        general,
        ..Setup::default()
    })?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    let probe = Probe::start(&lab)?;
    let plain = Probe::start_at(&lab, PLAIN_TARGET, 7000)?;
    let look = Duration::from_millis(if way.standby { 1000 } else { 4000 });
    let (mut outages_ms, mut lost_probes, mut not_recovered) = (Vec::new(), Vec::new(), 0);
    let mut plain_ms = Vec::new();
    for round in 0..rounds {
        let keyed = if way.standby { 2 } else { 1 };
        let status = lab.wait_client("the gateways are keyed", Duration::from_secs(30), |s| {
            s.active().is_some() && s.keyed().len() >= keyed
        })?;
        // Away from the beat of the heartbeats.
        std::thread::sleep(Duration::from_micros(300_000 + round as u64 * 1_370));
        let active = lab.status(Place::Client)?.active().or(status.active());
        let number = active.context("no gateway is active")?;
        let at_ns = now_ns();
        (way.harm)(&mut lab, number)?;
        std::thread::sleep(look);
        let outage = probe.outage_until_now(at_ns);
        if outage.recovered {
            outages_ms.push(outage.millis());
            lost_probes.push(outage.lost);
            plain_ms.push(match way.cable {
                true => 0.0,
                false => plain.outage_until_now(at_ns).millis(),
            });
        } else {
            not_recovered += 1;
        }
        (way.heal)(&mut lab, number)?;
        all_answer(&lab)?;
    }
    Ok(Row {
        way: way.name.into(),
        median_ms: median(&outages_ms),
        worst_ms: outages_ms.iter().copied().fold(0.0, f64::max),
        plain_worst_ms: plain_ms.iter().copied().fold(0.0, f64::max),
        plain_ms,
        outages_ms,
        lost_probes,
        not_recovered,
    })
}

/// Every gateway answers its command line again.
fn all_answer(lab: &Lab) -> Result<()> {
    for number in GATEWAYS {
        lab.wait(
            "the healed gateway answers",
            Duration::from_secs(10),
            |lab| Ok(lab.status(Place::Gateway(number)).ok()),
        )?;
    }
    Ok(())
}
