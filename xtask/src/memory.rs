//! `cargo xtask check-memory`: models of what threads share, the unsafe code under Miri, the unit tests
//! under the address and the thread sanitizer. All but the first need rustup's nightly.

use crate::style::{bold, green, red};
use crate::{build, paths, sh, toolchain};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::process::Command;

/// What looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Watcher {
    /// Every order that two threads can have, of models
    Loom,
    /// An interpreter that knows what each pointer may touch, and every order that weak memory allows
    Miri,
    /// Use after free, beyond ends, leaks
    Address,
    /// Data races, the standard library's part in them included
    Thread,
}

const ALL: [Watcher; 4] = [
    Watcher::Loom,
    Watcher::Miri,
    Watcher::Address,
    Watcher::Thread,
];
const NIGHTLY: &str = "nightly";
/// What Miri can run of the unsafe code: the rest are system calls.
const MIRI: &str = "dataplane::xsk";
/// So many orders of two threads are tried.
const SEEDS: &str = "0..8";

/// The command. None named: all.
pub(crate) fn run(watchers: &[Watcher]) -> Result<()> {
    toolchain::ensure()?;
    let chosen = if watchers.is_empty() { &ALL } else { watchers };
    let mut failed = Vec::new();
    for watcher in chosen {
        let name = watcher.name();
        println!("\n{}", bold(&format!("── {name} ──")));
        match watcher.run() {
            Ok(()) => println!("{name}: {}", green("ok")),
            Err(error) => {
                println!("{name}: {} {error:#}", red("FAILED"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Watcher {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Loom => loom(),
            Self::Miri => miri(),
            Self::Address => sanitize("address", &[]),
            // Without its own locks and channels it would see races in each of them.
            Self::Thread => {
                component("rust-src").and_then(|()| sanitize("thread", &["-Zbuild-std"]))
            }
        }
    }
}

/// Cargo of rustup's nightly, whatever has started this program.
fn nightly(folder: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", NIGHTLY, "cargo"])
        .current_dir(paths::workspace())
        .env("CARGO_TARGET_DIR", paths::target().join(folder));
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

/// A component of the nightly, asked for if it is not there.
fn component(name: &str) -> Result<()> {
    let list = ["component", "list", "--installed", "--toolchain", NIGHTLY];
    let there = sh::read(Command::new("rustup").args(list))
        .context("rustup's nightly is needed: `rustup toolchain install nightly`")?;
    if there.lines().any(|line| line.starts_with(name)) {
        return Ok(());
    }
    sh::read(Command::new("rustup").args(["component", "add", name, "--toolchain", NIGHTLY]))
        .map(drop)
        .with_context(|| format!("rustup's nightly has no {name}"))
}

/// The models of `loom/`.
pub(crate) fn loom() -> Result<()> {
    let mut command = build::cargo();
    command
        .args(["run", "--quiet", "--release", "--manifest-path"])
        .arg(paths::workspace().join("loom/Cargo.toml"))
        .env("CARGO_TARGET_DIR", paths::target().join("loom"));
    sh::run(&mut command)
}

fn miri() -> Result<()> {
    component("miri")?;
    component("rust-src")?;
    let flags = format!("-Zmiri-strict-provenance -Zmiri-many-seeds={SEEDS}");
    let mut command = nightly("miri");
    command
        .args(["miri", "test", "--package", "evergate", "--lib", "--"])
        .arg(MIRI)
        .env("MIRIFLAGS", flags);
    sh::run(&mut command)
}

/// Unit tests, and what they are linked with but for assembly, C and, if it is not built too, the standard
/// library, under a sanitizer.
fn sanitize(sanitizer: &str, options: &[&str]) -> Result<()> {
    let host = sh::read(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let mut command = nightly(sanitizer);
    command
        .args(["test", "--lib", "--target", host.trim()])
        .args(["--package", "evergate", "--package", "evergate-common"])
        .args(options)
        .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"))
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    sh::run(&mut command)
}
