//! A repository in memory: what is done is durable, all that waits goes into one commit, and while it is away
//! writes wait (`control/src/cluster/repository`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evergate::cluster::repository::{Stored, Write};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// As the repository's thread waits.
const RETRY: Duration = Duration::from_millis(250);

/// What outlives every authority.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) pairs: BTreeMap<u32, Stored>,
    pub(super) full: bool,
}

impl Disk {
    fn write(&mut self, write: Write) {
        match write {
            Write::Pair { pair, kept } => {
                let pair = *pair;
                self.pairs.insert(pair.spi(), Stored { pair, kept });
            }
            // Of one that was erased: nobody asks for it again.
            Write::Kept { spi, kept } => {
                if let Some(stored) = self.pairs.get_mut(&spi) {
                    stored.kept = kept;
                }
            }
            Write::Erase { spi } => drop(self.pairs.remove(&spi)),
            // Authorities here do not go on with IKE SAs of before.
            Write::Ike(_) | Write::EraseIke { .. } => {}
        }
    }
}

/// An authority's own end of it.
#[derive(Default)]
pub(super) struct Writer {
    waiting: VecDeque<(u64, Write)>,
    batch: Vec<(u64, Write)>,
    due: Option<Duration>,
}

impl Writer {
    pub(super) fn write(&mut self, number: u64, write: Write) {
        self.waiting.push_back((number, write));
    }

    /// When [`Writer::poll`] has something to do.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        self.due
            .or_else(|| (!self.waiting.is_empty()).then_some(now))
    }

    /// Whether nothing waits.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.batch.is_empty()
    }

    /// Numbers of writes that are durable now.
    pub(super) fn poll(
        &mut self,
        now: Duration,
        longest: Duration,
        disk: &mut Disk,
        rng: &mut StdRng,
    ) -> Vec<u64> {
        let mut done = Vec::new();
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            if disk.full {
                self.due = Some(now + RETRY);
                return done;
            }
            for (number, write) in self.batch.drain(..) {
                disk.write(write);
                done.push(number);
            }
        }
        if self.due.is_none() && !self.waiting.is_empty() {
            self.batch.extend(self.waiting.drain(..));
            self.due = Some(now + rng.random_range(Duration::from_micros(50)..=longest));
        }
        done
    }

    /// The process is gone. What was being written is there, or is not.
    pub(super) fn end(self, disk: &mut Disk, rng: &mut StdRng) {
        if !self.batch.is_empty() && !disk.full && rng.random() {
            self.batch
                .into_iter()
                .for_each(|(_, write)| disk.write(write));
        }
    }
}
