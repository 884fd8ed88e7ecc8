//! Whether a worker sleeps, so that another one that has written something for it has to wake it.

use crate::sync::{AtomicBool, Ordering, fence};

/// Set while a worker sleeps, or is about to. Whoever writes something for it asks afterwards; the worker
/// looks once more for what was written after it has said so. One of the two sees the other.
#[derive(Debug)]
pub(super) struct Doze(AtomicBool);

impl Doze {
    /// Awake.
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// It is about to sleep, and has to look once more whether something came.
    pub(super) fn lies_down(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// It is up again.
    pub(super) fn gets_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it has to be woken for what was written before.
    pub(super) fn must_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }
}
