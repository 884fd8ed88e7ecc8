//! `cargo xtask audit` and `cargo xtask sbom`: what evergate is made of, and what its unit gives away.

use crate::{paths, sh, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::Command;

/// What is audited and listed: cargo's workspaces.
const WORKSPACES: [&str; 4] = [
    "Cargo.toml",
    "fuzz/Cargo.toml",
    "loom/Cargo.toml",
    "xdp-ebpf/Cargo.toml",
];

const DENY: (&str, &str) = ("cargo-deny", "0.20.2");
const CYCLONEDX: (&str, &str) = ("cargo-cyclonedx", "0.5.9");

/// `systemd-analyze security` must not say more than this, of 10.
const WORST: f64 = 2.5;
const UNIT: &str = "dist/evergate@.service";

pub(crate) fn run() -> Result<()> {
    dependencies()?;
    unit()
}

/// Licences, sources and versions; and known vulnerabilities, if their list is to be had.
fn dependencies() -> Result<()> {
    let deny = toolchain::tool(DENY)?;
    let rules = paths::workspace().join("deny.toml");
    let check = |manifest: &str, what: &[&str]| {
        let mut command = Command::new(&deny);
        command.args(["--log-level", "error", "--manifest-path"]);
        command.arg(paths::workspace().join(manifest));
        command.arg("--config").arg(&rules);
        command.args(["check", "--hide-inclusion-graph"]).args(what);
        command
    };
    let fetched = sh::read(
        Command::new(&deny)
            .arg("--config")
            .arg(&rules)
            .args(["fetch", "db"]),
    );
    for manifest in WORKSPACES {
        println!("dependencies of {manifest}");
        sh::run(&mut check(manifest, &["bans", "licenses", "sources"]))?;
        if fetched.is_ok() {
            sh::run(&mut check(manifest, &["advisories"]))?;
        }
    }
    if let Err(error) = fetched {
        println!(
            "NOT looked at: known vulnerabilities. The RustSec database could not be fetched:\n{error:#}"
        );
    }
    Ok(())
}

fn unit() -> Result<()> {
    toolchain::packages(&["systemd"])?;
    let unit = paths::workspace().join(UNIT);
    let analyze = |words: &[&str]| sh::read(Command::new("systemd-analyze").args(words).arg(&unit));
    let said = analyze(&["security", "--offline=true", "--no-pager"])?;
    let line = said.lines().last().unwrap_or_default();
    let words = line.split_whitespace();
    let score = words.filter_map(|word| word.parse::<f64>().ok()).next();
    let score = score.with_context(|| format!("no score in {line:?}"))?;
    println!("{UNIT}: exposure {score} of 10 (systemd-analyze security)");
    ensure!(score <= WORST, "expected {WORST} at most:\n{said}");
    Ok(())
}

/// A list of all components for each workspace.
pub(crate) fn components() -> Result<()> {
    let tool = toolchain::tool(CYCLONEDX)?;
    let folder = paths::target().join("sbom");
    std::fs::create_dir_all(&folder)?;
    for manifest in WORKSPACES {
        let manifest = paths::workspace().join(manifest);
        sh::read(
            Command::new(&tool)
                .arg("cyclonedx")
                .args(["--format", "json", "--quiet", "--target", "all"])
                .args(["--override-filename", "evergate-sbom", "--manifest-path"])
                .arg(&manifest),
        )?;
    }
    // The tool writes beside each package's manifest.
    for list in written()? {
        let package = list.parent().and_then(|folder| folder.file_name());
        let name = package.unwrap_or_default().to_string_lossy();
        let kept = folder.join(format!("{name}.cdx.json"));
        std::fs::copy(&list, &kept)?;
        std::fs::remove_file(&list)?;
        println!("{}", kept.display());
    }
    Ok(())
}

fn written() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(paths::workspace())? {
        let list = entry?.path().join("evergate-sbom.json");
        if list.is_file() {
            found.push(list);
        }
    }
    if found.is_empty() {
        bail!("cargo-cyclonedx wrote nothing");
    }
    Ok(found)
}
