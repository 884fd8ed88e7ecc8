//! Room `sadb`.
