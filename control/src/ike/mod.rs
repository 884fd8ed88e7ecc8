//! Room `ike`.
