//! The atomics of what is shared without a library: the models of `loom/` put others in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
