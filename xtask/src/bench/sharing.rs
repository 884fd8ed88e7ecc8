//! Shared SAs: how long a client is without its targets when its edge is killed, and how soon an edge that has
//! nothing has all.

use super::{Effort, keep, median};
use crate::lab::sharing::{AUTHORITY, Sharing};
use crate::lab::topology::{GATEWAYS, TARGETS};
use crate::lab::{Lab, Place};
use crate::probe::{Probe, now_ns};
use crate::{build, sh};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Pairs in the repository of the second part.
const PAIRS: u64 = 100_000;

/// The key of repositories that `repository measure` fills, in hexadecimal digits.
const KEY: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

#[derive(Serialize)]
struct Figures {
    /// Milliseconds, with SAs that every edge has, and with such as are asked for.
    distributed: Vec<f64>,
    asked_for: Vec<f64>,
    /// Seconds from the start of an edge's process until it has all pairs.
    filled_s: f64,
}

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    let kills = if effort.quick { 6 } else { 30 };
    let distributed = killed(effort, "all", kills)?;
    let asked_for = killed(effort, "last", kills)?;
    println!(
        "  an edge is killed, and the router brings its client's packets to the next one at once"
    );
    for (what, outages) in [
        ("SAs everywhere", &distributed),
        ("SAs asked for", &asked_for),
    ] {
        let most = outages.iter().copied().fold(0.0, f64::max);
        println!(
            "    {what:<16} {:>6.1} ms (median of {}), {most:.1} ms at most; no key exchange",
            median(outages),
            outages.len()
        );
    }
    let filled_s = filled(effort)?;
    println!(
        "  an edge that starts with nothing has {PAIRS} pairs {filled_s:.2} s after its process began"
    );
    keep(
        "sharing",
        &Figures {
            distributed,
            asked_for,
            filled_s,
        },
    )
}

/// Kills the edge in use again and again.
fn killed(effort: Effort<'_>, distribution: &'static str, kills: usize) -> Result<Vec<f64>> {
    let mut lab = effort.lab()?;
    lab.share(&Sharing {
        distribution,
        ..Sharing::default()
    })?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let probe = Probe::start(&lab)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut outages = Vec::new();
    for round in 0..kills {
        let at = |round: usize| GATEWAYS[round % GATEWAYS.len()];
        let (dead, next) = (at(round), at(round + 1));
        let event = now_ns();
        lab.kill_and(Place::Gateway(dead), |lab| lab.bring_to(next))?;
        std::thread::sleep(Duration::from_millis(1500));
        let outage = probe.outage_until_now(event);
        if !outage.recovered {
            bail!(
                "nothing comes through gw{next}; dropped were {}",
                lab.drops()
            );
        }
        outages.push(outage.millis());
        lab.start_gateway(dead)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(probe);
    let ups = lab.events(Place::Client, 0)?;
    let ups = ups
        .iter()
        .filter(|event| event.kind == "session_up")
        .count();
    if ups != 1 {
        bail!("the client negotiated {ups} times");
    }
    Ok(outages)
}

/// Seconds until an edge that starts has all of a full repository.
fn filled(effort: Effort<'_>) -> Result<f64> {
    let mut lab = effort.lab()?;
    let file = lab.dir().join("filled");
    let mut fill = build::cargo();
    fill.args([
        "run",
        "--quiet",
        "--release",
        "-p",
        "evergate-tests",
        "--bin",
        "repository",
        "--",
    ]);
    fill.args(["measure", &PAIRS.to_string()]).arg(&file);
    sh::read(&mut fill).context("can not fill a repository")?;
    lab.share(&Sharing {
        repository: "file = \"filled\"\n".into(),
        key: KEY.iter().map(|byte| format!("{byte:02x}")).collect(),
        ..Sharing::default()
    })?;
    let edge = Place::Gateway(1);
    lab.stop(edge)?;
    let start = Instant::now();
    lab.start(edge)?;
    // A status of so many sessions would keep the node busy.
    let complete = |lab: &Lab| {
        let events = lab.events(edge, 0)?;
        Ok(events
            .into_iter()
            .find(|event| event.kind == "edge_complete"))
    };
    let event = lab
        .wait("the edge has all pairs", Duration::from_secs(60), complete)
        .with_context(|| format!("the authority: {}", lab.log_tail(AUTHORITY)))?;
    let took = start.elapsed().as_secs_f64();
    if !event.text.contains(&format!(" {PAIRS} pairs")) {
        bail!("expected {PAIRS} pairs, found: {}", event.text);
    }
    Ok(took)
}
