//! When the worker is woken for commands.

use crate::sync::{AtomicBool, Ordering};

/// Whether commands were sent of which the worker has not been told: a wake-up costs more than what
/// most of them say, so one serves all that were sent before it.
#[derive(Debug)]
pub(super) struct Bell(AtomicBool);

impl Bell {
    /// Nothing was sent yet.
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// A command was sent.
    pub(super) fn sent(&self) {
        // Release: whoever wakes the worker for it has the command before the wake-up. Not a mere
        // store: that would hide the command of another sender from whoever wakes for both.
        self.0.swap(true, Ordering::Release);
    }

    /// Whether the caller has to wake the worker now.
    pub(super) fn must_ring(&self) -> bool {
        // Acquire: the commands of others, for which this wake-up serves too.
        self.0.swap(false, Ordering::AcqRel)
    }
}
