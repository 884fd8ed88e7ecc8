//! The anti-replay window of RFC 6479 over 64-bit sequence numbers.

use thiserror::Error;

use super::Refused;

const WORD: u64 = u64::BITS as u64;

/// Which sequence numbers have been accepted. A ring of words that is never shifted: moving the
/// window up clears whole words. The ring has room for one word more than the window, so that the
/// window is always as wide as it was made. There is no ring while all numbers up to the top count as
/// seen: before the first packet, and while the window sleeps.
#[derive(Clone, Debug)]
pub struct Window {
    top: u64,
    size: u32,
    words: Box<[u64]>,
}

/// A window size that is not allowed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "a replay window has a power of two from {} to {} packets, found {found}",
    Window::MIN,
    Window::MAX
)]
pub struct BadWindow {
    /// The size that was asked for, in packets.
    pub found: u32,
}

impl Window {
    /// The narrowest window, in packets.
    pub const MIN: u32 = 1024;
    /// The default width, in packets.
    pub const DEFAULT: u32 = 4096;
    /// The widest window, in packets (32 KiB of bits and the slack of the ring).
    pub const MAX: u32 = 1 << 17;

    /// An empty window of `size` packets.
    ///
    /// # Errors
    /// A size that is no power of two or lies outside [`Window::MIN`] to [`Window::MAX`].
    pub fn new(size: u32) -> Result<Self, BadWindow> {
        if !size.is_power_of_two() || !(Self::MIN..=Self::MAX).contains(&size) {
            return Err(BadWindow { found: size });
        }
        Ok(Self {
            top: 0,
            size,
            words: Box::default(),
        })
    }

    /// The highest sequence number accepted; 0 before the first.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// The width in packets.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Takes over an SA: all numbers up to `top` count as seen. Never moves down.
    pub fn resume(&mut self, top: u64) {
        if top <= self.top {
            return;
        }
        self.top = top;
        self.sleep();
    }

    /// Takes over an SA: all numbers up to `top` count as seen, but for those of which `missing` has a bit, as
    /// [`Window::missing`] yields it. For a window that has seen nothing; any other one takes nothing up to its
    /// top any more, and never moves down.
    pub fn resume_without(&mut self, top: u64, missing: u64) {
        let fresh = self.top == 0 && self.words.is_empty();
        self.sleep();
        if !fresh {
            return self.resume(top);
        }
        self.resume(top);
        if missing == 0 {
            return;
        }
        self.wake();
        for n in (0..WORD).filter(|n| missing >> n & 1 == 1) {
            if let Some(sequence) = top.checked_sub(n).filter(|sequence| *sequence > 0) {
                let slot = self.slot(sequence);
                self.words[slot] &= !Self::bit(sequence);
            }
        }
    }

