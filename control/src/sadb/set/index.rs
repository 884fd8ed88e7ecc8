//! Sessions by something that they have: the names alone, what is looked for is read from the sessions.

use hashbrown::HashTable;

use crate::sadb::SessionId;

/// A table that takes little more than the names.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(HashTable<SessionId>);

impl Index {
    /// All that may be meant; whoever asks looks whether they are.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = SessionId> {
        self.0.iter_hash(hash).copied()
    }

    /// Enters a session. `hash_of` says where the others are, all of which have such a place.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: SessionId,
        hash_of: impl Fn(SessionId) -> Option<u64>,
    ) {
        let hash_of = |id: &SessionId| hash_of(*id).unwrap_or_default();
        self.0.insert_unique(hash, id, hash_of);
    }

    /// Takes a session out of the place that it had.
    pub(super) fn remove(&mut self, hash: u64, id: SessionId) {
        if let Ok(entry) = self.0.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }
}
