//! Tickets for session resumption (RFC 5723), by value: a responder seals what it needs to go on with
//! a session and keeps nothing; whoever has the same key can open it.

mod keys;
mod state;
mod used;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use super::crypto::Secret;
use super::identity::Identity;
use super::proposal::IkeSuite;
use used::Used;

pub use keys::TicketKey;
pub(crate) use keys::{TicketId, Unopened};
pub(crate) use state::{State, Way};

/// A longer ticket is neither issued nor kept: it goes in IKE_SESSION_RESUME, which can not be cut
/// into parts.
pub(crate) const LONGEST: usize = 1024;

/// What a responder issues and opens tickets with. Many engines may share one.
pub struct Tickets {
    keys: RwLock<Arc<[TicketKey]>>,
    used: Mutex<Used>,
}

impl Tickets {
    /// `keys`: the first one seals, all of them open; without any, no ticket is issued. `remembered`:
    /// so many used tickets are told from unused ones; one more, and that which expires first is
    /// forgotten.
    pub fn new(keys: Vec<TicketKey>, remembered: usize) -> Tickets {
        Tickets {
            keys: RwLock::new(keys.into()),
            used: Mutex::new(Used::new(remembered)),
        }
    }

    /// Takes other keys. What was sealed with one that is not among them is refused from now on.
    pub fn set_keys(&self, keys: Vec<TicketKey>) {
        // Only whole values are ever stored, so a panic elsewhere spoils nothing.
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    fn keys(&self) -> Arc<[TicketKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a ticket; `None` without a key, or if it would be too long.
    pub(crate) fn seal(&self, id: TicketId, state: &State) -> Option<Vec<u8>> {
        let sealed = self.keys().first()?.seal(id, state);
        (sealed.len() <= LONGEST).then_some(sealed)
    }

    /// Opens a ticket that any of the keys has sealed, used or not.
    pub(crate) fn open(&self, ticket: &[u8]) -> Result<(TicketId, State), Unopened> {
        keys::open(&self.keys(), ticket)
    }

    /// Whether a session was resumed with that ticket here.
    pub(crate) fn is_used(&self, id: &TicketId) -> bool {
        self.used().contains(id)
    }

    /// A session is resumed with that ticket; false if one was before. `now` and `expires`: seconds
    /// since 1970.
    pub(crate) fn take(&self, id: TicketId, now: u64, expires: u64) -> bool {
        self.used().take(id, now, expires)
    }
}

/// Reads the state inside a ticket and writes it again; `None` if it is none.
pub(crate) fn rewrite_state(text: &[u8]) -> Option<Vec<u8>> {
    let state = State::read(text).ok()?;
    Some(state.write().to_vec())
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} keys)", self.keys().len())
    }
}

/// What an initiator needs to resume a session: the responder's ticket, and its own part of the
/// state. For one use, by [`Engine::resume`](super::Engine::resume).
#[derive(Clone)]
pub struct Ticket {
    pub(crate) opaque: Vec<u8>,
    pub(crate) suite: IkeSuite,
    pub(crate) sk_d: Secret,
    /// Who both sides were; they stay the same.
    pub(crate) idi: Identity,
    pub(crate) idr: Identity,
    /// When the responder took our proof of who we are last, in seconds since 1970.
    pub(crate) authenticated: u64,
    pub(crate) expires: Instant,
}

impl Ticket {
    /// When the responder will not take it any more.
    #[must_use]
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// When we have proven who we are last, in seconds since 1970 as [`Hooks::unix_time`] told it.
    ///
    /// [`Hooks::unix_time`]: super::Hooks::unix_time
    #[must_use]
    pub fn authenticated(&self) -> u64 {
        self.authenticated
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} bytes, of {})", self.opaque.len(), self.idr)
    }
}
