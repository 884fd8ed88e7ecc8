//! A front: it steers what comes for a shared address to encryption nodes, by a table that follows which of
//! them live. Either a node of its own, with nothing else to do, or a gateway that is one of the nodes.

mod start;
mod watch;

use anyhow::{Result, anyhow};

use super::config::Config;
use crate::cluster::front::FrontKey;

pub(super) use start::start;
pub(super) use watch::Watch;

/// The key that fronts and nodes have in common, if there is a front.
pub(super) fn key_of(config: &Config) -> Result<Option<FrontKey>> {
    let front = config.front.as_ref().map(|front| &front.key);
    let path = front.or(config.behind.as_ref().map(|behind| &behind.key));
    let key = path.map(|path| FrontKey::read(path)).transpose();
    key.map_err(|error| anyhow!("the key of the front can not be used: {error}"))
}
