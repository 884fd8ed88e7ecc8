//! Signs of life within a node, which its answers to heartbeats hang on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Renews `alive_until` for whoever answers heartbeats, unless the node's core has stopped.
pub(super) struct DeadMan {
    /// For how long a renewal holds.
    pub(super) period: Duration,
    /// When the core last said that it lives.
    pub(super) core: Arc<Pulse>,
    /// When each of the other workers did: one that hangs silences all.
    pub(super) others: Vec<Arc<Pulse>>,
    /// Where this worker says so.
    pub(super) own: Arc<Pulse>,
}

/// The sign of life of the node's core, or of a worker.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    at: AtomicU64,
}

/// The core may be busy for so long before the workers take it for dead.
const CORE_PATIENCE: Duration = Duration::from_secs(2);

impl Pulse {
    /// A pulse that starts now.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            at: AtomicU64::new(0),
        }
    }

    /// It lives.
    pub fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis() as u64;
        self.at.store(since, Ordering::Relaxed);
    }

    /// Whether the core has given a sign of life lately.
    pub fn alive(&self, now: Instant) -> bool {
        self.silent_for(now) < CORE_PATIENCE
    }

    /// How long ago the last sign of life was.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start + at)
    }
}
