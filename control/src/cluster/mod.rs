//! Room `cluster`: one negotiation, many edges (source C). Gateways that share an outside address, called
//! edges here, use security associations that an authority negotiated; a client moves between them with no
//! new key exchange.
//!
//! Two cores decide who may use which numbers of an SA, so that no nonce is used twice and no packet is
//! accepted twice: the authority's [`Ledger`] and each edge's [`Edge`]. Both are sans-IO: they take what
//! happened and when, and say what is to be done. `docs/shared.md` has the rules and why they hold; the
//! model in `tests/` goes through all that can happen with a few edges and numbers.

pub mod channel;
pub mod connectivity;
mod edge;
pub mod front;
mod ledger;
mod message;
mod pair;
pub mod repository;
#[cfg(test)]
mod tests;
mod volume;
pub mod wire;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use edge::{Act, Edge};
pub use ledger::{Ledger, Order, Parting};
pub use message::{
    Claim, FromEdge, Grant, Kept, Limits, Mark, Reached, Refusal, Report, ToEdge, Yielded,
};
pub use pair::{Bytes, Half, NotUsable, Pair};
pub use volume::{Volume, Volumes};

/// The number of an edge among those of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EdgeId(pub u16);

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge {}", self.0)
    }
}

/// One run of an edge's process, drawn at random when it starts: what an earlier run was granted is gone
/// with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Run(pub u64);

/// How many numbers are granted at a time, and for how long an edge is taken to keep to what it was told.
/// Authority and edges must agree on `alone`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Outbound numbers that an owner has at least half of before it, in packets.
    pub block: u64,
    /// Outbound numbers that the repository is asked for at once, in packets: what there is to send with
    /// while it is away, and what an authority that died wastes.
    pub chunk: u64,
    /// Inbound numbers above the highest reported one that an owner may at least accept, in packets: what is
    /// lost when it dies.
    pub least_margin: u64,
    /// The same above one that was claimed: what comes on its heels.
    pub burst: u64,
    /// The same at most, however fast packets come.
    pub most_margin: u64,
    /// Inbound numbers above the highest reported one that an owner may accept without an authority.
    pub reserve: u64,
    /// An edge goes on by itself when it has had no answer for so long.
    pub alone: Duration,
    /// How far the clocks of authority and edge may drift apart in that time.
    pub drift: Duration,
    /// Time between two reports of an edge whose SAs are in use.
    pub interval: Duration,
    /// How long an owner may take to give an SA back.
    pub patience: Duration,
    /// An owner is asked to give one back no more often.
    pub tenure: Duration,
    /// An edge claims an SA again when there was no answer for so long.
    pub again: Duration,
    /// How long the testimony of a dead edge's notary is waited for.
    pub testimony: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            block: 1 << 17,
            chunk: 1 << 24,
            least_margin: 1,
            burst: 2,
            most_margin: 1 << 16,
            reserve: 1 << 28,
            alone: Duration::from_secs(1),
            drift: Duration::from_millis(50),
            interval: Duration::from_millis(4),
            patience: Duration::from_millis(40),
            tenure: Duration::from_millis(100),
            again: Duration::from_millis(50),
            testimony: Duration::from_millis(30),
        }
    }
}
