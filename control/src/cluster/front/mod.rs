//! The core of a front: which encryption nodes live, and which of them each slot of clients leads to.
//! Sans-IO: the shell sends heartbeats, hands in answers, and writes slots into the map.

mod key;
mod roster;
mod slots;
#[cfg(test)]
mod tests;

pub use key::FrontKey;
pub use roster::{Ask, Pace, Roster, Watched};
pub use slots::Slots;

/// What a front may give a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing: it does not answer, or no way leads there.
    Dead,
    /// What nobody else can take: it lets go of its clients.
    Draining,
    /// The same: it was dead, and has to live for a while first.
    Proving,
    /// Its share.
    Well,
}
