//! Room `node`.

pub mod config;
pub mod events;
