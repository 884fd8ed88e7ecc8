//! The channel between an authority and its edges: TLS 1.3 over TCP, in which both sides show a
//! certificate. The authority has a [`Listener`], each edge an [`Uplink`] and a [`Notary`]. What is said is in
//! [`super::wire`]; how a connection ended is told with what [`Parting`](super::Parting) rests on.
//!
//! This is a shell: it has sockets, tasks and clocks. What came in is taken apart in [`frames`], which has
//! none.

mod credentials;
mod frames;
mod line;
mod listener;
mod notary;
mod queue;
mod socket;
#[cfg(test)]
mod tests;
mod uplink;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

pub use credentials::Credentials;
pub use listener::{Heard, Known, Listener};
pub use notary::Notary;
pub use uplink::{News, Uplink};

/// Until then a new connection must have shown who it is, and greeted.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// What the two sides speak, in TLS (RFC 7301): a certificate for something else, shown by something else,
/// does not end up here.
const ALPN: &[u8] = b"evergate-edge";

/// All messages of a stream that comes in pieces, up to the first that can not be read.
pub(crate) fn taken_apart<T: serde::de::DeserializeOwned>(data: &[u8], piece: usize) -> Vec<T> {
    let (mut frames, mut found) = (frames::Frames::new(), Vec::new());
    let mut rest = data;
    while !rest.is_empty() {
        let room = frames.room();
        let count = piece.min(rest.len()).min(room.len());
        let (now, later) = rest.split_at(count);
        for (to, from) in room.iter_mut().zip(now) {
            *to = *from;
        }
        frames.filled(count);
        rest = later;
        loop {
            match frames.next() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

/// Why there is no channel.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// A certificate or a key; the text names the file.
    #[error("{0}")]
    File(String),
    #[error("{edge} has the name {name}, expected a DNS name")]
    Name { edge: super::EdgeId, name: String },
    #[error("two edges have the name or number of {edge} ({name}), expected one")]
    Twice { edge: super::EdgeId, name: String },
    #[error("can not listen on {address}: {why}")]
    Bind { address: SocketAddr, why: io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
