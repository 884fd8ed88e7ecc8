//! `cargo xtask test` and `cargo xtask ci`.

use crate::{PACKAGES, audit, build, e2e, interop, memory, paths, sh, toolchain, tshark};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// What tests need beyond the lab: an independent ESP implementation, etcd and what its client is built with.
const TEST_PACKAGES: &[&str] = &[
    "etcd-server",
    "libprotobuf-dev",
    "protobuf-compiler",
    "python3-cryptography",
    "python3-scapy",
];

/// The prefix of the tests' lab: beside the demo's.
pub(crate) const PREFIX: &str = "egt-";

/// So many simulated clients lose a gateway after that.
const HERD: usize = 10_000;
/// How many failovers are simulated after the tests.
pub(crate) const FAILOVERS: u64 = 100_000;
/// How many edges are lost in simulations with an authority.
const EDGES_LOST: u64 = 2_000;
/// How many histories machine and reference model live through.
pub(crate) const HISTORIES: u64 = 100_000;

/// How much is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// The end-to-end cases alone.
    pub(crate) e2e: bool,
    /// Every case with strongSwan, not only the usual ones.
    pub(crate) all: bool,
}

/// Everything that building and testing need.
pub(crate) fn set_up() -> Result<()> {
    toolchain::packages(&[PACKAGES, TEST_PACKAGES, interop::PACKAGES, tshark::PACKAGES].concat())?;
    toolchain::ensure().map(drop)
}

/// Set-up, the workspace's tests, the end-to-end cases, those against strongSwan; the last line is
/// `N passed, N failed`.
pub(crate) fn test(filter: &str, scope: Scope, prefix: &str) -> Result<()> {
    set_up()?;
    build::release()?;
    let mut tally = Tally::default();
    let only_interop = filter.starts_with(interop::NAME);
    if !scope.e2e && !only_interop {
        tally = workspace(filter)?;
    }
    if filter.is_empty() && !scope.e2e {
        println!("\nsimulated failovers");
        let failovers = ["--failovers", &FAILOVERS.to_string()];
        let herd = ["--herd", &HERD.to_string()];
        let histories = ["--histories", &HISTORIES.to_string()];
        let edges = ["--shared", "--failovers", &EDGES_LOST.to_string()];
        let runs = [
            simulate(&failovers)
                .and_then(|()| simulate(&herd))
                .and_then(|()| simulate(&edges)),
            model(&histories),
        ];
        for run in runs {
            match run {
                Ok(()) => tally.count((1, 0)),
                Err(error) => {
                    println!("{error:#}");
                    tally.count((0, 1));
                }
            }
        }
    }
    if filter.is_empty() && !scope.e2e {
        println!("\nmodels of what threads share");
        match memory::loom() {
            Ok(()) => tally.count((1, 0)),
            Err(error) => {
                println!("{error:#}");
                tally.count((0, 1));
            }
        }
    }
    if !only_interop {
        tally.count(e2e::run(filter, prefix)?);
    }
    if !scope.e2e {
        tally.count(interop::run(filter, scope.all, prefix)?);
    }
    println!();
    if tally.ignored > 0 {
        println!("{} ignored (they say why)", tally.ignored);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("tests failed");
    }
    if tally.passed == 0 {
        bail!("no test matches {filter:?}");
    }
    Ok(())
}

/// Runs the simulator: with optimisation, it is thirty times slower without.
pub(crate) fn simulate(words: &[&str]) -> Result<()> {
    under_virtual_clock("simulate", words)
}

/// Compares the failover machine with its reference model.
pub(crate) fn model(words: &[&str]) -> Result<()> {
    under_virtual_clock("model", words)
}

fn under_virtual_clock(bin: &str, words: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", "evergate-tests"];
    let mut command = build::cargo();
    command.args(run).args(["--bin", bin, "--"]);
    sh::run(command.args(words))
}

/// Records sessions of all kinds, and makes the corpus of the fuzz targets of them.
pub(crate) fn corpus(prefix: &str) -> Result<()> {
    set_up()?;
    build::release()?;
    let _ = std::fs::remove_dir_all(tshark::recordings());
    let mut tally = Tally::default();
    tally.count(e2e::run("wireshark", prefix)?);
    for peer in ["wireshark", "libreswan"] {
        tally.count(interop::run(peer, false, prefix)?);
    }
    if tally.failed > 0 {
        bail!("not all sessions could be recorded");
    }
    let words = [
        "run",
        "--quiet",
        "--package",
        "evergate-tests",
        "--bin",
        "corpus",
        "--",
    ];
    let corpus = paths::workspace().join("fuzz/seeds");
    sh::run(
        build::cargo()
            .args(words)
            .arg(tshark::recordings())
            .arg(corpus),
    )
}

/// Formatting, clippy with warnings denied, dependencies, tests.
pub(crate) fn ci() -> Result<()> {
    sh::run(build::cargo().args(["fmt", "--all", "--check"]))?;
    set_up()?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    sh::run(build::cargo().args(clippy))?;
    audit::run()?;
    test("", Scope::default(), PREFIX)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// `cargo test` of the whole workspace, shown as it comes and counted.
fn workspace(filter: &str) -> Result<Tally> {
    let mut command = build::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if !filter.is_empty() {
        command.args(["--", filter]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("can not start cargo")?;
    let stdout = child.stdout.take().context("cargo has no stdout")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("cargo test failed ({status}) before the tests could");
    }
    Ok(tally)
}

impl Tally {
    /// Adds cases: how many passed and failed.
    fn count(&mut self, (passed, failed): (usize, usize)) {
        self.passed += passed;
        self.failed += failed;
    }

    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let counts = rest.split_once(". ").map_or(rest, |(_, counts)| counts);
        for part in counts.split("; ") {
            if let Some((number, what)) = part.split_once(' ')
                && let Ok(number) = number.parse::<usize>()
            {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out");
        tally.add("test some::thing ... ok");
        tally.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; finished in 1s");
        assert_eq!(
            tally,
            Tally {
                passed: 11,
                failed: 3,
                ignored: 1
            }
        );
    }
}
