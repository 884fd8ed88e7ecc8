//! The unit that the project brings, in a systemd of its own.

use super::{Case, ensure, in_order, must_ping};
use crate::lab::topology::TARGETS;
use crate::lab::unit::Booted;
use crate::lab::{Lab, Place};
use crate::toolchain;
use anyhow::{Context, Result};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[("unit_of_systemd_runs_a_gateway", runs_a_gateway)];

const PATIENCE: Duration = Duration::from_secs(15);

fn runs_a_gateway(lab: &mut Lab) -> Result<()> {
    toolchain::packages(&["systemd"])?;
    lab.configure(&in_order(0))?;
    let mut gateway = Booted::start(lab, 1)?;
    lab.start(Place::Client)?;
    lab.ping_until(Place::Client, TARGETS[0], PATIENCE)?;
    ensure(lab.status(Place::Client)?.active() == Some(1), || {
        "another gateway is there".into()
    })?;

    // It is what the unit makes of it: somebody else, without more than it needs.
    let pid = gateway.property("MainPID")?;
    let status = gateway.exec(&["cat", &format!("/proc/{pid}/status")])?;
    let user = gateway.exec(&["id", "-u", "evergate"])?;
    let line = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::trim))
    };
    let uid = line("Uid:").and_then(|ids| ids.split_whitespace().next());
    ensure(uid == Some(user.trim()), || format!("it runs as {uid:?}"))?;
    for (name, value) in [("NoNewPrivs:", "1"), ("Seccomp:", "2")] {
        ensure(line(name) == Some(value), || {
            format!("{name} {:?}", line(name))
        })?;
    }
    let said = gateway.exec(&["journalctl", "--no-pager", "-o", "cat"])?;
    ensure(
        said.contains("files: its own") && said.contains("memory: locked"),
        || said,
    )?;

    // It stays when it reads its configuration again, and comes back when it is killed.
    gateway.control(&["reload"])?;
    must_ping(lab, Place::Client, &[TARGETS[0]])?;
    ensure(gateway.property("MainPID")? == pid, || {
        "it began anew".into()
    })?;
    gateway.control(&["kill", "-s", "KILL"])?;
    gateway.wait_for("NRestarts", "1")?;
    gateway.wait_for("ActiveState", "active")?;
    lab.ping_until(Place::Client, TARGETS[0], PATIENCE)
        .context("after a kill")?;
    gateway.exec(&["evergate", "status"])?;

    // It says good-bye, and systemd sees nothing wrong in it.
    gateway.control(&["stop"])?;
    let result = gateway.property("Result")?;
    ensure(result == "success", || format!("stopped: {result}"))?;
    lab.wait_client("the session is gone", PATIENCE, |s| s.keyed().is_empty())?;
    Ok(())
}
