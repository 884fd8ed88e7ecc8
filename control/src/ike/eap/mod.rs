//! EAP (RFC 3748) as the side that checks: EAP-MSCHAPv2 for the clients that phones and laptops
//! bring along. No I/O; names and passwords are asked of the owner.

pub(crate) mod mschapv2;
mod server;

#[cfg(test)]
pub(crate) mod tests;

pub use server::{EapUser, Outcome, Server};
