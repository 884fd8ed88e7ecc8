//! Room `node`: the shells that drive the cores with real sockets, clocks and signals.
//!
//! [`run`] is `evergate run`. One task, [`core::Node`], owns everything that decides; the workers
//! and the API have threads of their own.

mod client;
mod commands;
pub mod config;
mod core;
mod drain;
mod establish;
pub mod events;
mod gateway;
mod guard;
mod hooks;
mod inner;
mod inputs;
mod interfaces;
mod leaving;
mod mobility;
mod pool;
mod rekey;
mod reload;
mod roaming;
mod routes;
mod sessions;
mod sockets;
mod start;
mod status;

use config::Config;

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or can not go on.
pub async fn run(config: Config) -> anyhow::Result<()> {
    start::start(config).await?.run().await
}
