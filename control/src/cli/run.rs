//! `evergate run`: the node itself.

use std::path::{Path, PathBuf};

use crate::node::config::Config;
use crate::privilege::{self, Folders, memory};

/// Reads the configuration and runs the node until it is told to stop.
pub(super) fn run(path: &Path, keylog: Option<PathBuf>) -> anyhow::Result<()> {
    // Before the first key is read.
    memory::forbid_core_dumps();
    let config = Config::load(path)?;
    for warning in &config.warnings {
        tracing::warn!("{}:{warning}", config.path.display());
    }
    let folders = folders(&config, keylog.as_deref());
    let confinement = privilege::enter(&config.privileges, &folders)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(crate::node::run(config, keylog, &confinement))
}

/// What the running node reads again, and where it writes.
fn folders(config: &Config, keylog: Option<&Path>) -> Folders {
    let socket = config
        .socket
        .parent()
        .map(|folder| (folder.to_owned(), 0o755));
    let keylog = keylog.map(|folder| (folder.to_owned(), 0o700));
    let write = [Some((config.state.clone(), 0o700)), socket, keylog];
    Folders {
        read: config.folders.clone(),
        write: write.into_iter().flatten().collect(),
    }
}
