//! Room `liveness`: notices that the active gateway of a cluster is gone, and says which gateway
//! traffic uses next. Sans-IO: time and input come in as arguments, [`Action`]s come out.
//!
//! One [`Monitor`] per cluster lives in the worker that carries the cluster's traffic. The worker
//! drains its receive rings, reports what it saw (`on_heard`, `on_answer`), reports what it sent
//! (`on_sent`, `on_wanted`), and only then calls [`Monitor::poll`]: a deadline is judged after
//! everything that arrived before it has been looked at. After every call it performs the actions
//! of [`Monitor::next_action`] before the next poll, heartbeats above all.
//!
//! Nothing here allocates once a monitor is made, except [`Monitor::set_order`].

mod failover;
mod gateway;
mod monitor;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::HeartbeatMode;

pub use gateway::GatewayView;
pub use monitor::Monitor;
pub use table::Phase;

/// When heartbeats go out and how long an answer may take; the `[GENERAL]` section of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// NONE, DEFERRED or INSTANT.
    pub mode: HeartbeatMode,
    /// How long a heartbeat may stay unanswered; 1 ms to 1 hour, clamped into that.
    pub response_time: Duration,
    /// How long the active gateway may be silent before a heartbeat; 1 ms to 1 hour, clamped.
    pub defer_time: Duration,
}

impl Timing {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_secs(3600);

    fn clamped(self) -> Timing {
        Timing {
            mode: self.mode,
            response_time: self.response_time.clamp(Self::SHORTEST, Self::LONGEST),
            defer_time: self.defer_time.clamp(Self::SHORTEST, Self::LONGEST),
        }
    }
}

/// What the worker has to do for a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a heartbeat with this counter (31 bits), encapsulated as the session's traffic is.
    Heartbeat {
        /// The active gateway.
        gateway: IpAddr,
        /// Low 31 bits of the sequence number.
        counter: u32,
    },
    /// Send traffic through this gateway from now on, a sealed dummy packet first.
    Activate {
        /// The keyed gateway that is active now.
        gateway: IpAddr,
    },
    /// No gateway is active any more.
    Inactive,
    /// The gateway did not answer: remove its session. The monitor already takes it for unkeyed.
    Dead {
        /// The gateway that was active.
        gateway: IpAddr,
        /// Time since its last sign of life, or since it became active if that is later.
        silent_for: Duration,
    },
    /// Ask the key management service for a key with a gateway of this cluster.
    RequestKey {
        /// The gateway to go on from in list order: the one that was lost, or is unwell.
        after: Option<IpAddr>,
    },
    /// The active gateway's health byte changed. Only news: what follows from it is an action too.
    Health {
        /// The active gateway.
        gateway: IpAddr,
        /// The new health byte; 0 = well.
        health: u8,
    },
}
