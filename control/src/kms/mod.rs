//! Room `kms`.
