//! Nodes that may open no more files.

use super::NODE_USER;
use crate::sh;
use anyhow::{Result, bail};
use std::process::Command;

/// A limit that everything open already exceeds.
const NONE_LEFT: &str = "3";

/// From now on a process can open nothing more; yields the limit that it had, for [`set`].
pub(crate) fn take_descriptors(pid: i32) -> Result<String> {
    let had = get(pid)?;
    let hard = had.split_once(':').map_or("", |(_, hard)| hard);
    set(pid, &format!("{NONE_LEFT}:{hard}"))?;
    Ok(had)
}

/// How many files a process may have open, as `prlimit` wants it: `SOFT:HARD`.
fn get(pid: i32) -> Result<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    match words.as_slice() {
        [_, _, _, soft, hard, ..] => Ok(format!("{soft}:{hard}")),
        _ => bail!("the limits of process {pid} are not understood"),
    }
}

/// Gives it such a limit.
pub(crate) fn set(pid: i32, limit: &str) -> Result<()> {
    let (pid, limit) = (format!("--pid={pid}"), format!("--nofile={limit}"));
    // As the node's user: root without CAP_SYS_RESOURCE may not.
    let user = NODE_USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    sh::read(command.args(["prlimit", &pid, &limit])).map(drop)
}
