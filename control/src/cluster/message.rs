//! What authority and edges say to each other about numbers, and what a repository keeps of it.

use serde::{Deserialize, Serialize};

use super::{EdgeId, Run};

/// What the owner of an SA may do. A later one of the same term replaces it; no bound ever goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// The tenure that this is about: each owner of an SA has a higher one than the last.
    pub term: u32,
    /// The highest inbound number that may be accepted in contact with the authority.
    pub soft: u64,
    /// The highest one that may be accepted without.
    pub hard: u64,
    /// The highest outbound number that may be sent.
    pub last: u64,
}

/// An edge is the owner of an SA pair from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Inbound numbers up to this one count as seen.
    pub floor: u64,
    /// But for these: bit n is set if the number `floor - n` was not seen.
    pub missing: u64,
    /// The first outbound number.
    pub first: u64,
    pub limits: Limits,
}

/// How far an owner has come with one SA pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The inbound SPI.
    pub spi: u32,
    pub term: u32,
    /// The highest inbound number accepted.
    pub top: u64,
    /// The highest outbound number used.
    pub sent: u64,
    /// What it may accept in contact with an authority, as it was told last.
    pub soft: u64,
    /// The owner has been without an authority in this tenure, and may have gone past `soft`.
    pub wide: bool,
}

/// How far the process of an owner had come with one SA pair when it died, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reached {
    /// The inbound SPI.
    pub spi: u32,
    pub term: u32,
    /// The highest inbound number accepted.
    pub top: u64,
}

/// What an edge tells at intervals: what has changed since it last did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Report {
    /// Counts the reports of a connection, from 1.
    pub number: u64,
    /// The last report that was acknowledged to the edge, 0: none on this connection. An edge that has more
    /// to say than goes into a report repeats what it said before: the authority must not take it to be in
    /// contact before it knows all.
    pub echo: u64,
    pub marks: Vec<Mark>,
}

/// An edge that holds the keys of an SA has an authentic packet for it and would own it; or owns it, and the
/// packet is beyond what it may accept: so many were lost on their way that no report tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    pub spi: u32,
    /// The number of the packet.
    pub seen: u64,
}

/// An owner has stopped using an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Yielded {
    /// Where it stopped.
    pub mark: Mark,
    /// Bit n is set if the inbound number `top - n` was not accepted.
    pub missing: u64,
}

/// From an edge to its authority, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FromEdge {
    /// The first message of a connection.
    Hello {
        run: Run,
        /// If its process dies, somebody else on its machine can say how far it came: [`Reached`].
        notary: bool,
        /// All that the edge owns.
        held: Vec<Mark>,
    },
    Report(Report),
    Claim(Claim),
    Yielded(Yielded),
    /// The last message of a connection that a living edge ends.
    Leaving,
}

/// From an authority to an edge, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToEdge {
    Grant {
        spi: u32,
        grant: Grant,
    },
    /// The edge is to stop using the SA, and to say where it stopped; or that it has had the packet of this
    /// number, which another edge has now.
    AskBack {
        spi: u32,
        term: u32,
        seen: u64,
    },
    /// Another one owns the SA, or nobody does: stop.
    Revoke {
        spi: u32,
        term: u32,
    },
    Refuse {
        spi: u32,
        refusal: Refusal,
    },
    /// An owner that has claimed higher numbers than it may accept gets them.
    Widen {
        spi: u32,
        limits: Limits,
    },
    /// The report of this number has been taken.
    Acknowledge {
        number: u64,
        limits: Vec<(u32, Limits)>,
    },
}

/// Why an edge does not get an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such SA.
    Unknown,
    /// The packet is not newer than what its owner has accepted.
    Old,
    /// Another edge is getting it.
    Busy,
    /// No numbers are left.
    Exhausted,
}

/// What a repository keeps of the numbers of an SA. No owner has anything beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kept {
    pub term: u32,
    pub owner: Option<EdgeId>,
    /// Outbound numbers up to this one may have been used.
    pub reserved: u64,
    /// Inbound numbers up to this one may have been accepted.
    pub hard: u64,
    /// The pair needs fresh keys.
    pub rekey: bool,
}
