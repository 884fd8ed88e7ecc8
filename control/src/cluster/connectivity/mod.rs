//! The connectivity protocol: datagrams in the network behind the edges, between edges and authorities. They say
//! who is there, carry IKE messages if the configuration wants it, and ask for pairs of SAs: an edge that lacks
//! one asks the other edges first.
//!
//! All of it is sans-IO: [`Connectivity`] takes datagrams, questions and the time, and says what is to be done.
//! Whoever takes part was made known by an authority over the channel, with a key for each two of them. What an
//! edge gets here are keys and addresses of a pair; numbers are the ledger's to grant, and nobody else's.

mod core;
mod message;
mod queries;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EdgeId;
use super::pair::Bytes;

pub use self::core::{Connectivity, Member, Output, Tally};
pub use message::{Asked, Message, NoMessage, Presence, decode, encode};
pub(crate) use seal::sealed;
pub use seal::{HEADER, KEY, LONGEST, Refused, VERSION};

/// The number that an authority has among the parties of its edges; no edge has it.
pub const AUTHORITY: EdgeId = EdgeId(0);

/// The pace at which presence is told when nothing changes.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// What changes is told no more often.
pub const CHANGES: Duration = Duration::from_millis(100);

/// Who was silent for so long is absent.
pub const ABSENT: Duration = Duration::from_secs(3);

/// Edges that are asked may take so long, unless the configuration says otherwise.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// Questions without an end yet; further ones go to the authority at once.
pub const QUESTIONS: usize = 64;

/// Pairs in one answer.
pub const CARRIERS: usize = 16;

/// One of those that an authority has made known to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    /// The channel that it became known by: an edge may have several authorities. 0 on an authority.
    pub link: u16,
    /// Its number with that authority; [`AUTHORITY`]: it is the authority.
    pub number: EdgeId,
}

impl Party {
    /// Whether it is an authority.
    #[must_use]
    pub fn is_authority(self) -> bool {
        self.number == AUTHORITY
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_authority() {
            true => f.write_str("the authority"),
            false => self.number.fmt(f),
        }
    }
}

/// What an authority tells of a party, so that two of them can speak to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The number of the one who is told.
    pub own: EdgeId,
    /// Of whom it is told.
    pub number: EdgeId,
    /// Where that one is.
    pub at: SocketAddr,
    /// Of these two, for this time: [`KEY`] bytes, drawn at random.
    pub key: Bytes,
    /// Names the key in datagrams, drawn at random.
    pub epoch: u32,
}
