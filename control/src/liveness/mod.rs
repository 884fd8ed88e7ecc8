//! Room `liveness`.