    /// Which of the last 64 numbers up to the top are still new: bit n for `top - n`.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let new = |n: &u64| self.top > *n && self.check(self.top - n).is_ok();
        (0..WORD).filter(new).fold(0, |bits, n| bits | 1 << n)
    }

    /// From now on all numbers up to the top count as seen, also those that were not: for an SA that
    /// nothing has come for in a long while. Takes no memory until the next one is accepted.
    pub fn sleep(&mut self) {
        self.words = Box::default();
    }

    /// Makes the ring.
    #[cold]
    fn wake(&mut self) {
        // RFC 6479 section 2: the ring has one word more than the window needs.
        let words = (self.size as usize / WORD as usize + 1).next_power_of_two();
        self.words = vec![u64::MAX; words].into_boxed_slice();
        let slot = self.slot(self.top);
        // Numbers above the top share its word and are still new.
        self.words[slot] = u64::MAX >> (WORD - 1 - self.top % WORD);
    }

    /// Whether `sequence` is new, changing nothing.
    ///
    /// # Errors
    /// [`Refused::TooOld`] or [`Refused::Replayed`].
    #[inline]
    pub fn check(&self, sequence: u64) -> Result<(), Refused> {
        if sequence > self.top {
            return Ok(());
        }
        //= rfc4303#section-3.3.3
        //# Thus, the first packet sent using a given SA will contain a sequence number of 1
        if sequence == 0 || self.top - sequence >= u64::from(self.size) {
            return Err(Refused::TooOld);
        }
        match self.words.get(self.slot(sequence)) {
            Some(word) if word & Self::bit(sequence) == 0 => Ok(()),
            _ => Err(Refused::Replayed),
        }
    }

    /// Marks `sequence` as seen, moving the window up if need be. Call it for authenticated
    /// packets only.
    ///
    /// # Errors
    /// [`Refused::TooOld`] or [`Refused::Replayed`]; then nothing has changed.
    #[inline]
    pub fn accept(&mut self, sequence: u64) -> Result<(), Refused> {
        self.check(sequence)?;
        if self.words.is_empty() {
            self.wake();
        }
        if sequence > self.top {
            let (from, to) = (self.top / WORD, sequence / WORD);
            // More than one turn of the ring clears nothing new.
            let steps = (to - from).min(self.words.len() as u64);
            for word in to - steps..to {
                let slot = self.slot_of_word(word + 1);
                self.words[slot] = 0;
            }
            self.top = sequence;
        }
        let slot = self.slot(sequence);
        self.words[slot] |= Self::bit(sequence);
        Ok(())
    }

    /// Completes the low half of an extended sequence number from the place of the window.
    /// `None` if the number would lie below 0 or above 2^64 - 1.
    #[inline]
    #[must_use]
    pub fn extend(&self, low: u32) -> Option<u64> {
        let below = self.size - 1;
        let (top_high, top_low) = ((self.top >> 32) as u32, self.top as u32);
        //= rfc4303#appendix-A2.2
        //# If Seql >= Bl (where Bl = Tl - W + 1), then Seqh = Th
        //# If Seql <  Bl (where Bl = Tl - W + 1), then Seqh = Th + 1
        // That is case A, Tl >= W - 1; in case B each is one less.
        let bottom_low = top_low.wrapping_sub(below);
        let high = match (top_low >= below, low >= bottom_low) {
            (true, true) | (false, false) => Some(top_high),
            (true, false) => top_high.checked_add(1),
            (false, true) => top_high.checked_sub(1),
        };
        high.map(|high| u64::from(high) << 32 | u64::from(low))
    }

    fn slot(&self, sequence: u64) -> usize {
        self.slot_of_word(sequence / WORD)
    }

    fn slot_of_word(&self, word: u64) -> usize {
        // The ring is a power of two: the mask keeps every index inside it.
        word as usize & self.words.len().wrapping_sub(1)
    }

    fn bit(sequence: u64) -> u64 {
        1 << (sequence % WORD)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::{BadWindow, Window};
    use crate::esp::Refused;

    /// The slow reference: remembers all it has seen.
    struct Model {
        top: u64,
        floor: u64,
        size: u64,
        seen: HashSet<u64>,
    }

    impl Model {
        fn accept(&mut self, sequence: u64) -> Result<(), Refused> {
            if sequence == 0 || self.top.saturating_sub(sequence) >= self.size {
                return Err(Refused::TooOld);
            }
            if sequence <= self.floor || !self.seen.insert(sequence) {
                return Err(Refused::Replayed);
            }
            self.top = self.top.max(sequence);
            Ok(())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Up(u64),
        Down(u64),
        Resume(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u64..4).prop_map(Step::Up),
            8 => (0_u64..200).prop_map(Step::Up),
            8 => (0_u64..4300).prop_map(Step::Down),
            1 => (0_u64..20_000).prop_map(Step::Up),
            1 => any::<u32>().prop_map(|far| Step::Up(u64::from(far))),
            1 => (0_u64..3000).prop_map(Step::Resume),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_model_that_remembers_everything(
            size in prop::sample::select(vec![1024_u32, 2048, 4096]),
            start in prop_oneof![Just(0), any::<u32>().prop_map(u64::from), Just(u64::MAX - 9999)],
            steps in prop::collection::vec(step(), 1..600),
        ) {
            let mut window = Window::new(size).expect("an allowed size");
            window.resume(start);
            let mut model =
                Model { top: start, floor: start, size: size.into(), seen: HashSet::new() };
            for step in steps {
                let sequence = match step {
                    Step::Up(by) => model.top.saturating_add(by),
                    Step::Down(by) => model.top.saturating_sub(by),
                    Step::Resume(by) => {
                        let top = model.top.saturating_add(by);
                        if top > model.top {
                            (model.top, model.floor) = (top, top);
                        }
                        window.resume(top);
                        continue;
                    }
                };
                let checked = window.check(sequence);
                let accepted = window.accept(sequence);
                prop_assert_eq!(checked, accepted);
                prop_assert_eq!(accepted, model.accept(sequence), "sequence {}", sequence);
                prop_assert_eq!(window.top(), model.top);
            }
        }

        #[test]
        fn the_high_half_is_the_one_of_the_nearest_number(
            top in any::<u64>(),
            offset in -4095_i64..0x7FFF_FFFF,
        ) {
            // From the lower end of the window to 2^32 - W above the top, the guess is exact.
            let mut window = Window::new(4096).expect("an allowed size");
            window.resume(top);
            if let Some(sequence) = top.checked_add_signed(offset) {
                prop_assert_eq!(window.extend(sequence as u32), Some(sequence));
            }
        }
    }

    #[test]
    fn the_window_is_as_wide_as_promised_and_no_wider() {
        for size in [1024, 4096, Window::MAX] {
            let mut window = Window::new(size).expect("an allowed size");
            window.accept(1_000_000).expect("new");
            let lowest = 1_000_000 - u64::from(size) + 1;
            assert_eq!(window.accept(lowest - 1), Err(Refused::TooOld));
            assert_eq!(window.accept(lowest), Ok(()));
            assert_eq!(window.accept(lowest), Err(Refused::Replayed));
            assert_eq!(window.accept(1_000_000), Err(Refused::Replayed));
        }
    }

    #[test]
    fn a_window_that_slept_takes_nothing_old_and_all_that_is_new() {
        let mut window = Window::new(1024).expect("an allowed size");
        assert!(window.words.is_empty(), "nothing has come yet");
        for sequence in [1, 1000, 1003] {
            window.accept(sequence).expect("new");
        }
        window.sleep();
        assert!(window.words.is_empty());
        assert_eq!(window.accept(1003), Err(Refused::Replayed));
        assert_eq!(
            window.accept(1002),
            Err(Refused::Replayed),
            "late, but refused"
        );
        assert_eq!(window.check(0), Err(Refused::TooOld));
        assert_eq!(window.extend(1004), Some(1004));
        assert!(window.words.is_empty(), "what is refused wakes nothing");
        for sequence in [1005, 1004] {
            assert_eq!(window.accept(sequence), Ok(()));
            assert_eq!(window.accept(sequence), Err(Refused::Replayed));
        }
    }

    #[test]
    fn a_window_that_moves_takes_what_is_missing_and_nothing_twice() {
        for top in [3_u64, 63, 64, 65, 1000, 70_000] {
            let mut old = Window::new(1024).expect("an allowed size");
            let late = |n: &u64| *n > 0 && (n.is_multiple_of(5) || *n == top - 1);
            for sequence in (1..=top).filter(|n| !late(n) || *n == top) {
                old.accept(sequence).expect("new");
            }
            let mut new = Window::new(1024).expect("an allowed size");
            new.resume_without(old.top(), old.missing());
            for sequence in top.saturating_sub(100)..=top + 3 {
                // Further below all counts as seen.
                let wanted = match top.saturating_sub(sequence) < 64 || sequence == 0 {
                    true => old.check(sequence),
                    false => Err(Refused::Replayed),
                };
                assert_eq!(new.check(sequence), wanted, "{sequence} of {top}");
                assert_eq!(new.accept(sequence), wanted, "{sequence} of {top}");
            }
        }
    }

    #[test]
    fn zero_is_never_a_sequence_number() {
        let mut window = Window::new(1024).expect("an allowed size");
        assert_eq!(window.accept(0), Err(Refused::TooOld));
        assert_eq!(window.accept(1), Ok(()));
        assert_eq!(window.accept(0), Err(Refused::TooOld));
    }

    #[test]
    fn a_number_below_zero_or_past_the_end_is_none() {
        let mut window = Window::new(1024).expect("an allowed size");
        assert_eq!(window.extend(u32::MAX), None);
        assert_eq!(window.extend(0), Some(0));
        window.resume(u64::MAX - 5);
        assert_eq!(window.extend(3), None);
        assert_eq!(window.extend(u32::MAX), Some(u64::MAX));
    }

    #[test]
    fn odd_sizes_are_refused() {
        for found in [0, 64, 512, 1000, 4097, Window::MAX * 2] {
            assert_eq!(Window::new(found).err(), Some(BadWindow { found }));
        }
        let text = BadWindow { found: 5 }.to_string();
        assert_eq!(
            text,
            "a replay window has a power of two from 1024 to 131072 packets, found 5"
        );
    }
}
