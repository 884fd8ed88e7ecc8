//! What authority and edges say to each other over their channel: numbers, SAs, and the IKE messages of
//! clients. Each message goes as its length in four bytes, big-endian, and its content in postcard's form.

use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::connectivity::Introduction;
use super::message::{FromEdge, Reached, ToEdge};
use super::pair::Pair;
use super::{EdgeId, Run, Volume};

/// Of the protocol that is spoken here: both ends must have the same.
pub const VERSION: u16 = 4;

/// The longest message, in bytes of its content: an edge that owns 250,000 pairs says so in one.
pub const LONGEST: usize = 8 << 20;

/// Bytes of a message's length.
pub const PREFIX: usize = 4;

/// An IKE message between a client and the authority. An edge has nothing to do with what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The address that the edges share, and the port: 500 or 4500.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
    /// Without the marker that goes before it on port 4500.
    pub data: Vec<u8>,
}

/// How a pair of SAs takes the place of another one, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Succession {
    /// It is the first one: it is used at once.
    First,
    /// It is sent on at once.
    AtOnce,
    /// It is sent on once the client was heard on it.
    WhenHeard,
    /// It only receives.
    Never,
}

/// An SA on its way to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carrier {
    /// Milliseconds since 1970 when the sender's knowledge was current.
    pub stamp: u64,
    /// Counts what the sender has said about this pair: of two carriers the newer one counts.
    pub sequence: u64,
    pub succession: Succession,
    pub pair: Pair,
}

/// What an edge has carried with the pair of this inbound SPI since its process has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub spi: u32,
    pub volume: Volume,
}

/// From an edge to its authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// The first message of a connection: who speaks.
    Greeting {
        version: u16,
    },
    Numbers(FromEdge),
    Ike(Relayed),
    /// The pair with this inbound SPI can be received on.
    Installed {
        spi: u32,
    },
    /// It can not be used, and why.
    NotInstalled {
        spi: u32,
        why: String,
    },
    /// ESP has come for an SPI that the edge does not know.
    Query {
        spi: u32,
    },
    /// The client is there now, as an authentic packet of it says.
    Moved {
        spi: u32,
        remote: SocketAddr,
    },
    /// The client has a newer session, which another authority has negotiated.
    Superseded {
        spi: u32,
    },
    /// Messages of IKE come to this address from now on, not by the channel.
    Translates {
        to: IpAddr,
    },
    /// A station has come to the network in front of the edge; it may be a client.
    Associated {
        address: IpAddr,
    },
    /// The edge takes part in the connectivity protocol, and is there. `messages`: IKE goes that way.
    Here {
        at: SocketAddr,
        messages: bool,
    },
    /// Another edge had the pair: it is here too now, as it was when it was numbered so.
    Fetched {
        spi: u32,
        sequence: u64,
    },
    /// The only message of a connection that an edge's notary makes: the process of this run has ended.
    Testimony {
        version: u16,
        run: Run,
        reached: Vec<Reached>,
    },
    /// Pairs that have carried much more since the edge told of them last.
    Carried {
        pairs: Vec<Carried>,
    },
}

/// From an authority to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// The answer to the first message.
    Greeting {
        version: u16,
    },
    Numbers(ToEdge),
    Ike(Relayed),
    /// The authority ends, and gives no numbers to anybody any more.
    Leaving,
    /// To be had from now on, and confirmed.
    Install(Box<Carrier>),
    /// All that the edge is to have was told since it has connected: it may forget what was not.
    Complete,
    /// To be forgotten.
    Forget {
        spi: u32,
    },
    /// There is no such pair.
    Unknown {
        spi: u32,
    },
    /// The client is there now, as it told the authority or another edge.
    Moved {
        spi: u32,
        remote: SocketAddr,
    },
    /// What cookies are made with now, and were before (RFC 7296 section 2.6): an edge that is flooded asks for
    /// them in the authority's place.
    Cookies {
        current: Zeroizing<[u8; 16]>,
        before: Zeroizing<[u8; 16]>,
    },
    /// The client receives on this pair: it is to be sent on, not on the one whose place it takes.
    SendOn {
        spi: u32,
    },
    /// Another one takes part in the connectivity protocol.
    Acquaint(Box<Introduction>),
    /// It does not any more.
    Part {
        number: EdgeId,
    },
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("a message of {found} bytes, the longest has {LONGEST}")]
    TooLong { found: usize },
    #[error("a message that can not be read: {0}")]
    Content(#[from] postcard::Error),
    #[error("a message with {left} bytes too many")]
    Left { left: usize },
}

/// The message with its length before it.
///
/// # Errors
/// It is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let start = Zeroizing::new(vec![0; PREFIX]);
    // Keys would stay in what a growing vector leaves behind.
    let room = postcard::experimental::serialized_size(message)?;
    if room > LONGEST {
        return Err(WireError::TooLong { found: room });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(PREFIX + room));
    bytes.extend_from_slice(&start);
    let mut bytes = Zeroizing::new(postcard::to_extend(message, std::mem::take(&mut *bytes))?);
    let length = bytes.len() - PREFIX;
    let length = u32::try_from(length).map_err(|_| WireError::TooLong { found: length })?;
    if let Some(prefix) = bytes.first_chunk_mut::<PREFIX>() {
        *prefix = length.to_be_bytes();
    }
    Ok(bytes)
}

/// How long the content of the message with this prefix is.
///
/// # Errors
/// It is too long.
pub fn content_len(prefix: [u8; PREFIX]) -> Result<usize, WireError> {
    let found = u32::from_be_bytes(prefix) as usize;
    match found {
        0..=LONGEST => Ok(found),
        _ => Err(WireError::TooLong { found }),
    }
}

/// The message with this content.
///
/// # Errors
/// It is not one, or there is something behind it.
pub fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, WireError> {
    let (message, rest) = postcard::take_from_bytes(content)?;
    match rest.len() {
        0 => Ok(message),
        left => Err(WireError::Left { left }),
    }
}
