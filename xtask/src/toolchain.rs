//! The eBPF tool chain and the distribution's packages.
//!
//! Three things are needed to build the XDP programs: a compiler that may use unstable features,
//! the sources of `core`, and a `bpf-linker` whose LLVM is at least as new as the compiler's. The
//! usual way is rustup's nightly; where that can not be had, Debian's own compiler serves. What
//! was chosen is written to `target/ebpf-toolchain`, which the build script of `control` reads.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::rootless;
use anyhow::{Context as _, Result, bail};

/// Names a rustup tool chain that is used instead of any found one.
const OVERRIDE: &str = "EVERGATE_EBPF_TOOLCHAIN";
/// The name under which rustup knows the distribution's compiler.
const DISTRIBUTION: &str = "debian-web";
/// The distribution's compiler and its sources.
const DISTRIBUTION_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// What `bpf-linker` needs besides LLVM.
const LINKER_LIBRARIES: [&str; 3] = ["zlib1g-dev", "libzstd-dev", "libxml2-dev"];
const LINKER_VERSION: &str = "0.13.0";
/// Major versions of LLVM that this `bpf-linker` can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The tool chain that builds the XDP programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ebpf {
    /// Its name for `rustup run`.
    pub(crate) toolchain: String,
    /// The folder of its `bpf-linker`, unless that is on the path.
    pub(crate) linker: Option<PathBuf>,
}

/// Makes sure that the XDP programs can be built, by whatever way works here. Quick when all is
/// there already.
///
/// # Errors
/// One sentence that names what is missing and could not be had.
pub(crate) fn ensure() -> Result<Ebpf> {
    if let Some(name) = env::var_os(OVERRIDE).filter(|name| !name.is_empty()) {
        let toolchain = name
            .into_string()
            .ok()
            .context("EVERGATE_EBPF_TOOLCHAIN is not UTF-8")?;
        return Ok(Ebpf {
            toolchain,
            linker: None,
        });
    }
    if let Some(chosen) = remembered() {
        return Ok(chosen);
    }
    let chosen = match usual_way() {
        Ok(chosen) => chosen,
        Err(why) => {
            say(&format!(
                "not from rustup ({why:#}); taking the distribution's compiler"
            ));
            distribution_way().context(
                "the XDP programs can not be built here: neither rustup's nightly with rust-src \
                 and bpf-linker nor the distribution's compiler is to be had",
            )?
        }
    };
    remember(&chosen)?;
    say(&format!("ready ({})", chosen.toolchain));
    Ok(chosen)
}

/// Makes sure that these packages of the distribution are installed.
///
/// # Errors
/// One sentence that names the missing packages, when they can not be installed.
pub(crate) fn packages(names: &[&str]) -> Result<()> {
    let missing = missing(names);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if which("apt-get").is_none() {
        bail!("these packages are missing, and there is no apt-get to install them with: {list}");
    }
    if !rootless::is_root() {
        bail!("these packages are missing, and only root can install them: {list}");
    }
    println!("installing packages: {list}");
    // A list of packages that is missing or old is renewed once.
    if apt(&["install"], &missing).is_err() {
        apt(&["update"], &[])?;
        apt(&["install"], &missing)?;
    }
    Ok(())
}

/// Whether the distribution has a package, installed or not. An old list is renewed once.
fn offered(name: &str) -> bool {
    let known =
        || read(Command::new("apt-cache").args(["show", "--no-all-versions", name])).is_ok();
    known() || (apt(&["update"], &[]).is_ok() && known())
}

fn apt(verb: &[&str], names: &[String]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-y", "--no-install-recommends"]);
    read(command.args(verb).args(names)).map(drop)
}

/// Which of these packages are not installed. Without dpkg none can be told to be missing; the
/// programs that need them will say so.
fn missing(names: &[&str]) -> Vec<String> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Abbrev}\t${Package}\t${Provides}\n"])
        .args(names);
    let Ok(output) = query.stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed = |name: &str| {
        text.lines().any(|line| {
            let mut fields = line.split('\t');
            fields.next().is_some_and(|status| status.starts_with("ii"))
                && fields.next() == Some(name)
        })
    };
    names
        .iter()
        .filter(|name| !installed(name))
        .map(|name| (*name).to_owned())
        .collect()
}

