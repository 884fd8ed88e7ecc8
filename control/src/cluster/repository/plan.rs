//! What a row of writes changes: sans-IO, the same for every store.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::seal::{Kind, Sealer};
use super::{Stored, Write};

/// What becomes of one SA pair. Both parts are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put {
        /// Unless it stays as it is.
        pair: Option<Vec<u8>>,
        kept: Vec<u8>,
    },
    Erase,
}

/// Writes that become durable together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order in which they came.
    pub(super) numbers: Vec<u64>,
    pub(super) changes: BTreeMap<u32, Change>,
    records: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.changes.is_empty()
    }

    /// Records to write or to delete, at most.
    pub(super) fn records(&self) -> usize {
        self.records
    }
}

/// Records that one write changes at most.
pub(super) const MOST: usize = 2;

/// Knows which pairs there are once all batches are done, and when they expire.
pub(super) struct Planner {
    sealer: Sealer,
    expires: HashMap<u32, u64>,
    order: BTreeSet<(u64, u32)>,
}

impl Planner {
    /// For a store that holds this.
    pub(super) fn new(sealer: Sealer, stored: &[Stored]) -> Self {
        let mut planner = Self {
            sealer,
            expires: HashMap::new(),
            order: BTreeSet::new(),
        };
        for Stored { pair, .. } in stored {
            planner.insert(pair.spi(), pair.expires);
        }
        planner
    }

    /// Adds a write to a batch.
    pub(super) fn add(&mut self, batch: &mut Batch, number: u64, write: &Write) {
        batch.numbers.push(number);
        batch.records += MOST;
        match write {
            Write::Pair { pair, kept } => {
                let spi = pair.spi();
                self.insert(spi, pair.expires);
                let put = Change::Put {
                    pair: Some(self.sealer.seal(Kind::Pair, spi, pair)),
                    kept: self.sealer.seal(Kind::Kept, spi, kept),
                };
                batch.changes.insert(spi, put);
            }
            Write::Kept { spi, kept } => {
                // Of a pair that was erased, or has expired: nobody asks for it again.
                if !self.expires.contains_key(spi) {
                    return;
                }
                let sealed = self.sealer.seal(Kind::Kept, *spi, kept);
                match batch.changes.get_mut(spi) {
                    Some(Change::Put { kept, .. }) => *kept = sealed,
                    Some(Change::Erase) | None => {
                        let put = Change::Put {
                            pair: None,
                            kept: sealed,
                        };
                        batch.changes.insert(*spi, put);
                    }
                }
            }
            Write::Erase { spi } => {
                if self.remove(*spi) {
                    batch.changes.insert(*spi, Change::Erase);
                }
            }
        }
    }

    /// Adds the erasure of what has expired at this time, as long as the batch has fewer records than `most`.
    pub(super) fn expire(&mut self, batch: &mut Batch, now: u64, most: usize) {
        while batch.records + MOST <= most
            && let Some((_, spi)) = self.order.first().copied().filter(|(at, _)| *at <= now)
        {
            self.remove(spi);
            batch.records += MOST;
            batch.changes.insert(spi, Change::Erase);
        }
    }

    fn insert(&mut self, spi: u32, expires: u64) {
        self.remove(spi);
        self.expires.insert(spi, expires);
        self.order.insert((expires, spi));
    }

    fn remove(&mut self, spi: u32) -> bool {
        match self.expires.remove(&spi) {
            Some(expires) => self.order.remove(&(expires, spi)),
            None => false,
        }
    }
}
