//! Room `esp`.
