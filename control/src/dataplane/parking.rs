//! Frames that wait for numbers of a shared session, or for a session with their SPI, in the order in which
//! they came.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use evergate_common::reason::Counter;
use rustc_hash::FxBuildHasher;

use super::xsk::{Frame, Umem};

/// Frames that wait in a worker: what a thousand clients send in the time in which they change hands, and less
/// than what a worker has beside its rings.
pub(super) const FRAMES: usize = 4096;

/// Of one session: what comes at 20,000 packets a second in the 10 ms that a change of hands takes, so that
/// one client takes no more than a sixteenth of the room.
pub(super) const OF_SESSION: u16 = 256;

/// Inner packets of all: what targets go on sending must leave room for what clients send, which is what
/// brings numbers here.
pub(super) const INNER: usize = FRAMES / 2;

/// Of SPIs that nobody knows, which anybody can send: they must not take the room of the others.
pub(super) const STRANGE: usize = FRAMES / 4;

/// Of one such SPI: the first packets of a client that comes here.
pub(super) const OF_STRANGE: u16 = 16;

/// Longest wait. Numbers come within milliseconds or not at all; later a sender has repeated what was lost.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// What a frame is, and so what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// ESP of a shared session, for inbound numbers.
    Esp,
    /// A packet on its way into one, its TTL lowered where that has to be, for outbound numbers.
    Inner,
    /// ESP with an SPI that no session has, for one that has it.
    Strange,
}

/// No place.
const NONE: u32 = u32::MAX;

/// A place, and who waits in it.
#[derive(Debug)]
struct Place {
    /// None: it was taken, and its place is still there; or nobody waits here.
    frame: Option<Frame>,
    spi: u32,
    waits: Waits,
    since: Instant,
    /// In the order in which all came.
    all: Neighbours,
    /// The same of those with this SPI.
    same: Neighbours,
}

/// Places before and behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbours {
    before: u32,
    behind: u32,
}

/// A row of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    first: u32,
    last: u32,
}

/// Those with one SPI.
#[derive(Clone, Copy, Debug)]
struct Of {
    row: Row,
    /// Frames of a session, and of an SPI without one.
    known: u16,
    strange: u16,
}

/// The frames of a worker that wait.
pub(super) struct Parking {
    places: Vec<Place>,
    free: Vec<u32>,
    all: Row,
    of: HashMap<u32, Of, FxBuildHasher>,
    inner: usize,
    strange: usize,
}

impl Default for Parking {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            all: Row::EMPTY,
            of: HashMap::default(),
            inner: 0,
            strange: 0,
        }
    }
}

impl Parking {
    /// Room for all that may ever wait.
    pub(super) fn new() -> Self {
        Self {
            places: Vec::with_capacity(FRAMES),
            free: Vec::with_capacity(FRAMES),
            // Twice of it, so that places of entries that are gone are swept up without a new table.
            of: HashMap::with_capacity_and_hasher(2 * FRAMES, FxBuildHasher),
            ..Self::default()
        }
    }

    /// Keeps a frame, or gives it back with the reason why not.
    pub(super) fn put(
        &mut self,
        frame: Frame,
        spi: u32,
        waits: Waits,
        now: Instant,
    ) -> Result<(), (Frame, Counter)> {
        let of = self.of.get(&spi);
        let (room, reason) = match waits {
            Waits::Esp => (
                of.is_none_or(|of| of.known < OF_SESSION),
                Counter::ParkedFull,
            ),
            Waits::Inner => (
                of.is_none_or(|of| of.known < OF_SESSION) && self.inner < INNER,
                Counter::ParkedFull,
            ),
            Waits::Strange => (
                of.is_none_or(|of| of.strange < OF_STRANGE) && self.strange < STRANGE,
                Counter::UnknownSpi,
            ),
        };
        let at = if room { self.place(now) } else { None };
        let Some(at) = at else {
            return Err((frame, reason));
        };
        let last = self.all.last;
        self.link_all(at, last);
        self.enter(at, frame, spi, waits);
        Ok(())
    }

    /// Whether any frame waits for this SPI.
    pub(super) fn waits_for(&self, spi: u32) -> bool {
        self.of
            .get(&spi)
            .is_some_and(|of| of.known > 0 || of.strange > 0)
    }

    /// The first place of those with this SPI, for [`Parking::take`].
    pub(super) fn first(&self, spi: u32) -> Option<u32> {
        let of = self.of.get(&spi)?;
        Some(of.row.first).filter(|first| *first != NONE)
    }

    /// The place behind that one. To be asked for before the frame there is taken.
    pub(super) fn next(&self, at: u32) -> Option<u32> {
        let behind = self.places.get(at as usize)?.same.behind;
        Some(behind).filter(|behind| *behind != NONE)
    }

    /// Takes the frame at a place if it is an inner packet, or is none. Its place stays until it is
    /// [vacated](Parking::vacate), or something is put back.
    pub(super) fn take(&mut self, at: u32, inner: bool) -> Option<(Frame, Waits)> {
        let place = self.places.get_mut(at as usize)?;
        if (place.waits == Waits::Inner) != inner {
            return None;
        }
        let (frame, spi, waits) = (place.frame.take()?, place.spi, place.waits);
        self.count(spi, waits, false);
        Some((frame, waits))
    }

    /// Puts a frame that was taken back into its place: it goes on waiting, no longer than before.
    pub(super) fn put_back(
        &mut self,
        at: u32,
        frame: Frame,
        spi: u32,
        waits: Waits,
    ) -> Result<(), Frame> {
        let Some(place) = self.places.get_mut(at as usize) else {
            return Err(frame);
        };
        if place.spi == spi {
            (place.frame, place.waits) = (Some(frame), waits);
            self.count(spi, waits, true);
        } else {
            self.unlink_same(at);
            self.enter(at, frame, spi, waits);
        }
        Ok(())
    }

