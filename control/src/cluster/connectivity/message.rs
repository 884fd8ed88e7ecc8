//! What is said in datagrams, in postcard's form.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::{HEADER, LONGEST};
use super::{CARRIERS, Party};
use crate::cluster::Run;
use crate::cluster::wire::{Carrier, Relayed};

/// What one party says to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Presence(Presence),
    /// From an edge to its authority.
    IkeRequest(Relayed),
    /// And back.
    IkeResponse(Relayed),
    /// From an edge to another one, which answers with what it has.
    Query {
        id: u64,
        what: Asked,
    },
    /// The answer: SA carrier messages. The stamp of each is when the sender last used the pair, or was told of it.
    Carriers {
        id: u64,
        carriers: Vec<Carrier>,
    },
    /// The answer of one who has nothing of that.
    NotHere {
        id: u64,
    },
}

/// That somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Of its process.
    pub run: Run,
    /// Pairs of SAs that it has.
    pub pairs: u64,
    /// Those of them that it may use now.
    pub owned: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Asked {
    /// The pair with this inbound SPI.
    Spi(u32),
    /// All pairs of the clients at this outside address.
    Client(IpAddr),
}

impl Asked {
    /// Whether a pair is one of those.
    #[must_use]
    pub fn is_for(&self, carrier: &Carrier) -> bool {
        match self {
            Self::Spi(spi) => carrier.pair.spi() == *spi,
            Self::Client(address) => carrier.pair.remote == *address,
        }
    }
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum NoMessage {
    #[error("a message of {found} bytes, the longest has {LONGEST}")]
    TooLong { found: usize },
    #[error("a message that can not be read: {0}")]
    Content(#[from] postcard::Error),
    #[error("a message with {left} bytes too many")]
    Left { left: usize },
    #[error("an answer with {found} pairs, the longest has {CARRIERS}")]
    TooMany { found: usize },
}

/// The message with room for a header before it.
///
/// # Errors
/// It does not go into a datagram.
pub fn encode(message: &Message) -> Result<Zeroizing<Vec<u8>>, NoMessage> {
    let found = postcard::experimental::serialized_size(message)?;
    if found > LONGEST {
        return Err(NoMessage::TooLong { found });
    }
    // There is room for the tag too: keys would stay in what a growing vector leaves behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + found + super::seal::TAG));
    bytes.resize(HEADER, 0);
    let bytes = postcard::to_extend(message, std::mem::take(&mut *bytes))?;
    Ok(Zeroizing::new(bytes))
}

/// The message with this content.
///
/// # Errors
/// It is not one, or there is something behind it.
pub fn decode(content: &[u8]) -> Result<Message, NoMessage> {
    let (message, rest) = postcard::take_from_bytes(content)?;
    if let Message::Carriers { carriers, .. } = &message
        && carriers.len() > CARRIERS
    {
        let found = carriers.len();
        return Err(NoMessage::TooMany { found });
    }
    match rest.len() {
        0 => Ok(message),
        left => Err(NoMessage::Left { left }),
    }
}

/// Whether a party of this kind says such a thing.
pub(super) fn may_come_from(party: Party, message: &Message) -> bool {
    match message {
        Message::Presence(_) => true,
        Message::IkeResponse(_) => party.is_authority(),
        Message::IkeRequest(_)
        | Message::Query { .. }
        | Message::Carriers { .. }
        | Message::NotHere { .. } => !party.is_authority(),
    }
}
