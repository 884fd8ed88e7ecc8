//! Internet checksums: the full sum (RFC 1071) and the incremental update (RFC 1624).

/// Folds a 32-bit sum of 16-bit words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    ((once & 0xFFFF) + (once >> 16)) as u16
}

/// A change of some words under a checksum, collected word by word.
///
/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u32);

impl Change {
    /// No change.
    #[inline(always)]
    pub const fn new() -> Self {
        Change(0)
    }

    /// One 16-bit word, at an even offset, that was `old` and is now `new`. At most 30,000 words
    /// can be collected in one change.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Change(self.0 + (!old) as u32 + new as u32)
    }

    /// Four bytes in network order, at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn four(self, old: [u8; 4], new: [u8; 4]) -> Self {
        let (old, new) = (u32::from_be_bytes(old), u32::from_be_bytes(new));
        self.word((old >> 16) as u16, (new >> 16) as u16)
            .word(old as u16, new as u16)
    }

    /// Eight bytes in network order, at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn eight(self, old: [u8; 8], new: [u8; 8]) -> Self {
        let (old, new) = (u64::from_be_bytes(old), u64::from_be_bytes(new));
        self.four(
            ((old >> 32) as u32).to_be_bytes(),
            ((new >> 32) as u32).to_be_bytes(),
        )
        .four((old as u32).to_be_bytes(), (new as u32).to_be_bytes())
    }

    /// The checksum (host order) after the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u32 + fold(self.0) as u32)
    }

    /// The UDP checksum after the change: "none" (0) stays none, and a sum of zero is sent as all
    /// ones (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xFFFF,
            sum => sum,
        }
    }
}

/// The ones' complement sum of `bytes` as 16-bit words in network order (RFC 1071), not yet
/// complemented; `start` is a sum to go on from. An odd last byte counts as the high half of a
/// word. Meant for at most 64 KiB.
pub fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        let word = match pair {
            [high, low] => u16::from_be_bytes([*high, *low]),
            [high] => u16::from_be_bytes([*high, 0]),
            _ => 0,
        };
        total += u32::from(word);
    }
    u32::from(fold(total))
}

/// The checksum of an IPv4 header whose checksum field is zero; over a header with a right
/// checksum the result is 0.
pub fn ipv4_header(header: &[u8]) -> u16 {
    !fold(sum(header, 0))
}

/// The ones' complement sum of whole words, for a checksum over little that is known.
#[derive(Clone, Copy, Debug)]
pub struct Sum(pub u32);

impl Sum {
    #[inline(always)]
    /// Four bytes in network order, at an even offset.
    #[must_use]
    pub fn four(self, bytes: [u8; 4]) -> Self {
        let word = u32::from_be_bytes(bytes);
        Sum(self.0 + (word >> 16) + (word & 0xFFFF))
    }

    #[inline(always)]
    /// Eight bytes.
    #[must_use]
    pub fn eight(self, bytes: [u8; 8]) -> Self {
        let word = u64::from_be_bytes(bytes);
        self.four(((word >> 32) as u32).to_be_bytes())
            .four((word as u32).to_be_bytes())
    }

    #[inline(always)]
    /// Sixteen bytes.
    #[must_use]
    pub fn sixteen(self, bytes: [u8; 16]) -> Self {
        let word = u128::from_be_bytes(bytes);
        self.eight(((word >> 64) as u64).to_be_bytes())
            .eight((word as u64).to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1624() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000.
        assert_eq!(Change::new().word(0x5555, 0x3285).apply(0xDD2F), 0x0000);
    }

    proptest! {
        #[test]
        fn incremental_equals_full(
            mut data in proptest::collection::vec(any::<u8>(), 20..60),
            new: [u8; 8],
        ) {
            // Real headers are never all zero, where the two forms of zero would differ.
            data[0] = 0x45;
            let before = ipv4_header(&data);
            let mut old = [0; 8];
            old.copy_from_slice(&data[8..16]);
            data[8..16].copy_from_slice(&new);
            let full = ipv4_header(&data);
            prop_assert_eq!(Change::new().eight(old, new).apply(before), full);
        }

        #[test]
        fn udp_none_stays_none(old: [u8; 4], new: [u8; 4], sum: u16) {
            let change = Change::new().four(old, new);
            prop_assert_eq!(change.apply_udp(0), 0);
            if sum != 0 {
                prop_assert_ne!(change.apply_udp(sum), 0);
            }
        }
    }
}
