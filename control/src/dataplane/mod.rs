//! Room `dataplane`.
pub mod loader;
