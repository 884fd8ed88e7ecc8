//! Keys of tickets, and how they seal.
//!
//! ```text
//! version (1) | name of the key (8) | ticket ID (16) | sealed state | tag (16)
//! ```
//!
//! Each ticket is sealed by AES-256-GCM under a key of its own, HMAC-SHA2-512 of the ticket ID under
//! the ticket key. So many gateways can seal with one ticket key and no nonce is ever used twice,
//! without counting.

use std::fmt;

use super::super::crypto::{AeadKey, IkeCipher, Prf, SALT, Secret, TAG};
use super::state::State;

const VERSION: u8 = 1;
const NAME: usize = 8;
const ID: usize = 16;
/// Version, name and ID, which the tag covers too.
const HEAD: usize = 1 + NAME + ID;

/// What tells one ticket from all others; random.
pub(crate) type TicketId = [u8; ID];

/// A key that seals tickets: 32 bytes from a good random source.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    name: [u8; NAME],
    secret: Secret,
}

/// Why a ticket is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It is no ticket of this form.
    Form,
    /// No key of ours has that name.
    UnknownKey,
    /// Somebody has changed it, or made it up.
    Tag,
}

impl TicketKey {
    /// `None` unless there are 32 bytes.
    pub fn new(secret: &[u8]) -> Option<TicketKey> {
        if secret.len() != 32 {
            return None;
        }
        let name = Prf::HmacSha256.compute(secret, &[b"ticket key name"]);
        Some(TicketKey {
            name: *name.first_chunk()?,
            secret: Secret::new(secret),
        })
    }

    fn of_ticket(&self, id: &TicketId) -> Option<AeadKey> {
        let made = Prf::HmacSha512.compute(&self.secret, &[b"ticket", id]);
        let cipher = IkeCipher::Aes256Gcm16;
        AeadKey::new(cipher, made.get(..cipher.key_length() + SALT)?)
    }

    pub(super) fn seal(&self, id: TicketId, state: &State) -> Vec<u8> {
        let mut ticket = Vec::with_capacity(HEAD + 256);
        ticket.push(VERSION);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&id);
        let head = ticket.clone();
        let mut text = state.write();
        if let Some(key) = self.of_ticket(&id) {
            let tag = key.seal([0; 8], &head, &mut text);
            ticket.extend_from_slice(&text);
            ticket.extend_from_slice(&tag);
        }
        ticket
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

pub(super) fn open(keys: &[TicketKey], ticket: &[u8]) -> Result<(TicketId, State), Unopened> {
    let (head, sealed) = ticket.split_first_chunk::<HEAD>().ok_or(Unopened::Form)?;
    let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(Unopened::Form)?;
    let [VERSION, rest @ ..] = head else {
        return Err(Unopened::Form);
    };
    let (name, id) = rest.split_first_chunk::<NAME>().ok_or(Unopened::Form)?;
    let id: TicketId = id.try_into().map_err(|_| Unopened::Form)?;
    let key = keys.iter().find(|key| key.name == *name);
    let key = key.ok_or(Unopened::UnknownKey)?;
    let mut text = zeroize::Zeroizing::new(text.to_vec());
    let key = key.of_ticket(&id).ok_or(Unopened::UnknownKey)?;
    if !key.open([0; 8], head, &mut text, tag) {
        return Err(Unopened::Tag);
    }
    let state = State::read(&text).map_err(|_| Unopened::Form)?;
    Ok((id, state))
}
