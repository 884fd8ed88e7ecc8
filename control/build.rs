//! Builds the XDP programs for the BPF target and leaves the object in `OUT_DIR`.
//!
//! The tool chain is the one that `cargo xtask setup` chose: `target/ebpf-toolchain` holds its
//! rustup name and, on a second line, the folder of its `bpf-linker`, if that is not on the path.
//! The variable `EVERGATE_EBPF_TOOLCHAIN` (a rustup tool chain's name) goes before the file.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use aya_build::{Package, Toolchain};

const OVERRIDE: &str = "EVERGATE_EBPF_TOOLCHAIN";
/// Set for the second run of this script, which has the environment that aya-build wants.
const INNER: &str = "EVERGATE_EBPF_INNER";

fn main() -> ExitCode {
    let result = match env::var(INNER) {
        Ok(toolchain) => build(&toolchain),
        Err(_) => {
            #[cfg(feature = "ipsec-mb")]
            ipsec_mb();
            outer()
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The eBPF package is a workspace of its own: aya-build runs in its folder.
fn build(toolchain: &str) -> Result<(), String> {
    let package = Package {
        name: "evergate-xdp",
        root_dir: ".",
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(toolchain)).map_err(|e| format!("{e:#}"))
}

/// What names the functions of Intel's library; a C compiler and the library's header are needed.
#[cfg(feature = "ipsec-mb")]
fn ipsec_mb() {
    const SOURCE: &str = "src/esp/ipsec_mb.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    cc::Build::new().file(SOURCE).compile("evergate_ipsec_mb");
    println!("cargo:rustc-link-lib=IPSec_MB");
}

fn outer() -> Result<(), String> {
    // Asked for now: this program may have been compiled when the workspace was elsewhere.
    let control = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    let root = Path::new(&control).parent().ok_or("no parent folder")?;
    let package = root.join("xdp-ebpf");
    let common = root.join("common");
    println!("cargo:rerun-if-env-changed={OVERRIDE}");
    println!(
        "cargo:rerun-if-changed={}",
        root.join("control/build.rs").display()
    );
    for (folder, names) in [
        (&package, ["Cargo.toml", "Cargo.lock", "src"].as_slice()),
        (&common, ["Cargo.toml", "src"].as_slice()),
    ] {
        for name in names {
            println!("cargo:rerun-if-changed={}", folder.join(name).display());
        }
    }

    let (toolchain, linker_folder) = chosen(&root.join("target/ebpf-toolchain"))?;
    let mut path: Vec<PathBuf> = linker_folder.into_iter().collect();
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path = env::join_paths(path).map_err(|e| format!("PATH: {e}"))?;
    let this = env::current_exe().map_err(|e| format!("this build script: {e}"))?;
    let mut again = Command::new(this);
    if env::var_os("CARGO_CFG_MIRI").is_some() {
        // Miri stands before the outer compiler; the eBPF programs are not for it.
        again.env_remove("RUSTC_WRAPPER");
    }
    let output = again
        .current_dir(&package)
        .env(INNER, &toolchain)
        .env("PATH", path)
        // Lets a tool chain that is not a nightly build `core` for the BPF target.
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .map_err(|e| format!("the eBPF build could not be started: {e}"))?;

    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| line.strip_prefix("cargo:warning="));
    if output.status.success() {
        // aya-build reports all that cargo says as warnings; only real ones are worth a word.
        for line in messages.filter(|line| line.trim_start().starts_with("warning")) {
            println!("cargo:warning={line}");
        }
        return Ok(());
    }
    for line in messages {
        eprintln!("{line}");
    }
    Err(format!(
        "{}the XDP programs could not be built with the tool chain {toolchain}; if it has changed, \
         run `cargo xtask setup`",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The tool chain's name and the folder of its linker.
fn chosen(file: &Path) -> Result<(String, Option<PathBuf>), String> {
    if let Some(name) = env::var_os(OVERRIDE).filter(|name| !name.is_empty()) {
        let name = OsString::into_string(name).map_err(|_| format!("{OVERRIDE} is not UTF-8"))?;
        return Ok((name, None));
    }
    println!("cargo:rerun-if-changed={}", file.display());
    let text = fs::read_to_string(file)
        .map_err(|_| "the eBPF tool chain is not set up: run `cargo xtask setup`".to_owned())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let name = lines
        .next()
        .ok_or_else(|| format!("{} is empty", file.display()))?;
    Ok((name.to_owned(), lines.next().map(PathBuf::from)))
}
