//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::{Ipv4Addr, Ipv6Addr};

/// Adds `bytes` to a running one's complement sum; an odd last byte is padded with a zero.
fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    // The sum is the same in any byte order (RFC 1071 section 2 (B)): four bytes at once, as the
    // processor has them, leave it room for doing several at a time.
    let mut wide = bytes.chunks_exact(4);
    let native: u64 = wide
        .by_ref()
        .filter_map(|four| four.try_into().ok())
        .map(|four| u64::from(u32::from_ne_bytes(four)))
        .sum();
    sum += u64::from(u16::from_be(fold(native)));
    let mut words = wide.remainder().chunks_exact(2);
    for word in words.by_ref() {
        if let [high, low] = word {
            sum += u64::from(u16::from_be_bytes([*high, *low]));
        }
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    sum
}

/// Folds a sum into 16 bits, without the final complement.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Cannot fail: the loop left no more than 16 bits.
    u16::try_from(sum).unwrap_or(0)
}

/// Checksum of `bytes` (RFC 1071). Zero if a correct checksum is already among them.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(add(0, bytes))
}

/// Sum of the IPv4 pseudo header alone, as checksum offload wants it in the checksum field. `length` of the
/// segment: at most 65,535.
#[must_use]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u16 {
    let sum = add(add(0, &source.octets()), &destination.octets());
    fold(sum + u64::from(protocol) + length as u64)
}

/// The same of IPv6.
#[must_use]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, length: usize) -> u16 {
    let sum = add(add(0, &source.octets()), &destination.octets());
    fold(sum + u64::from(next_header) + length as u64)
}

/// Checksum of `segment` with the IPv4 pseudo header (RFC 9293 section 3.1).
#[must_use]
pub fn transport_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    let mut sum = add(add(0, &source.octets()), &destination.octets());
    sum += u64::from(protocol) + segment.len() as u64;
    !fold(add(sum, segment))
}

/// Checksum of `segment` with the IPv6 pseudo header (RFC 8200 section 8.1).
#[must_use]
pub fn transport_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    segment: &[u8],
) -> u16 {
    let mut sum = add(add(0, &source.octets()), &destination.octets());
    let length = segment.len() as u64;
    sum += u64::from(next_header) + (length & 0xffff) + (length >> 16);
    !fold(add(sum, segment))
}

/// The checksum after one 16-bit word of the covered data went from `old` to `new`
/// (RFC 1624 equation 3). A word that starts at an odd offset must be given byte-swapped.
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: 0xDD2F, 0x5555 replaced by 0x3285 gives 0x0000 and never 0xFFFF.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn wide_words_sum_as_narrow_ones(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0u64..1 << 32) {
            let mut narrow = start;
            for pair in bytes.chunks(2) {
                narrow += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
            // Both spellings of zero are the same sum.
            let (wide, narrow) = (fold(add(start, &bytes)), fold(narrow));
            prop_assert!(wide == narrow || wide % 0xffff == narrow % 0xffff);
        }

        #[test]
        fn an_update_equals_a_fresh_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..200),
            at in any::<usize>(),
            new in any::<u16>(),
        ) {
            let words = bytes.len() / 2;
            let at = at % words * 2;
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            // Both spellings of zero are the same sum; all-zero data is the one case they differ.
            if bytes.iter().any(|b| *b != 0) {
                prop_assert_eq!(update(before, old, new), checksum(&bytes));
            }
        }
    }
}
