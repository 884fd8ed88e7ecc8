//! Room `dataplane`.
