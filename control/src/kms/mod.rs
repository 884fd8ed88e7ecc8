//! Room `kms`: the key management service of a client. It decides which gateway of a cluster to
//! authenticate with next, and remembers which sessions exist. Sans-IO: time, randomness and what
//! happened come in as arguments, [`Action`]s come out.
//!
//! There is one [`KeyManagement`] per node, driven by the node's task. Contract with that task:
//! - every [`Action::Authenticate`] is answered by exactly one
//!   [`KeyManagement::on_authenticated`] or [`KeyManagement::on_failed`], whatever happens in
//!   between; the exchange has its own bound in time;
//! - a session that a gateway starts is reported by [`KeyManagement::on_peer_initiated`];
//! - a session that ends is reported by [`KeyManagement::on_session_lost`], a gateway that a
//!   monitor found dead by [`KeyManagement::on_dead`], and the gateway that each monitor uses by
//!   [`KeyManagement::on_active`];
//! - the monitors of all clusters that list a gateway ([`KeyManagement::clusters_of`]) learn of
//!   its sessions from the task, not from here. [`Action::Granted`] is for the request alone.

mod backoff;
mod cluster;
mod damping;
mod redirect;
mod refresh;
mod service;
mod standby;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::policy::ClusterId;

pub use service::KeyManagement;

/// How the service paces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first wait after a rejected request, and the most that background attempts are spread
    /// over; 1 ms to `retry_cap`, clamped.
    pub retry_first: Duration,
    /// No wait is longer than this; 1 ms to 1 hour, clamped.
    pub retry_cap: Duration,
    /// How many gateways of a cluster are kept keyed beside the active one.
    pub standby: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            retry_first: Duration::from_millis(500),
            retry_cap: Duration::from_secs(30),
            standby: 0,
        }
    }
}

/// Names a session to whoever made it; no two sessions of a node's life have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionHandle(pub u64);

/// What the node's task has to do for the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run one whole authentication and key exchange with this gateway.
    Authenticate {
        /// The gateway's outside address.
        gateway: IpAddr,
    },
    /// The key request of `cluster` is granted: a session with `gateway` exists. Tell the
    /// cluster's monitor that the gateway is keyed, even if it should know already.
    Granted {
        /// The cluster that asked.
        cluster: ClusterId,
        /// A gateway of it.
        gateway: IpAddr,
    },
    /// The key request of `cluster` is rejected: no gateway was left. Tell its monitor.
    Rejected {
        /// The cluster that asked.
        cluster: ClusterId,
        /// Each gateway asked, in that order, and why there is no session with it; then those that
        /// were passed over because they keep dying.
        tried: Vec<(IpAddr, String)>,
        /// The earliest time of another attempt. It is made by itself if no gateway of the cluster
        /// is keyed, else if a request comes before it.
        retry_at: Instant,
    },
    /// Remove this session. Where a newer one with the same gateway has replaced it, once that
    /// carries traffic; else at once, without waiting for the gateway.
    DropSession {
        /// The gateway's outside address.
        gateway: IpAddr,
        /// The session to remove; it is not in the cache any more.
        session: SessionHandle,
    },
}

/// What a cluster's key request is doing; for status pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Nobody asks.
    Idle,
    /// An exchange with this gateway decides what comes next.
    Authenticating(IpAddr),
    /// The last request was rejected; there is no attempt before that time.
    BackOff(Instant),
}

/// The timers of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The back-off of a rejected request that is to be made again has passed.
    Retry,
    /// A cluster has fewer standby gateways than it should, and the next attempt is due.
    Standby,
    /// A session is to be made anew, and the next attempt is due.
    Refresh,
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Timer::Retry => "key request retry",
            Timer::Standby => "standby",
            Timer::Refresh => "session refresh",
        }
    }
}
