//! EAP (RFC 3748) as the side that checks: EAP-MSCHAPv2 and EAP-TLS for the clients that phones and
//! laptops bring along. No I/O; who has which name, password or certificate is asked of the owner.

pub(crate) mod mschapv2;
mod server;
mod tls;
mod tls_crypto;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod tls_tests;

pub use server::{EapUser, Outcome, Server, Users};
