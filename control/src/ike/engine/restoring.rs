//! IKE SAs that outlive the process: the owner keeps snapshots of them, and its next run goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::event::SaId;
use super::super::sa::Sa;
use super::super::sa::restored::Moment;
use super::super::snapshot::{BadSnapshot, Changed, Snapshot};
use super::{Engine, Entry, NoHooks};

/// Runs of an owner: their numbers are the upper bits of initialisation vectors.
const RUNS: u32 = 1 << 24;

/// What the owner keeps.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    pub(super) run: u32,
    /// By SPI, whether it is urgent.
    changed: BTreeMap<u64, bool>,
}

impl Keeping {
    pub(super) fn note(&mut self, spi: u64, urgent: bool) {
        *self.changed.entry(spi).or_default() |= urgent;
    }

    /// Notes whether what the owner keeps of an IKE SA is old.
    pub(super) fn look_at(&mut self, entry: &mut Entry) {
        let (before, now) = (entry.told, entry.sa.told());
        let urgent = match (before, now) {
            (Some(before), Some(now)) => before.is_old(now),
            (None, None) => None,
            (before, _) => Some(before.is_none()),
        };
        if let Some(urgent) = urgent {
            entry.told = now;
            self.note(entry.sa.core.spi_local(), urgent);
        }
    }
}

impl Engine {
    /// From now on the owner keeps snapshots of IKE SAs, as [`Engine::poll_changed`] yields them. This is run
    /// number `run` of it: no other run that has, or had, any of these IKE SAs may ever have the same
    /// number, and each must have a higher one than those before. Said before the first session.
    ///
    /// # Errors
    /// There is no such number: 1 to 2^24 - 1.
    pub fn keep(&mut self, run: u32) -> Result<(), BadSnapshot> {
        if run == 0 || run >= RUNS {
            return Err(BadSnapshot::Wrong("run"));
        }
        self.keeping = Some(Keeping {
            run,
            changed: BTreeMap::new(),
        });
        Ok(())
    }

    /// The next IKE SA that is to be kept as it is now, or not any more. To be asked after the events, and
    /// before what is sent. `millis`: since 1970.
    pub fn poll_changed(&mut self, now: Instant, millis: u64) -> Option<Changed> {
        let (spi, urgent) = self.keeping.as_mut()?.changed.pop_first()?;
        let id = self.by_spi.get(&spi).copied();
        let snapshot = id.and_then(|id| self.snapshot(now, millis, id));
        Some(Changed {
            spi,
            id,
            snapshot,
            urgent,
        })
    }

    /// Has [`Engine::poll_changed`] yield all that is not kept exactly as it is: message IDs of IKE SAs with
    /// nothing new are kept now and then only.
    pub fn note_all(&mut self) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        for entry in self.sas.values_mut() {
            let now = entry.sa.told();
            if now.is_some() && now != entry.told {
                entry.told = now;
                keeping.note(entry.sa.core.spi_local(), false);
            }
        }
    }

    /// What it takes to go on with an IKE SA; `None` unless it has a session, or has just been replaced.
    pub fn snapshot(&self, now: Instant, millis: u64, id: SaId) -> Option<Snapshot> {
        let run = self.keeping.as_ref()?.run;
        self.sas.get(&id)?.sa.snapshot(run, Moment { now, millis })
    }

    /// Goes on with an IKE SA of an earlier run. No event tells of it. Before its first request the peer is
    /// asked which message IDs are right, once there is something to ask.
    ///
    /// # Errors
    /// The snapshot is of no use. After [`BadSnapshot::NotLater`] it must not be used: initialisation vectors
    /// would repeat.
    pub fn restore(
        &mut self,
        now: Instant,
        millis: u64,
        snapshot: &Snapshot,
    ) -> Result<SaId, BadSnapshot> {
        let run = self.keeping.as_ref().map_or(0, |keeping| keeping.run);
        if snapshot.run >= run {
            let (of, now) = (snapshot.run, run);
            return Err(BadSnapshot::NotLater { of, now });
        }
        if self.by_spi.contains_key(&snapshot.spi()) {
            return Err(BadSnapshot::InUse);
        }
        let id = self.new_id();
        let at = Moment { now, millis };
        let sa = Sa::from_snapshot(id, snapshot, run, at, &self.settings, &mut *self.rng)?;
        let told = sa.told();
        self.insert(sa);
        if let Some(entry) = self.sas.get_mut(&id) {
            // It is kept as it is.
            entry.told = told;
        }
        self.with(id, now, &mut NoHooks, Sa::resume);
        Ok(id)
    }

    /// Has the peer of a session go on with outbound sequence numbers that are so much higher (RFC 6311):
    /// [`Event::PeerAhead`](super::super::Event::PeerAhead) follows. False if the peer does not know how.
    pub fn ask_ahead(&mut self, now: Instant, id: SaId, by: u64) -> bool {
        let mut asks = false;
        self.with(id, now, &mut NoHooks, |sa, cx| asks = sa.ask_ahead(by, cx));
        asks
    }
}
