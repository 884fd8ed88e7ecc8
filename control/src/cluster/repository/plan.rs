//! What a row of writes changes: sans-IO, the same for every store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::seal::{Kind, Sealer};
use super::{Stored, StoredIke, Write};

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
    /// IKE SAs, sealed; `None`: to be erased.
    pub(super) ike: BTreeMap<u64, Option<Vec<u8>>>,
    /// The number of the run that begins, sealed.
    pub(super) run: Option<Vec<u8>>,
    records: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.changes.is_empty() && self.ike.is_empty() && self.run.is_none();
        self.numbers.is_empty() && nothing
    }

    /// Records to write or to delete, at most.
    pub(super) fn records(&self) -> usize {
        self.records
    }
}

/// Records that one write changes at most.
pub(super) const MOST: usize = 2;

/// What expires when.
#[derive(Debug)]
struct Expiry<K> {
    expires: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K: Copy + Eq + Hash + Ord> Expiry<K> {
    fn new(all: impl IntoIterator<Item = (K, u64)>) -> Self {
        let mut expiry = Self {
            expires: HashMap::new(),
            order: BTreeSet::new(),
        };
        for (spi, expires) in all {
            expiry.insert(spi, expires);
        }
        expiry
    }

    fn insert(&mut self, spi: K, expires: u64) {
        self.remove(spi);
        self.expires.insert(spi, expires);
        self.order.insert((expires, spi));
    }

    fn remove(&mut self, spi: K) -> bool {
        match self.expires.remove(&spi) {
            Some(expires) => self.order.remove(&(expires, spi)),
            None => false,
        }
    }

    fn contains(&self, spi: K) -> bool {
        self.expires.contains_key(&spi)
    }

    /// The next one that has expired at this time.
    fn pop(&mut self, now: u64) -> Option<K> {
        let (_, spi) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(spi);
        Some(spi)
    }
}

/// Knows which pairs and IKE SAs there are once all batches are done, and when they expire.
pub(super) struct Planner {
    sealer: Sealer,
    pairs: Expiry<u32>,
    ike: Expiry<u64>,
}

impl Planner {
    /// For a store that holds this.
    pub(super) fn new(sealer: Sealer, stored: &[Stored]) -> Self {
        let pairs = stored.iter().map(|s| (s.pair.spi(), s.pair.expires));
        Self {
            sealer,
            pairs: Expiry::new(pairs),
            ike: Expiry::new([]),
        }
    }

    /// And this.
    pub(super) fn with_ike(self, stored: &[StoredIke]) -> Self {
        let ike = Expiry::new(stored.iter().map(|s| (s.spi, s.expires)));
        Self { ike, ..self }
    }

    /// Adds a write to a batch.
    pub(super) fn add(&mut self, batch: &mut Batch, number: u64, write: &Write) {
        batch.numbers.push(number);
        batch.records += MOST;
        match write {
            Write::Pair { pair, kept } => {
                let spi = pair.spi();
                self.pairs.insert(spi, pair.expires);
                let put = Change::Put {
                    pair: Some(self.sealer.seal(Kind::Pair, spi, pair)),
                    kept: self.sealer.seal(Kind::Kept, spi, kept),
                };
                batch.changes.insert(spi, put);
            }
            Write::Kept { spi, kept } => {
                // Of a pair that was erased, or has expired: nobody asks for it again.
                if !self.pairs.contains(*spi) {
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
                if self.pairs.remove(*spi) {
                    batch.changes.insert(*spi, Change::Erase);
                }
            }
            Write::Ike(stored) => {
                self.ike.insert(stored.spi, stored.expires);
                let content = (stored.expires, &stored.state);
                let sealed = self.sealer.seal(Kind::Ike, stored.spi, &content);
                batch.ike.insert(stored.spi, Some(sealed));
            }
            Write::EraseIke { spi } => {
                if self.ike.remove(*spi) {
                    batch.ike.insert(*spi, None);
                }
            }
        }
    }

    /// Adds the erasure of what has expired at this time, as long as the batch has fewer records than `most`.
    pub(super) fn expire(&mut self, batch: &mut Batch, now: u64, most: usize) {
        while batch.records + MOST <= most
            && let Some(spi) = self.pairs.pop(now)
        {
            batch.records += MOST;
            batch.changes.insert(spi, Change::Erase);
        }
        while batch.records + MOST <= most
            && let Some(spi) = self.ike.pop(now)
        {
            batch.records += 1;
            batch.ike.insert(spi, None);
        }
    }
}
