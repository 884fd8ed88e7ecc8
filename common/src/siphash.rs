//! SipHash-2-4 (Aumasson and Bernstein, 2012) over whole words, without loops or branches.

struct State(u64, u64, u64, u64);

impl State {
    #[inline(always)]
    fn round(&mut self) {
        let State(v0, v1, v2, v3) = self;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    /// One round of each of two.
    #[inline(always)]
    fn round_both(one: &mut State, two: &mut State) {
        for State(v0, v1, _, _) in [&mut *one, &mut *two] {
            *v0 = v0.wrapping_add(*v1);
            *v1 = v1.rotate_left(13) ^ *v0;
            *v0 = v0.rotate_left(32);
        }
        for State(_, _, v2, v3) in [&mut *one, &mut *two] {
            *v2 = v2.wrapping_add(*v3);
            *v3 = v3.rotate_left(16) ^ *v2;
        }
        for State(v0, _, _, v3) in [&mut *one, &mut *two] {
            *v0 = v0.wrapping_add(*v3);
            *v3 = v3.rotate_left(21) ^ *v0;
        }
        for State(_, v1, v2, _) in [&mut *one, &mut *two] {
            *v2 = v2.wrapping_add(*v1);
            *v1 = v1.rotate_left(17) ^ *v2;
            *v2 = v2.rotate_left(32);
        }
    }

    #[inline(always)]
    fn new(key: &[u8; 16]) -> Self {
        let key = u128::from_le_bytes(*key);
        let (k0, k1) = (key as u64, (key >> 64) as u64);
        State(
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        )
    }

    #[inline(always)]
    fn absorb(mut self, word: u64) -> Self {
        self.3 ^= word;
        self.round();
        self.round();
        self.0 ^= word;
        self
    }

    /// The tag, after `words` whole words.
    #[inline(always)]
    fn finish(self, words: u64) -> u64 {
        // The last word holds the length in its top byte; whole words leave no remainder.
        let mut state = self.absorb((words * 8) << 56);
        state.2 ^= 0xFF;
        state.round();
        state.round();
        state.round();
        state.round();
        state.0 ^ state.1 ^ state.2 ^ state.3
    }
}

/// The tag of three little-endian words (as SipHash reads its message) under `key`, as a number; on
/// the wire it is little endian.
#[inline(always)]
pub fn siphash24_of_3(key: &[u8; 16], [a, b, c]: [u64; 3]) -> u64 {
    State::new(key).absorb(a).absorb(b).absorb(c).finish(3)
}

/// The tags of two messages of three words under one key, step by step beside each other: each step
/// needs the one before it, and a processor that has another message's to do meanwhile takes little
/// longer for two than for one.
#[inline(always)]
pub fn siphash24_of_3_twice(key: &[u8; 16], one: [u64; 3], two: [u64; 3]) -> (u64, u64) {
    let (mut left, mut right) = (State::new(key), State::new(key));
    let [a, b, c] = one;
    let [d, e, f] = two;
    let end = (3 * 8) << 56;
    for (word, other) in [(a, d), (b, e), (c, f), (end, end)] {
        left.3 ^= word;
        right.3 ^= other;
        State::round_both(&mut left, &mut right);
        State::round_both(&mut left, &mut right);
        left.0 ^= word;
        right.0 ^= other;
    }
    left.2 ^= 0xFF;
    right.2 ^= 0xFF;
    State::round_both(&mut left, &mut right);
    State::round_both(&mut left, &mut right);
    State::round_both(&mut left, &mut right);
    State::round_both(&mut left, &mut right);
    let tag = |state: &State| state.0 ^ state.1 ^ state.2 ^ state.3;
    (tag(&left), tag(&right))
}

/// The same of five words.
#[inline(always)]
pub fn siphash24_of_5(key: &[u8; 16], [a, b, c, d, e]: [u64; 5]) -> u64 {
    let state = State::new(key).absorb(a).absorb(b).absorb(c);
    state.absorb(d).absorb(e).finish(5)
}

#[cfg(test)]
mod tests {
    use super::{siphash24_of_3, siphash24_of_3_twice, siphash24_of_5};
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    proptest! {
        #[test]
        fn agrees_with_siphasher(key: [u8; 16], words: [u64; 3]) {
            let mut oracle = SipHasher24::new_with_key(&key);
            for word in words {
                oracle.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash24_of_3(&key, words), oracle.finish());
        }

        #[test]
        fn two_beside_each_other_agree_with_one(key: [u8; 16], one: [u64; 3], two: [u64; 3]) {
            let both = siphash24_of_3_twice(&key, one, two);
            prop_assert_eq!(both, (siphash24_of_3(&key, one), siphash24_of_3(&key, two)));
        }

        #[test]
        fn five_words_agree_with_siphasher(key: [u8; 16], words: [u64; 5]) {
            let mut oracle = SipHasher24::new_with_key(&key);
            for word in words {
                oracle.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash24_of_5(&key, words), oracle.finish());
        }
    }
}
