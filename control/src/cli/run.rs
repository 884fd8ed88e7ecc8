//! `evergate run`: the node itself.

use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing::Level;

use crate::node::config::Config;

/// Reads the configuration and runs the node until it is told to stop.
pub(super) fn run(path: &Path, keylog: Option<PathBuf>) -> anyhow::Result<()> {
    // Before the first key is read.
    if tracing::enabled!(Level::TRACE) {
        tracing::warn!("core dumps stay allowed, because `trace` is logged: they hold keys");
    } else {
        forbid_core_dumps();
    }
    let config = Config::load(path)?;
    for warning in &config.warnings {
        tracing::warn!("{}:{warning}", config.path.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(crate::node::run(config, keylog))
}

/// Keys must not reach a disk by way of a crash, nor another process of the same user by ptrace. A
/// node that can not have that runs all the same, and says so.
fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // The limit alone does not count where the kernel pipes core dumps to a program.
    for (what, result) in [
        ("RLIMIT_CORE", setrlimit(Resource::Core, none)),
        (
            "PR_SET_DUMPABLE",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        ),
    ] {
        if let Err(error) = result {
            tracing::warn!("a core dump of this process could hold keys: {what}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_crash_leaves_no_core() {
        let before = dumpable_behavior().unwrap();
        forbid_core_dumps();
        let after = dumpable_behavior().unwrap();
        // Other tests of this process look into /proc.
        set_dumpable_behavior(before).unwrap();
        assert_eq!(after, DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
