//! Room `dataplane`.

pub mod net;
