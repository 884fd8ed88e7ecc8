//! `evergate run`: the node itself.

use std::path::Path;

use crate::node::config::Config;

/// Reads the configuration and runs the node until it is told to stop.
pub(super) fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    for warning in &config.warnings {
        tracing::warn!("{}:{warning}", config.path.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(crate::node::run(config))
}
