//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, with any compiler; executions of all runs add
//! up.

mod said;

use self::said::Said;
use crate::style::{bold, green, red};
use crate::{build, paths, sh, toolchain};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What each parser shall have been run with.
pub(crate) const AIM: u64 = 100_000_000;
/// Marks each edge and each comparison of the target's code for libFuzzer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on";
/// What takes longer than that, in seconds, is a finding.
const TOO_SLOW: u64 = 30;
/// libFuzzer's exit code when a signal has ended it.
const INTERRUPTED: i32 = 72;
/// A child that was told to end has so long.
const LEAVE: Duration = Duration::from_secs(5);

/// How long each target runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Span {
    Time(Duration),
    /// So many executions.
    Runs(u64),
    /// As many as its sum lacks of so many.
    Sum(u64),
}

/// Executions of all runs on this machine, by target.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sums(BTreeMap<String, Sum>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    executions: u64,
    /// The most that one run reached.
    edges: u64,
}

impl Sums {
    fn path() -> PathBuf {
        folder().join("executions.json")
    }

    fn load() -> Result<Self> {
        let path = Self::path();
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn of(&self, target: &str) -> Sum {
        self.0.get(target).copied().unwrap_or_default()
    }

    fn add(&mut self, target: &str, said: &Said) {
        let sum = self.0.entry(target.to_owned()).or_default();
        sum.executions += said.executions;
        sum.edges = sum.edges.max(said.edges);
    }

    /// Adds a run to what the file holds by now: another command may have added its own.
    fn keep(target: &str, said: &Said) -> Result<Sum> {
        let lock = File::create(folder().join("executions.lock"))?;
        lock.lock()?;
        let mut now = Self::load()?;
        now.add(target, said);
        let path = Self::path();
        // Whole or not at all: the sums of days are in it.
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_string_pretty(&now)?)?;
        std::fs::rename(&new, &path)?;
        Ok(now.of(target))
    }
}

/// One target that runs.
struct Run {
    target: String,
    child: Child,
    log: PathBuf,
    since: Instant,
}

impl Run {
    fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }
}

/// One that has run.
struct Done {
    target: String,
    said: Said,
    took: Duration,
    status: ExitStatus,
    sum: Sum,
}

impl Done {
    fn broke(&self) -> bool {
        // A kill leaves no input behind, and is a failure all the same.
        let ended = self.status.success() || self.status.code() == Some(INTERRUPTED);
        !self.said.broke.is_empty() || !ended
    }
}

