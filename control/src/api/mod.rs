//! Room `api`: the node's local HTTP interface on a Unix socket.
//!
//! [`server`] answers on a thread of its own, so a node that is busy with keys or packets still
//! tells its status at once; [`client`] is what the commands speak with; [`model`] is what travels
//! between them, and so is an interface that scripts rely on: fields are added, never renamed.

pub mod client;
mod front;
mod metrics;
pub mod model;
mod routes;
#[cfg(test)]
pub(crate) mod sample;
pub mod server;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

pub use client::Client;
pub(crate) use routes::router;
pub(crate) use server::connection;
pub use server::{ApiServer, Command, CommandError, Reply, Shared};
