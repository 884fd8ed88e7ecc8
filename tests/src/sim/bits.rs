//! Sets of numbers.

use std::collections::HashMap;

/// Which numbers from 0 on have been seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// The same of numbers of any size.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse(HashMap<u64, u64>);

impl Sparse {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let word = self.0.entry(number / 64).or_default();
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let word = self.0.get(&(number / 64)).copied();
        word.unwrap_or_default() >> (number % 64) & 1 == 1
    }
}

fn place(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).expect("a small number");
    (word, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_fresh_once() {
        let mut bits = Bits::default();
        for number in [0, 63, 64, 1000] {
            assert!(!bits.contains(number) && bits.insert(number), "{number}");
            assert!(bits.contains(number) && !bits.insert(number), "{number}");
        }
        assert!(!bits.contains(65) && !bits.contains(u64::from(u32::MAX)));
        let mut sparse = Sparse::default();
        for number in [0, 63, 64, u64::MAX] {
            assert!(
                !sparse.contains(number) && sparse.insert(number),
                "{number}"
            );
            assert!(
                sparse.contains(number) && !sparse.insert(number),
                "{number}"
            );
        }
        assert!(!sparse.contains(65));
    }
}
