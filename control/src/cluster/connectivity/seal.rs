//! Datagrams under the key of two parties: a header, and what AES-256-GCM makes of a message, tag last.
//!
//! The header has the version (1 byte), a zero, the sender's number (2), the epoch of the key (4) and a sequence
//! number (8), and is authenticated with the message. The nonce is the numbers of sender and receiver and the
//! sequence number. A key is drawn anew for each two parties whenever one of them connects to its authority, so
//! no nonce comes twice under one key: not in the two directions, and not after a restart.

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use thiserror::Error;
use zeroize::Zeroizing;

use super::Introduction;
use crate::cluster::EdgeId;
use crate::esp::Window;

/// Of the protocol that is spoken here.
pub const VERSION: u8 = 1;

/// Bytes of the header.
pub const HEADER: usize = 16;

/// Bytes of a key.
pub const KEY: usize = 32;

/// Bytes of the tag.
pub(super) const TAG: usize = 16;

/// What goes into a UDP datagram over IPv4.
const DATAGRAM: usize = 65_507;

/// The longest message, in bytes.
pub const LONGEST: usize = DATAGRAM - HEADER - TAG;

/// How far datagrams may overtake each other.
const WINDOW: u32 = 1024;

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("not a datagram of this protocol")]
    Malformed,
    #[error("under a key that nobody has here")]
    Stranger,
    #[error("it was here before, or is too late")]
    Repeated,
    #[error("not sealed with the key")]
    Forged,
    #[error("its message can not be read, or is not for this node")]
    Unreadable,
}

/// The header of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sender: EdgeId,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
}

impl Header {
    pub(super) fn bytes(self) -> [u8; HEADER] {
        let Self {
            sender,
            epoch,
            sequence,
        } = self;
        let [a, b] = sender.0.to_be_bytes();
        let [c, d, e, f] = epoch.to_be_bytes();
        let [g, h, i, j, k, l, m, n] = sequence.to_be_bytes();
        [VERSION, 0, a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }

    /// The header, and what follows it.
    pub(super) fn split(datagram: &[u8]) -> Result<(Self, &[u8]), Refused> {
        let (header, sealed) = datagram
            .split_first_chunk::<HEADER>()
            .ok_or(Refused::Malformed)?;
        let [VERSION, 0, a, b, c, d, e, f, g, h, i, j, k, l, m, n] = *header else {
            return Err(Refused::Malformed);
        };
        let header = Self {
            sender: EdgeId(u16::from_be_bytes([a, b])),
            epoch: u32::from_be_bytes([c, d, e, f]),
            sequence: u64::from_be_bytes([g, h, i, j, k, l, m, n]),
        };
        Ok((header, sealed))
    }
}

/// A key, and what was sent and received under it.
pub(super) struct Seal {
    cipher: Aes256Gcm,
    own: EdgeId,
    other: EdgeId,
    epoch: u32,
    sent: u64,
    window: Window,
}

impl Seal {
    /// None: the key has a wrong length, or both would be the same one.
    pub(super) fn new(introduction: &Introduction) -> Option<Self> {
        let Introduction {
            own, number, epoch, ..
        } = *introduction;
        if own == number {
            return None;
        }
        Some(Self {
            cipher: Aes256Gcm::new_from_slice(introduction.key.expose()).ok()?,
            own,
            other: number,
            epoch,
            sent: 0,
            window: Window::new(WINDOW).ok()?,
        })
    }

    /// Seals a message that has room for a header before it. None: no number is left for it.
    pub(super) fn seal(&mut self, mut message: Zeroizing<Vec<u8>>) -> Option<Vec<u8>> {
        self.sent = self.sent.checked_add(1)?;
        let header = Header {
            sender: self.own,
            epoch: self.epoch,
            sequence: self.sent,
        };
        let header = header.bytes();
        let (room, content) = message.split_first_chunk_mut::<HEADER>()?;
        *room = header;
        let nonce = nonce(self.own, self.other, self.sent);
        let tag = self
            .cipher
            .encrypt_inout_detached((&nonce).into(), &header, InOutBuf::from(content))
            .ok()?;
        message.extend_from_slice(&tag);
        // Nothing secret is in it any more.
        Some(std::mem::take(&mut *message))
    }

    /// The message in a datagram, which is taken once.
    pub(super) fn open(
        &mut self,
        header: Header,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let sequence = header.sequence;
        self.window.check(sequence).map_err(|_| Refused::Repeated)?;
        let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Refused::Malformed)?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = nonce(self.other, self.own, sequence);
        let buffer = InOutBuf::from(text.as_mut_slice());
        self.cipher
            .decrypt_inout_detached((&nonce).into(), &header.bytes(), buffer, tag.into())
            .map_err(|_| Refused::Forged)?;
        self.window
            .accept(sequence)
            .map_err(|_| Refused::Repeated)?;
        Ok(text)
    }
}

fn nonce(sender: EdgeId, receiver: EdgeId, sequence: u64) -> [u8; 12] {
    let ([a, b], [c, d]) = (sender.0.to_be_bytes(), receiver.0.to_be_bytes());
    let [e, f, g, h, i, j, k, l] = sequence.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// The datagram with this content and number, of one who has the key.
pub(crate) fn sealed(own: &Introduction, sequence: u64, content: &[u8]) -> Option<Vec<u8>> {
    let mut seal = Seal::new(own)?;
    seal.sent = sequence.checked_sub(1)?;
    let message = Zeroizing::new([&[0; HEADER], content].concat());
    seal.seal(message)
}
