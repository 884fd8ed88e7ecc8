//! `evergate run`: the node itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::node::config::{ChannelEnd, Config, Store};
use crate::node::notary::Notary;
use crate::privilege::{self, Folders, memory};

/// Reads the configuration and runs the node until it is told to stop.
pub(super) fn run(path: &Path, keylog: Option<PathBuf>) -> anyhow::Result<()> {
    memory::keep_tables_apart();
    // Before the first key is read.
    memory::forbid_core_dumps();
    let config = Config::load(path)?;
    for warning in &config.warnings {
        tracing::warn!("{}:{warning}", config.path.display());
    }
    let notary = Notary::start(&config);
    let folders = folders(&config, keylog.as_deref());
    let confinement = privilege::enter(&config.privileges, &folders)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(crate::node::run(config, keylog, &confinement, notary))
}

/// What the running node reads again, and where it writes.
fn folders(config: &Config, keylog: Option<&Path>) -> Folders {
    let socket = config
        .socket
        .parent()
        .map(|folder| (folder.to_owned(), 0o755));
    let keylog = keylog.map(|folder| (folder.to_owned(), 0o700));
    let repository = match config.repository.as_ref().map(|at| &at.store) {
        Some(Store::Embedded(file)) => file.parent().map(|folder| (folder.to_owned(), 0o700)),
        _ => None,
    };
    let write = [
        Some((config.state.clone(), 0o700)),
        socket,
        keylog,
        repository,
    ];
    let (listen, connect) = ports(config);
    Folders {
        read: config.folders.clone(),
        write: write.into_iter().flatten().collect(),
        listen,
        connect,
    }
}

/// TCP ports of this node, and of others that it connects to.
fn ports(config: &Config) -> (BTreeSet<u16>, BTreeSet<u16>) {
    let (mut listen, mut connect) = (BTreeSet::new(), BTreeSet::new());
    match config.channel.as_ref().map(|channel| &channel.end) {
        Some(ChannelEnd::Authority { listen: at, .. }) => {
            listen.insert(at.port());
        }
        Some(ChannelEnd::Edge { authorities, .. }) => {
            connect.extend(authorities.iter().map(|at| at.address.port()));
        }
        None => {}
    }
    if let Some(Store::Etcd { endpoints, .. }) = config.repository.as_ref().map(|at| &at.store) {
        let port = |endpoint: &String| {
            let authority = endpoint.split("//").last()?.split('/').next()?;
            authority.rsplit(':').next()?.parse::<u16>().ok()
        };
        connect.extend(endpoints.iter().filter_map(port));
    }
    (listen, connect)
}