    /// Gives up a place whose frame was taken.
    pub(super) fn vacate(&mut self, at: u32) {
        self.unlink_same(at);
        self.unlink_all(at);
        self.free.push(at);
    }

    /// The next frame that has waited for too long, and what is counted.
    pub(super) fn late(&mut self, now: Instant) -> Option<(Frame, Counter)> {
        loop {
            let at = self.all.first;
            let place = self.places.get_mut(at as usize)?;
            if now < place.since + PATIENCE {
                return None;
            }
            let (frame, spi, waits) = (place.frame.take(), place.spi, place.waits);
            if frame.is_some() {
                self.count(spi, waits, false);
            }
            self.vacate(at);
            if let Some(frame) = frame {
                return Some((frame, waits.late()));
            }
        }
    }

    /// When [`Parking::late`] has something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.places.get(self.all.first as usize);
        first.map(|place| place.since + PATIENCE)
    }

    /// Gives all frames back: the worker ends.
    pub(super) fn clear(&mut self, umem: &mut Umem) {
        for place in self.places.drain(..) {
            if let Some(frame) = place.frame {
                umem.free(frame);
            }
        }
        self.free.clear();
        self.of.clear();
        (self.all, self.inner, self.strange) = (Row::EMPTY, 0, 0);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A place in which nobody waits, in no row; none if all are taken.
    fn place(&mut self, now: Instant) -> Option<u32> {
        let place = Place {
            frame: None,
            spi: 0,
            waits: Waits::Esp,
            since: now,
            all: Neighbours::NONE,
            same: Neighbours::NONE,
        };
        if let Some(at) = self.free.pop() {
            *self.places.get_mut(at as usize)? = place;
            return Some(at);
        }
        if self.places.len() >= FRAMES {
            return None;
        }
        self.places.push(place);
        u32::try_from(self.places.len() - 1).ok()
    }

    /// A frame is at a place that is in no row of an SPI, from now on as the last one of this SPI.
    fn enter(&mut self, at: u32, frame: Frame, spi: u32, waits: Waits) {
        let of = self.of.entry(spi).or_insert(Of {
            row: Row::EMPTY,
            known: 0,
            strange: 0,
        });
        let last = std::mem::replace(&mut of.row.last, at);
        if of.row.first == NONE {
            of.row.first = at;
        }
        if let Some(place) = self.places.get_mut(at as usize) {
            (place.frame, place.spi, place.waits) = (Some(frame), spi, waits);
            place.same = Neighbours {
                before: last,
                behind: NONE,
            };
        }
        if let Some(before) = self.places.get_mut(last as usize) {
            before.same.behind = at;
        }
        self.count(spi, waits, true);
    }

    fn link_all(&mut self, at: u32, last: u32) {
        if let Some(place) = self.places.get_mut(at as usize) {
            place.all.before = last;
        }
        match self.places.get_mut(last as usize) {
            Some(before) => before.all.behind = at,
            None => self.all.first = at,
        }
        self.all.last = at;
    }

    fn unlink_all(&mut self, at: u32) {
        let Some(place) = self.places.get_mut(at as usize) else {
            return;
        };
        let Neighbours { before, behind } = std::mem::replace(&mut place.all, Neighbours::NONE);
        match self.places.get_mut(before as usize) {
            Some(place) => place.all.behind = behind,
            None => self.all.first = behind,
        }
        match self.places.get_mut(behind as usize) {
            Some(place) => place.all.before = before,
            None => self.all.last = before,
        }
    }

    /// Takes a place out of its SPI's row, which is forgotten with the last one.
    fn unlink_same(&mut self, at: u32) {
        let Some(place) = self.places.get_mut(at as usize) else {
            return;
        };
        let spi = place.spi;
        let Neighbours { before, behind } = std::mem::replace(&mut place.same, Neighbours::NONE);
        let Some(of) = self.of.get_mut(&spi) else {
            return;
        };
        match self.places.get_mut(before as usize) {
            Some(place) => place.same.behind = behind,
            None => of.row.first = behind,
        }
        match self.places.get_mut(behind as usize) {
            Some(place) => place.same.before = before,
            None => of.row.last = before,
        }
        if of.row == Row::EMPTY {
            self.of.remove(&spi);
        }
    }

    /// One more of an SPI waits, or one less.
    fn count(&mut self, spi: u32, waits: Waits, more: bool) {
        if let Some(of) = self.of.get_mut(&spi) {
            let count = match waits {
                Waits::Strange => &mut of.strange,
                Waits::Esp | Waits::Inner => &mut of.known,
            };
            *count = match more {
                true => *count + 1,
                false => count.saturating_sub(1),
            };
        }
        let total = match waits {
            Waits::Inner => &mut self.inner,
            Waits::Strange => &mut self.strange,
            Waits::Esp => return,
        };
        *total = match more {
            true => *total + 1,
            false => total.saturating_sub(1),
        };
    }
}

impl Neighbours {
    const NONE: Self = Self {
        before: NONE,
        behind: NONE,
    };
}

impl Row {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

impl Waits {
    fn late(self) -> Counter {
        match self {
            Self::Esp | Self::Inner => Counter::ParkedLate,
            Self::Strange => Counter::UnknownSpi,
        }
    }
}

#[cfg(test)]
#[path = "parking_tests.rs"]
mod tests;
