//! End to end in namespaces: each case gets a lab of its own, and the real binary.

mod authorities;
mod certificates;
mod chaos;
mod connectivity;
mod drain;
mod failover;
mod floods;
mod fronts;
mod hotswap;
mod life;
mod memory;
mod moving;
mod mtu;
mod nat;
mod ports;
mod privileges;
mod refusals;
mod rekey;
mod sessions;
mod sharing;
mod sockets;
mod steering;
mod throughput;
mod translation;
mod tunnel;
mod unit;
mod wireshark;
mod workers;

use self::failover::{SOON, survives};
use crate::cases;
use crate::lab::topology::TARGETS;
use crate::lab::{Event, Lab, Place, Setup, Status};
use crate::probe::{Probe, Stream, StreamReport, now_ns};
use anyhow::{Result, bail};
use std::time::Duration;

/// One case: its name says what must hold.
type Case = (&'static str, fn(&mut Lab) -> Result<()>);

const CASES: &[&[Case]] = &[
    tunnel::CASES,
    sockets::CASES,
    steering::CASES,
    memory::CASES,
    sharing::CASES,
    fronts::CASES,
    hotswap::CASES,
    authorities::CASES,
    connectivity::CASES,
    translation::CASES,
    failover::CASES,
    drain::CASES,
    sessions::CASES,
    nat::CASES,
    moving::CASES,
    mtu::CASES,
    refusals::CASES,
    floods::CASES,
    throughput::CASES,
    ports::CASES,
    privileges::CASES,
    certificates::CASES,
    rekey::CASES,
    life::CASES,
    unit::CASES,
    wireshark::CASES,
    workers::CASES,
    chaos::CASES,
];

/// Runs the cases whose name contains `filter`; returns how many passed and failed.
pub(crate) fn run(filter: &str, prefix: &str) -> Result<(usize, usize)> {
    let all = CASES.iter().copied().flatten();
    let chosen = all.filter(|(name, _)| name.contains(filter));
    let chosen: Vec<cases::Case> = chosen
        .map(|(name, case)| cases::Case {
            name: (*name).into(),
            run: Box::new(*case),
        })
        .collect();
    cases::run("end-to-end cases", prefix, &chosen)
}

/// Starts every node with this set-up and waits until traffic flows.
fn up(lab: &mut Lab, setup: &Setup) -> Result<Status> {
    lab.configure(setup)?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(10))?;
    let standby = setup.general.contains("Standby = 1");
    let wanted = if standby { 2 } else { 1 };
    lab.wait_client(
        "the gateways are keyed",
        Duration::from_secs(10),
        |status| status.active().is_some() && status.keyed().len() >= wanted,
    )
}

/// The usual policy without a standby.
fn without_standby() -> Setup {
    Setup {
        general: general(0, true),
        ..Setup::default()
    }
}

/// The usual policy, in the order written.
fn in_order(standby: u8) -> Setup {
    Setup {
        general: general(standby, false),
        ..Setup::default()
    }
}

fn general(standby: u8, random: bool) -> String {
    let random = if random { "yes" } else { "no" };
    format!(
        "Heartbeat = INSTANT\nHeartbeatDeferTime = 5ms\nHeartbeatResponseTime = 5ms\n\
         Standby = {standby}\nRandomOrder = {random}\n"
    )
}

/// The client's active gateway.
fn active(lab: &Lab) -> Result<u8> {
    let status = lab.wait_client("a gateway is active", Duration::from_secs(10), |s| {
        s.active().is_some()
    })?;
    Ok(status.active().unwrap_or_default())
}

/// Waits until the client uses this gateway.
fn wait_active(lab: &Lab, number: u8, timeout: Duration) -> Result<Status> {
    lab.wait_client(&format!("gw{number} is active"), timeout, |s| {
        s.active() == Some(number)
    })
}

/// Waits until a node tells of something.
fn wait_event(
    lab: &Lab,
    place: Place,
    what: &str,
    condition: impl Fn(&Event) -> bool,
) -> Result<Event> {
    lab.wait(what, Duration::from_secs(15), |lab| {
        Ok(lab
            .events(place, 0)?
            .into_iter()
            .find(|event| condition(event)))
    })
}

/// One line of `ping`: whether it was answered, and what it said.
fn ping(lab: &Lab, from: Place, words: &[&str]) -> Result<(bool, String)> {
    let mut all = vec!["ping", "-n", "-c1", "-W2"];
    all.extend(words);
    let output = lab.try_exec(from, &all)?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

fn must_ping(lab: &Lab, from: Place, words: &[&str]) -> Result<()> {
    match ping(lab, from, words)? {
        (true, _) => Ok(()),
        (false, said) => bail!("ping {} from {from}: {}", words.join(" "), said.trim()),
    }
}

/// A stream that has run for a while is whole: its content was right, and there was much of it.
fn must_be_whole(lab: &Lab, stream: Stream) -> Result<StreamReport> {
    let report = stream.finish()?;
    ensure(report.error.is_none() && report.checked > 100_000, || {
        format!("the TCP stream: {report:?}; dropped were {}", lab.drops())
    })?;
    Ok(report)
}

/// Of what was sent from then until now nothing is lost.
fn must_lose_nothing(lab: &Lab, probe: Probe, from: u64) -> Result<()> {
    let until = now_ns();
    // What is on its way.
    std::thread::sleep(Duration::from_millis(200));
    let lost = probe.finish()?.lost(from, until);
    ensure(lost == 0, || {
        format!("{lost} lost; dropped were {}", lab.drops())
    })
}

fn ensure(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition {
        Ok(())
    } else {
        bail!("{}", what())
    }
}