fn memory() -> PathBuf {
    workspace().join("target/ebpf-toolchain")
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The choice of an earlier call, if it still stands.
fn remembered() -> Option<Ebpf> {
    let text = fs::read_to_string(memory()).ok()?;
    let mut lines = text.lines();
    let toolchain = lines.next()?.trim().to_owned();
    let linker = lines.next().map(PathBuf::from);
    let linked = match &linker {
        Some(folder) => folder.join("bpf-linker").is_file(),
        None => which("bpf-linker").is_some(),
    };
    let compiler = Compiler::of(&toolchain).ok()?;
    (linked && compiler.has_sources()).then_some(Ebpf { toolchain, linker })
}

fn remember(chosen: &Ebpf) -> Result<()> {
    let path = memory();
    let mut text = format!("{}\n", chosen.toolchain);
    if let Some(linker) = &chosen.linker {
        text = format!("{text}{}\n", linker.display());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// A compiler, as it describes itself.
struct Compiler {
    llvm: u32,
    sysroot: PathBuf,
}

impl Compiler {
    fn of(toolchain: &str) -> Result<Compiler> {
        let version = read(rustc(toolchain).arg("-vV"))?;
        let sysroot = read(rustc(toolchain).args(["--print", "sysroot"]))?;
        let llvm = version
            .lines()
            .find_map(|line| {
                line.strip_prefix("LLVM version: ")?
                    .split('.')
                    .next()?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("the compiler {toolchain} does not tell its LLVM version"))?;
        Ok(Compiler {
            llvm,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    fn has_sources(&self) -> bool {
        self.sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    }
}

fn rustc(toolchain: &str) -> Command {
    if which("rustup").is_none() {
        return Command::new("rustc");
    }
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "rustc"]);
    command
}

/// rustup's nightly with the sources of `core`.
fn usual_way() -> Result<Ebpf> {
    if which("rustup").is_none() {
        bail!("there is no rustup");
    }
    let toolchain = "nightly";
    let compiler = match Compiler::of(toolchain) {
        Ok(compiler) if compiler.has_sources() => compiler,
        found => {
            say("asking rustup for a nightly with rust-src");
            let mut ask = Command::new("rustup");
            match found {
                Ok(_) => ask.args(["component", "add", "rust-src", "--toolchain", toolchain]),
                Err(_) => {
                    let install = ["toolchain", "install", toolchain, "--profile", "minimal"];
                    ask.args(install)
                        .args(["--no-self-update", "-c", "rust-src"])
                }
            };
            read(&mut ask)
                .ok()
                .context("rustup can not get a nightly with rust-src")?;
            Compiler::of(toolchain)?
        }
    };
    if !compiler.has_sources() {
        bail!("the nightly has no rust-src");
    }
    // A linker that the user has may be of any LLVM: only a trial tells.
    if which("bpf-linker").is_some() {
        let chosen = Ebpf {
            toolchain: toolchain.to_owned(),
            linker: None,
        };
        say("trying nightly with the bpf-linker on the path");
        if trial(&chosen).is_ok() {
            return Ok(chosen);
        }
    }
    let chosen = Ebpf {
        toolchain: toolchain.to_owned(),
        linker: Some(linker(compiler.llvm)?),
    };
    trial(&chosen).context("nightly does not build the XDP programs")?;
    Ok(chosen)
}

/// The distribution's compiler, which builds `core` when told that it may.
fn distribution_way() -> Result<Ebpf> {
    packages(&DISTRIBUTION_RUST)?;
    if which("rustup").is_some() && Compiler::of(DISTRIBUTION).is_err() {
        read(Command::new("rustup").args(["toolchain", "link", DISTRIBUTION, "/usr"]))?;
    }
    let compiler = Compiler::of(DISTRIBUTION)?;
    if !compiler.has_sources() {
        bail!(
            "the sources of core are not in {}",
            compiler.sysroot.display()
        );
    }
    let linker = linker(compiler.llvm)?;
    Ok(Ebpf {
        toolchain: DISTRIBUTION.to_owned(),
        linker: Some(linker),
    })
}

/// Where programs are kept that were built once.
fn cache() -> Result<PathBuf> {
    let home = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(home.join("evergate"))
}

/// A program from crates.io, of that name and version, built if it is not there.
pub(crate) fn tool((name, version): (&str, &str)) -> Result<PathBuf> {
    let root = cache()?.join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.is_file() {
        println!("building {name} {version} (some minutes)");
        let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        install
            .args(["install", name, "--quiet", "--locked", "--version", version])
            .arg("--root")
            .arg(&root);
        read(&mut install)?;
    }
    Ok(program)
}

/// The folder of a `bpf-linker` of this LLVM version, built if it is not there.
fn linker(llvm: u32) -> Result<PathBuf> {
    let root = cache()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}"));
    let folder = root.join("bin");
    if folder.join("bpf-linker").is_file() {
        return Ok(folder);
    }
    if !LINKER_LLVM.contains(&llvm) {
        bail!("there is no bpf-linker for LLVM {llvm}");
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let development = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    let mut needed: Vec<&str> = LINKER_LIBRARIES.to_vec();
    if !prefix.join("bin/llvm-config").is_file() {
        needed.extend(development.iter().map(String::as_str));
    }
    if let Some(unknown) = needed.iter().find(|name| !offered(name)) {
        bail!("there is no package {unknown}, and so no bpf-linker for LLVM {llvm}");
    }
    packages(&needed)?;
    say(&format!(
        "building bpf-linker {LINKER_VERSION} for LLVM {llvm} (about a minute)"
    ));
    let mut path = vec![prefix.join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install
        .args([
            "install",
            "bpf-linker",
            "--quiet",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .arg("--root")
        .arg(&root)
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", env::join_paths(path)?);
    read(&mut install)?;
    Ok(folder)
}

/// Builds the XDP programs once, to see whether a tool chain can.
fn trial(chosen: &Ebpf) -> Result<()> {
    let mut build = Command::new("rustup");
    build
        .args([
            "run",
            &chosen.toolchain,
            "cargo",
            "build",
            "--quiet",
            "--release",
        ])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(workspace().join("target/ebpf-trial"))
        .current_dir(workspace().join("xdp-ebpf"))
        .env_remove("RUSTC")
        .env_remove("RUSTFLAGS")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Cdebuginfo=2\x1f-Clink-arg=--btf",
        );
    if let Some(linker) = &chosen.linker {
        let mut path = vec![linker.clone()];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        build.env("PATH", env::join_paths(path)?);
    }
    read(&mut build).map(drop)
}

fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn say(text: &str) {
    println!("eBPF tool chain: {text}");
}

/// Runs a program quietly; what it said goes into the error.
fn read(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} can not be run"))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        let last = lines
            .get(lines.len().saturating_sub(3)..)
            .unwrap_or_default()
            .join("; ");
        bail!("{name} failed ({status}): {last}");
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
