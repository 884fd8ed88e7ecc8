use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::{Producer, SessionId};
use crate::esp::{BadSecret, BadWindow, MixedFamilies, WrongKeyLength};

/// Why a session can not be in the set. The set is unchanged then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SadbError {
    /// An SPI that no SA may have.
    #[error("an SPI from 0x100 to 0xfffffffe was expected, found {spi:#x}, which is reserved")]
    ReservedSpi {
        /// The SPI found.
        spi: u32,
    },
    /// An inbound SPI that another session has.
    #[error("inbound SPI {spi:#x} belongs to session {owner} already")]
    SpiInUse {
        /// The SPI found.
        spi: u32,
        /// Who has it.
        owner: SessionId,
    },
    /// An inbound SPI that a key exchange in progress was promised.
    #[error("inbound SPI {spi:#x} is taken by a key exchange in progress")]
    SpiPending {
        /// The SPI found.
        spi: u32,
    },
    /// An outbound SPI toward a peer that has another session with it.
    #[error("outbound SPI {spi:#x} toward {remote} belongs to session {owner} already")]
    PeerSpiInUse {
        /// The SPI found.
        spi: u32,
        /// The peer.
        remote: IpAddr,
        /// Who has it.
        owner: SessionId,
    },
    /// The key does not fit the cipher.
    #[error(transparent)]
    KeyLength(#[from] WrongKeyLength),
    /// The replay window has a size that it can not have.
    #[error(transparent)]
    ReplayWindow(#[from] BadWindow),
    /// The outer addresses do not go together.
    #[error(transparent)]
    Families(#[from] MixedFamilies),
    /// An outer address that names no single host.
    #[error("an outer address of one host was expected, found {address}")]
    OuterAddress {
        /// The address found.
        address: IpAddr,
    },
    /// UDP port 0.
    #[error("UDP ports from 1 to 65535 were expected, found 0")]
    PortZero,
    /// No selectors on one side: nothing could ever pass.
    #[error("at least one inner prefix on the {side} side was expected, found none")]
    NoSelectors {
        /// `local` or `remote`.
        side: &'static str,
    },
    /// A prefix that names a host inside it.
    #[error("a prefix without host bits was expected, found {net}; {} is the network", .net.trunc())]
    HostBits {
        /// The prefix found.
        net: IpNet,
    },
    /// Neither an inbound nor an outbound SA.
    #[error("an inbound or an outbound SA was expected, found neither")]
    NoDirection,
    /// A sequence number past the last one of an SA without extended ones.
    #[error("a sequence number up to 4294967295 was expected without ESN, found {sequence}")]
    SequenceTooHigh {
        /// The number found.
        sequence: u64,
    },
    /// A key and salt that another SA has or had.
    #[error(
        "the key and salt of SPI {spi:#x} are or were those of another SA; a fresh key is needed, \
         because two SAs with one key use the same nonces"
    )]
    KeyReused {
        /// The SPI of the SA that was to be added.
        spi: u32,
    },
    /// More keys of hand-written SAs than the set remembers.
    #[error("{limit} SAs were written by hand in this run; restart the node to write more")]
    TooManyKeys {
        /// How many it remembers.
        limit: usize,
    },
    /// A session of this id exists.
    #[error("session {id} exists already")]
    SessionExists {
        /// The id found.
        id: SessionId,
    },
    /// No such session of this producer.
    #[error("there is no session {id} of origin {}", .producer.name())]
    NoSuchSession {
        /// The id asked for.
        id: SessionId,
        /// The producer that asked.
        producer: Producer,
    },
    /// No session of this producer with this SPI.
    #[error("there is no SA with SPI {spi:#x} of origin {}", .producer.name())]
    NoSuchSpi {
        /// The SPI asked for.
        spi: u32,
        /// The producer that asked.
        producer: Producer,
    },
    /// A session of another producer than the one that brings it.
    #[error("a session of origin {} was expected, found {}", .expected.name(), .found.name())]
    OtherProducer {
        /// Who brought the session.
        expected: Producer,
        /// What the session says.
        found: Producer,
    },
}

/// What is wrong with the words of a hand-written SA. Never holds a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TextError {
    /// A word that does not belong there.
    #[error("word {position}: expected {expected}, found {found}")]
    Unexpected {
        /// Counted from 1.
        position: usize,
        /// The word, quoted; not if it may be a key.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The words end too early.
    #[error("after `{after}`: expected {expected}, found the end")]
    Ended {
        /// The last word that was understood.
        after: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// A word that came before.
    #[error("word {position}: `{word}` was given before")]
    Twice {
        /// Counted from 1.
        position: usize,
        /// The word.
        word: &'static str,
    },
    /// A word of one direction before any direction.
    #[error("word {position}: `{word}` belongs to a direction, expected `in` or `out` before it")]
    NoDirection {
        /// Counted from 1.
        position: usize,
        /// The word.
        word: &'static str,
    },
    /// A word that must be there.
    #[error("`{of}` needs `{word}`, which was not found")]
    Missing {
        /// What lacks it.
        of: &'static str,
        /// The word.
        word: &'static str,
    },
    /// A key that can not be read.
    #[error("word {position}: {error}")]
    Secret {
        /// Counted from 1.
        position: usize,
        /// What is wrong with it.
        error: BadSecret,
    },
    /// The words are right, what they say is not.
    #[error(transparent)]
    Spec(#[from] SadbError),
}