/// The command.
pub(crate) fn run(names: &[String], span: Span, jobs: usize) -> Result<()> {
    let all = targets()?;
    let chosen = choose(&all, names)?;
    toolchain::ensure()?;
    let binaries = compile()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let sums = Sums::load()?;
    let mut waiting = chosen.into_iter().rev().collect::<Vec<_>>();
    let (mut running, mut done): (Vec<Run>, Vec<Done>) = (Vec::new(), Vec::new());
    println!("{}", bold(&heading()));
    loop {
        while running.len() < jobs.max(1) && !stop.load(Ordering::Relaxed) {
            let Some(target) = waiting.pop() else { break };
            match limit(span, sums.of(&target)) {
                Some(limit) => running.push(start(&binaries, &target, &limit)?),
                None => println!("{}", row(&target, None, sums.of(&target))),
            }
        }
        if running.is_empty() {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            end_all(&mut running)?;
        }
        let mut index = 0;
        while let Some(run) = running.get_mut(index) {
            let Some(status) = run.child.try_wait()? else {
                index += 1;
                continue;
            };
            let ended = conclude(running.swap_remove(index), status)?;
            println!("{}", row(&ended.target, Some(&ended), ended.sum));
            done.push(ended);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    tell(&done)
}

/// Prints the sums of all targets.
pub(crate) fn show() -> Result<()> {
    let sums = Sums::load()?;
    println!("{}", bold(&heading()));
    for target in targets()? {
        println!("{}", row(&target, None, sums.of(&target)));
    }
    let whole: u64 = sums.0.values().map(|sum| sum.executions).sum();
    println!("{} executions in all", grouped(whole));
    Ok(())
}

fn folder() -> PathBuf {
    paths::target().join("fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let dir = paths::workspace().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|n| n.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Those that were named, or all.
fn choose(all: &[String], names: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("no target {unknown:?}: expected some of {}", all.join(", "));
    }
    Ok(if names.is_empty() { all } else { names }.to_vec())
}

/// Builds all targets; yields the folder of the binaries.
fn compile() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let host = sh::read(Command::new(rustc).args(["--print", "host-tuple"]))?;
    let host = host.trim();
    // With `--target` the flags are for what shall be fuzzed, not for build scripts.
    let words = ["build", "--quiet", "--release", "--target", host];
    let mut cargo = build::cargo();
    cargo
        .args(words)
        .arg("--manifest-path")
        .arg(paths::workspace().join("fuzz/Cargo.toml"))
        .env("CARGO_TARGET_DIR", folder())
        .env("RUSTFLAGS", FLAGS);
    sh::run(&mut cargo)?;
    Ok(folder().join(host).join("release"))
}

/// libFuzzer's word for how long; none if there is nothing left to do.
fn limit(span: Span, sum: Sum) -> Option<String> {
    match span {
        Span::Time(time) => Some(format!("-max_total_time={}", time.as_secs().max(1))),
        Span::Runs(runs) => (runs > 0).then(|| format!("-runs={runs}")),
        Span::Sum(whole) => {
            let runs = whole.saturating_sub(sum.executions);
            (runs > 0).then(|| format!("-runs={runs}"))
        }
    }
}

fn start(binaries: &Path, target: &str, limit: &str) -> Result<Run> {
    let (corpus, broke) = (
        folder().join("corpus").join(target),
        folder().join("broke").join(target),
    );
    let log = folder().join("log").join(format!("{target}.log"));
    for dir in [&corpus, &broke, &folder().join("log")] {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(binaries.join(target));
    command
        .args([limit, "-print_final_stats=1"])
        .arg(format!("-timeout={TOO_SLOW}"))
        .arg(format!("-artifact_prefix={}/", broke.display()))
        .arg(corpus)
        .arg(paths::workspace().join("fuzz/seeds").join(target))
        // A terminal's Ctrl-C reaches only this program, which ends them and counts.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    let child = command
        .spawn()
        .with_context(|| format!("can not start {target}"))?;
    Ok(Run {
        target: target.to_owned(),
        child,
        log,
        since: Instant::now(),
    })
}

/// SIGINT lets libFuzzer tell its figures.
fn end_all(running: &mut [Run]) -> Result<()> {
    for run in running.iter() {
        // It may have ended by itself just now.
        let _ = kill(Pid::from_raw(run.id()), Signal::SIGINT);
    }
    let patience = Instant::now() + LEAVE;
    for run in running {
        while run.child.try_wait()?.is_none() {
            if Instant::now() > patience {
                run.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn conclude(run: Run, status: ExitStatus) -> Result<Done> {
    let took = run.since.elapsed();
    let text = std::fs::read(&run.log).with_context(|| run.log.display().to_string())?;
    let said = said::read(&String::from_utf8_lossy(&text));
    let sum = Sums::keep(&run.target, &said)?;
    Ok(Done {
        target: run.target,
        said,
        took,
        status,
        sum,
    })
}

fn heading() -> String {
    format!(
        "{:<16} {:>14} {:>10} {:>8} {:>16} {:>6}  ",
        "target", "executions", "a second", "edges", "in all", "of aim"
    )
}

fn row(target: &str, done: Option<&Done>, sum: Sum) -> String {
    let (executions, speed, edges, end) = match done {
        None => (0, 0.0, sum.edges, String::new()),
        Some(done) => (
            done.said.executions,
            done.said.executions as f64 / done.took.as_secs_f64().max(0.001),
            done.said.edges,
            match done.broke() {
                true => red("BROKE"),
                false => green("ok"),
            },
        ),
    };
    let share = 100.0 * sum.executions as f64 / AIM as f64;
    format!(
        "{target:<16} {:>14} {:>10} {:>8} {:>16} {share:>5.1}%  {end}",
        grouped(executions),
        grouped(speed as u64),
        grouped(edges),
        grouped(sum.executions),
    )
}

/// What broke, and with what input.
fn tell(done: &[Done]) -> Result<()> {
    let broke: Vec<&Done> = done.iter().filter(|done| done.broke()).collect();
    for done in &broke {
        let why = done.said.why.clone();
        println!(
            "\n{}: {}",
            red(&done.target),
            why.unwrap_or_else(|| done.status.to_string())
        );
        for path in &done.said.broke {
            println!("    {}", path.display());
        }
        let log = folder().join("log").join(format!("{}.log", done.target));
        println!("    {}", log.display());
    }
    if !broke.is_empty() {
        bail!("{} of {} targets broke", broke.len(), done.len());
    }
    Ok(())
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_corpus_and_a_place_in_the_page() {
        let page = std::fs::read_to_string(paths::workspace().join("docs/fuzzing.md")).unwrap();
        let targets = targets().unwrap();
        assert!(targets.len() >= 22);
        for target in targets {
            let seeds = paths::workspace().join("fuzz/seeds").join(&target);
            assert!(seeds.is_dir(), "{}", seeds.display());
            assert!(page.contains(&format!("| `{target}` |")), "{target}");
        }
    }

    #[test]
    fn an_unknown_target_is_told() {
        let all = ["a".to_owned(), "b".to_owned()];
        assert_eq!(choose(&all, &[]).unwrap(), all);
        assert_eq!(choose(&all, &["b".to_owned()]).unwrap(), ["b"]);
        let error = choose(&all, &["c".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("a, b"));
    }

    #[test]
    fn a_sum_asks_only_for_what_it_lacks() {
        let sum = Sum {
            executions: 70,
            edges: 0,
        };
        assert_eq!(limit(Span::Sum(100), sum).unwrap(), "-runs=30");
        assert_eq!(limit(Span::Sum(70), sum), None);
        assert_eq!(limit(Span::Runs(5), sum).unwrap(), "-runs=5");
        let minute = Span::Time(Duration::from_secs(60));
        assert_eq!(limit(minute, sum).unwrap(), "-max_total_time=60");
    }

    #[test]
    fn sums_add_up_and_are_read_again() {
        let mut sums = Sums::default();
        for (executions, edges) in [(10, 7), (32, 5)] {
            let said = Said {
                executions,
                edges,
                ..Said::default()
            };
            sums.add("policy", &said);
        }
        let text = serde_json::to_string(&sums).unwrap();
        let again: Sums = serde_json::from_str(&text).unwrap();
        let whole = Sum {
            executions: 42,
            edges: 7,
        };
        assert_eq!(again.of("policy"), whole);
        assert_eq!(again.of("config"), Sum::default());
    }

    #[test]
    fn numbers_in_groups() {
        assert_eq!(
            [0, 999, 1_000, 49_708_130].map(grouped),
            ["0", "999", "1,000", "49,708,130"]
        );
    }
}
