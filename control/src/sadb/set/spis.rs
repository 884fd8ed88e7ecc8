//! Inbound SPIs: drawn, promised, given back.

use evergate_common::steering::{NUMBER_BITS, numbered};
use rand::Rng;

use super::Sadb;
use crate::sadb::{HIGHEST_SPI, LOWEST_SPI, PLACE_BITS, spi_place, spi_worker};

/// Places of one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Those that were given back.
    free: Vec<u32>,
    /// How many were ever given.
    given: u32,
    /// For each of them, what the bits above the place were last: the next SPI has the next ones, so that none
    /// comes again soon.
    last: Vec<u16>,
}

impl Sadb {
    /// Draws an inbound SPI that is not reserved, in use or promised, and promises it. The promise
    /// ends when a session with it is inserted, or by [`Sadb::release_spi`]. Its low bits are a
    /// [place](super::spi_place) that no other drawn one has; the high ones are drawn, below the node's
    /// number where it shares its address.
    pub fn allocate_spi(&mut self, rng: &mut (impl Rng + ?Sized)) -> u32 {
        let worker = self.next_worker();
        self.allocate_spi_of(worker, rng)
    }

    /// The same for a child SA that so many workers after the one of inbound SPI `spi` shall have.
    pub fn allocate_spi_beside(
        &mut self,
        spi: u32,
        further: u16,
        rng: &mut (impl Rng + ?Sized),
    ) -> u32 {
        let workers = self.places.len().max(1);
        let worker = (spi_worker(spi, workers) + usize::from(further)) % workers;
        self.allocate_spi_of(worker, rng)
    }

    /// The worker whose turn it is to get a session.
    fn next_worker(&mut self) -> usize {
        self.turn = match self.first_only {
            true => 0,
            false => (self.turn + 1) % self.places.len().max(1),
        };
        self.turn
    }

    fn allocate_spi_of(&mut self, worker: usize, rng: &mut (impl Rng + ?Sized)) -> u32 {
        // Neither the lowest nor the highest: no reserved SPI, nor that of heartbeats.
        let (lowest, highest) = match self.number {
            0 => (LOWEST_SPI, HIGHEST_SPI),
            number => (numbered(0, number), numbered(u32::MAX, number)),
        };
        let high = lowest.div_ceil(1 << PLACE_BITS);
        let highs = match self.number {
            0 => (highest >> PLACE_BITS) - high,
            _ => 1 << (u32::BITS - PLACE_BITS - NUMBER_BITS),
        };
        let place = self.draw_place(worker);
        let free = |spi: &u32| self.by_inbound_spi(*spi).is_none() && !self.pending.contains(spi);
        if place < 1 << PLACE_BITS {
            let workers = self.places.len().max(1);
            let part = self.first.unwrap_or_else(|| rng.next_u32());
            let mut first = ((u64::from(part) * u64::from(highs)) >> u32::BITS) as u32;
            let at = place as usize / workers;
            let last = self
                .places
                .get(worker)
                .and_then(|places| places.last.get(at));
            if let Some(last) = last {
                first = u32::from(*last) + 1;
            }
            let mut tries = (0..highs).map(|more| (first % highs + more) % highs);
            let found = tries.find_map(|more| {
                let spi = (high + more) << PLACE_BITS | place;
                free(&spi).then_some((more, spi))
            });
            if let Some((more, spi)) = found {
                if let Some(places) = self.places.get_mut(worker) {
                    if places.last.len() <= at {
                        places.last.resize(at + 1, 0);
                    }
                    if let Some(last) = places.last.get_mut(at) {
                        *last = more as u16;
                    }
                }
                self.pending.insert(spi);
                self.drawn.insert(spi);
                return spi;
            }
        }
        let span = highest - lowest + 1;
        let mut spi = lowest + rng.next_u32() % span;
        while !free(&spi) {
            spi = if spi == highest { lowest } else { spi + 1 };
        }
        self.pending.insert(spi);
        spi
    }

    /// The lowest free place of a worker; none is free if it is too high.
    fn draw_place(&mut self, worker: usize) -> u32 {
        if self.places.is_empty() {
            self.places.push(Places::default());
        }
        let workers = self.places.len();
        let Some(places) = self.places.get_mut(worker) else {
            return u32::MAX;
        };
        places.free.pop().unwrap_or_else(|| {
            let place = u64::from(places.given) * workers as u64 + worker as u64;
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            if place < 1 << PLACE_BITS {
                places.given += 1;
            }
            place
        })
    }

    /// As if so many places had been given.
    #[cfg(test)]
    pub(in crate::sadb) fn next_place_for_test(&mut self, place: u32) {
        self.places = vec![Places {
            given: place,
            ..Places::default()
        }];
    }

    /// Takes the promise of [`Sadb::allocate_spi`] back: the exchange failed.
    pub fn release_spi(&mut self, spi: u32) {
        if self.pending.remove(&spi) {
            self.give_back(spi);
        }
    }

    /// The place of an SPI is free again.
    pub(super) fn give_back(&mut self, spi: u32) {
        if self.drawn.remove(&spi) {
            let worker = spi_worker(spi, self.places.len());
            if let Some(places) = self.places.get_mut(worker) {
                places.free.push(spi_place(spi));
            }
        }
    }
}
