//! evergate: a resilient IPsec gateway and client.
//!
//! Each module is one room; the top-level README and `docs/` tell how they fit together.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod dataplane;
pub mod esp;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod ike;
pub mod kms;
pub mod liveness;
pub mod load;
pub mod node;
pub mod policy;
pub mod privilege;
pub mod sadb;
mod sync;
