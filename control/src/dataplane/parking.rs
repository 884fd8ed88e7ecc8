//! Frames that wait for numbers of a shared session, or for a session with their SPI, in the order in which
//! they came.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use evergate_common::reason::Counter;
use rustc_hash::FxBuildHasher;

use super::xsk::{Frame, Umem};

/// Frames that wait in a worker: as many as groups hold, and far less than a worker has.
pub(super) const FRAMES: usize = 1024;

/// Of one session: what comes at 20,000 packets a second in the 10 ms that a change of hands takes, so that
/// one client takes no more than a quarter of the room.
pub(super) const OF_SESSION: u16 = 256;

/// Inner packets of all: what targets go on sending must leave room for what clients send, which is what
/// brings numbers here.
pub(super) const INNER: usize = FRAMES / 2;

/// Of SPIs that nobody knows, which anybody can send: they must not take the room of the others.
pub(super) const STRANGE: usize = 128;

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

/// A frame that waits.
#[derive(Debug)]
struct Parked {
    /// None: it was taken, and its place is still there.
    frame: Option<Frame>,
    spi: u32,
    waits: Waits,
    since: Instant,
}

/// The frames of a worker that wait.
#[derive(Default)]
pub(super) struct Parking {
    frames: VecDeque<Parked>,
    /// How many of a session or, if true, of an SPI without one.
    of: HashMap<(u32, bool), u16, FxBuildHasher>,
    inner: usize,
    strange: usize,
}

impl Parking {
    /// Room for all that may ever wait.
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::with_capacity(FRAMES),
            // Twice of it, so that places of entries that are gone are swept up without a new table.
            of: HashMap::with_capacity_and_hasher(2 * FRAMES, FxBuildHasher),
            inner: 0,
            strange: 0,
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
        let waiting = self.of.get(&(spi, waits == Waits::Strange)).copied();
        let waiting = waiting.unwrap_or_default();
        let (room, reason) = match waits {
            Waits::Esp => (waiting < OF_SESSION, Counter::ParkedFull),
            Waits::Inner => (
                waiting < OF_SESSION && self.inner < INNER,
                Counter::ParkedFull,
            ),
            Waits::Strange => (
                waiting < OF_STRANGE && self.strange < STRANGE,
                Counter::UnknownSpi,
            ),
        };
        if !room || self.frames.len() >= FRAMES {
            return Err((frame, reason));
        }
        self.entered(spi, waits);
        self.frames.push_back(Parked {
            frame: Some(frame),
            spi,
            waits,
            since: now,
        });
        Ok(())
    }

    /// Whether any frame waits for this SPI.
    pub(super) fn waits_for(&self, spi: u32) -> bool {
        self.of.contains_key(&(spi, false)) || self.of.contains_key(&(spi, true))
    }

    /// How many places there are, for [`Parking::take`].
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Takes the frame at a place if it waits for this SPI, and is an inner packet or is none.
    pub(super) fn take(&mut self, at: usize, spi: u32, inner: bool) -> Option<(Frame, Waits)> {
        let parked = self.frames.get_mut(at)?;
        if parked.spi != spi || (parked.waits == Waits::Inner) != inner {
            return None;
        }
        let (frame, waits) = (parked.frame.take()?, parked.waits);
        self.left(spi, waits);
        Some((frame, waits))
    }

    /// Puts a frame that was taken back into its place: it goes on waiting, no longer than before.
    pub(super) fn put_back(
        &mut self,
        at: usize,
        frame: Frame,
        spi: u32,
        waits: Waits,
    ) -> Result<(), Frame> {
        let Some(parked) = self.frames.get_mut(at) else {
            return Err(frame);
        };
        (parked.frame, parked.spi, parked.waits) = (Some(frame), spi, waits);
        self.entered(spi, waits);
        Ok(())
    }

    /// Closes the gaps that [`Parking::take`] has left.
    pub(super) fn close_up(&mut self) {
        self.frames.retain(|parked| parked.frame.is_some());
    }

    /// The next frame that has waited for too long, and what is counted.
    pub(super) fn late(&mut self, now: Instant) -> Option<(Frame, Counter)> {
        loop {
            let first = self.frames.front()?;
            if now < first.since + PATIENCE {
                return None;
            }
            let Parked {
                frame, spi, waits, ..
            } = self.frames.pop_front()?;
            let Some(frame) = frame else { continue };
            self.left(spi, waits);
            return Some((frame, waits.late()));
        }
    }

    /// When [`Parking::late`] has something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.frames.front().map(|parked| parked.since + PATIENCE)
    }

    /// Gives all frames back: the worker ends.
    pub(super) fn clear(&mut self, umem: &mut Umem) {
        for parked in self.frames.drain(..) {
            if let Some(frame) = parked.frame {
                umem.free(frame);
            }
        }
        self.of.clear();
        (self.inner, self.strange) = (0, 0);
    }

    fn entered(&mut self, spi: u32, waits: Waits) {
        *self.of.entry((spi, waits == Waits::Strange)).or_default() += 1;
        self.inner += usize::from(waits == Waits::Inner);
        self.strange += usize::from(waits == Waits::Strange);
    }

    fn left(&mut self, spi: u32, waits: Waits) {
        let key = (spi, waits == Waits::Strange);
        if let Some(count) = self.of.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&key);
            }
        }
        self.inner -= usize::from(waits == Waits::Inner);
        self.strange -= usize::from(waits == Waits::Strange);
    }
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
