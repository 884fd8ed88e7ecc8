//! What can be shown where XDP programs can not be loaded: by whoever is not root, in a user namespace of
//! their own, and in containers.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells the program that it runs in a namespace that it made.
pub(crate) const INSIDE: &str = "EVERGATE_LAB_IN_NAMESPACE";

/// Bits of capabilities(7).
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;

/// Nodes of labs have no XDP programs.
static WITHOUT_XDP: AtomicBool = AtomicBool::new(false);

/// From now on nodes of labs have no XDP programs unless something else is said.
pub(crate) fn go_without_xdp() {
    WITHOUT_XDP.store(true, Ordering::Relaxed);
}

/// Whether nodes of labs have no XDP programs.
pub(crate) fn without_xdp() -> bool {
    WITHOUT_XDP.load(Ordering::Relaxed)
}

/// Whether this program is root only in a namespace of its own.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether it is root at all.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Why XDP programs can not be loaded; `None`: they can, as far as one can tell before.
pub(crate) fn no_programs() -> Option<String> {
    if inside() || !is_root() {
        return Some("only root may load XDP programs".into());
    }
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let have = u64::from_str_radix(line.trim(), 16).ok()?;
    (have & (CAP_BPF | CAP_SYS_ADMIN) == 0)
        .then(|| "this container has neither CAP_BPF nor CAP_SYS_ADMIN".into())
}

/// What runs the command that follows it as root of namespaces of its own, with [`INSIDE`] set.
pub(crate) fn entering() -> [String; 11] {
    let folders = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec \"$0\" \"$@\"";
    [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        folders,
    ]
    .map(str::to_owned)
}

/// Becomes this program with these words, as root of namespaces that end with it: of users, networks and
/// mounts, with folders of its own for what is otherwise the system's.
///
/// # Errors
/// It could not be started; otherwise this does not return.
pub(crate) fn enter(words: &[&str]) -> Result<()> {
    let [first, rest @ ..] = &entering()[..] else {
        bail!("nothing to run");
    };
    let error = Command::new(first)
        .args(rest)
        .arg(paths::own())
        .args(words)
        .env(INSIDE, "1")
        .exec();
    Err(error).context(
        "no namespaces could be made with unshare(1), of the package util-linux; does the system let users \
         make user namespaces (user.max_user_namespaces, kernel.unprivileged_userns_clone)?",
    )
}

/// Refuses what can not be had in a namespace that ends with the program.
pub(crate) fn refuse_to_keep(keep: bool) -> Result<()> {
    if keep && !is_root() {
        bail!(
            "--keep: a lab in a user namespace ends with the program that made it; run it as root"
        );
    }
    Ok(())
}
