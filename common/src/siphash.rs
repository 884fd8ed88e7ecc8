//! SipHash-2-4 (Aumasson and Bernstein, 2012) over exactly 24 bytes, without loops or branches.

/// Bytes of input that [`siphash24`] takes.
pub const INPUT_LEN: usize = 24;

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

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.3 ^= word;
        self.round();
        self.round();
        self.0 ^= word;
    }
}

/// The tag of `input` (three little-endian words, as SipHash reads its message) under `key`.
/// The result is the hash value as a number; on the wire it is little endian.
#[inline(always)]
pub fn siphash24(key: &[u8; 16], input: [u64; 3]) -> u64 {
    let key = u128::from_le_bytes(*key);
    let (k0, k1) = (key as u64, (key >> 64) as u64);
    let mut state = State(
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    );
    let [first, second, third] = input;
    state.absorb(first);
    state.absorb(second);
    state.absorb(third);
    // The last word holds the length in its top byte; 24 bytes leave no remainder.
    state.absorb((INPUT_LEN as u64) << 56);
    state.2 ^= 0xFF;
    state.round();
    state.round();
    state.round();
    state.round();
    state.0 ^ state.1 ^ state.2 ^ state.3
}

#[cfg(test)]
mod tests {
    use super::siphash24;
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
            prop_assert_eq!(siphash24(&key, words), oracle.finish());
        }
    }
}
