//! The dead-man switch and the health that `outside` answers heartbeats with.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, MapData};
use evergate_common::maps::{NODE_STATE, NodeState};

use super::{LoadError, program::set_only};

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of the XDP programs.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Writes the node's state; clones write the same one. Renewing and silence belong to the worker, health
/// to the node's core, so each setter keeps what the others wrote.
#[derive(Clone)]
pub struct NodeStateWriter {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    map: Array<MapData, NodeState>,
    state: NodeState,
}

impl NodeStateWriter {
    pub(super) fn new(map: Array<MapData, NodeState>) -> Self {
        let shared = Shared {
            map,
            state: NodeState::default(),
        };
        NodeStateWriter {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Heartbeats are answered until this time, in nanoseconds of `CLOCK_MONOTONIC`
    /// ([`monotonic_ns`]). At the start it is 0: nothing is answered.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_alive_until(&self, nanoseconds: u64) -> Result<(), LoadError> {
        self.change(|old| NodeState::new(nanoseconds, old.health(), old.silent()))
    }

    /// The health byte of keyed answers.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_health(&self, health: u8) -> Result<(), LoadError> {
        self.change(|old| NodeState::new(old.alive_until(), health, old.silent()))
    }

    /// Whether to answer nothing at all (a dead link).
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_silent(&self, silent: bool) -> Result<(), LoadError> {
        self.change(|old| NodeState::new(old.alive_until(), old.health(), silent))
    }

    /// The health that heartbeats are answered with now; `None`: they are not answered.
    pub fn answers(&self) -> Option<u8> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let state = shared.state;
        let living = !state.silent() && monotonic_ns() <= state.alive_until();
        living.then_some(state.health())
    }

    fn change(&self, new: impl FnOnce(&NodeState) -> NodeState) -> Result<(), LoadError> {
        // The state is plain data and whole at any time, so a poisoned lock does no harm.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.state = new(&shared.state);
        let state = shared.state;
        set_only(NODE_STATE, &mut shared.map, state)
    }
}
