//! Room `node`: the shells that drive the cores with real sockets, clocks and signals.
//!
//! [`run`] is `evergate run`. One task, [`core::Node`], owns everything that decides; the workers
//! and the API have threads of their own.

mod authority;
mod client;
mod clock;
mod commands;
pub mod config;
mod connectivity;
mod core;
mod departures;
mod drain;
mod edge;
mod establish;
pub mod events;
mod filter;
mod front;
mod gateway;
mod guard;
mod hooks;
mod inner;
mod inputs;
mod interfaces;
mod keylog;
mod lanes;
mod leaving;
mod life;
mod mobility;
pub mod notary;
mod peers;
mod pool;
mod rekey;
mod reload;
mod roaming;
mod routes;
mod sessions;
pub(crate) mod sockets;
mod start;
mod status;
mod steering;
pub mod threads;

use std::path::PathBuf;

#[doc(hidden)]
pub use authority::Held;
use config::Config;
use notary::Notary;

use crate::privilege::Confinement;

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or can not go on. `keylog`: a folder that
/// the keys of all sessions are written to. `confinement`: how far the process is confined already.
/// `notary`: of an edge, if it has one.
///
/// # Errors
/// It can not start or go on, and why.
pub async fn run(
    config: Config,
    keylog: Option<PathBuf>,
    confinement: &Confinement,
    notary: Option<Notary>,
) -> anyhow::Result<()> {
    match config.role {
        config::Role::Authority => {
            let authority = authority::start(config, keylog, confinement);
            authority.await?.run().await
        }
        config::Role::Front => front::start(config, confinement).await?.run().await,
        config::Role::Client | config::Role::Gateway => {
            let node = start::start(config, keylog, confinement, notary);
            node.await?.run().await
        }
    }
}
