//! Longest prefix match over a table that never changes: the prefixes are flattened into disjoint
//! ranges when it is built, so a look-up is one binary search, whatever the lengths.

/// An address as a number: `u32` for IPv4, `u128` for IPv6.
pub trait Key: Copy + Ord {
    /// Bits in an address.
    const BITS: u8;
    /// The highest address of the prefix that begins at `self`; `length`: 0 to [`Self::BITS`].
    #[must_use]
    fn last(self, length: u8) -> Self;
    /// The next address, `None` after the highest.
    #[must_use]
    fn next(self) -> Option<Self>;
    /// `self` with all bits after `length` cleared.
    #[must_use]
    fn first(self, length: u8) -> Self;
}

macro_rules! key {
    ($type:ty) => {
        impl Key for $type {
            const BITS: u8 = <$type>::BITS as u8;
            fn last(self, length: u8) -> Self {
                self | <$type>::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn first(self, length: u8) -> Self {
                self & !<$type>::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }
        }
    };
}
key!(u32);
key!(u128);

/// The flattened table. `V` is small: it is copied out of each look-up.
#[derive(Debug, Clone)]
pub struct Ranges<K, V> {
    /// Where each range begins, ascending; it ends before the next.
    starts: Vec<K>,
    values: Vec<Option<V>>,
}

impl<K, V> Default for Ranges<K, V> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<K: Key, V: Copy + PartialEq> Ranges<K, V> {
    /// Flattens `(prefix, length, value)`. Bits after `length` are ignored, lengths capped at
    /// [`Key::BITS`]. `None` as value makes a hole. Of two equal prefixes the last one counts.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = (K, u8, Option<V>)>) -> Self {
        let mut sorted: Vec<_> = prefixes
            .into_iter()
            .map(|(prefix, length, value)| (prefix.first(length), length.min(K::BITS), value))
            .collect();
        // Stable, so that of equal prefixes the last stays last and overwrites.
        sorted.sort_by_key(|(prefix, length, _)| (*prefix, *length));
        let mut table = Self::default();
        // The prefixes around the current place, the innermost on top.
        let mut around: Vec<(K, Option<V>)> = Vec::new();
        for (prefix, length, value) in sorted {
            table.leave(&mut around, Some(prefix));
            table.push(prefix, value);
            around.push((prefix.last(length), value));
        }
        table.leave(&mut around, None);
        table
    }

    /// Leaves the prefixes that end before `until`; behind each, the one around it holds again.
    fn leave(&mut self, around: &mut Vec<(K, Option<V>)>, until: Option<K>) {
        while let Some((end, _)) = around.last().copied() {
            if until.is_some_and(|until| end >= until) {
                return;
            }
            around.pop();
            let Some(next) = end.next() else { continue };
            // A surrounding prefix that ends at the same place is left in the next turn.
            self.push(next, around.last().and_then(|(_, value)| *value));
        }
    }

    fn push(&mut self, start: K, value: Option<V>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last().copied().flatten() != value || self.values.is_empty() {
            self.starts.push(start);
            self.values.push(value);
        }
    }

    /// The value of the longest prefix that contains `key`. No allocation, O(log n).
    #[must_use]
    pub fn get(&self, key: K) -> Option<V> {
        let after = self.starts.partition_point(|start| *start <= key);
        self.values.get(after.checked_sub(1)?).copied().flatten()
    }

    /// This table where it has a value, `below` elsewhere.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        let mut starts = [self.starts.as_slice(), below.starts.as_slice()].concat();
        starts.sort_unstable();
        let mut table = Self::default();
        for start in starts {
            table.push(start, self.get(start).or_else(|| below.get(start)));
        }
        table
    }

    /// How many ranges the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Prefix = (u32, u8, Option<u16>);

    /// The definition, without any cleverness.
    fn slow(prefixes: &[Prefix], key: u32) -> Option<u16> {
        let holds = |(prefix, length, _): &&Prefix| key.first(*length) == prefix.first(*length);
        let longest = prefixes
            .iter()
            .filter(holds)
            .max_by_key(|(_, length, _)| *length);
        longest.and_then(|(_, _, value)| *value)
    }

    #[test]
    fn nested_adjacent_and_whole() {
        let table = Ranges::<u32, u8>::new([
            (0x0a000000, 8, Some(1)),
            (0x0a0000ff, 24, Some(2)),
            (0x0a0000ff, 32, Some(3)),
            (0x0a010000, 16, None),
            (0, 0, Some(0)),
        ]);
        for (key, expected) in [
            (0, Some(0)),
            (0x0a000000, Some(2)),
            (0x0a0000fe, Some(2)),
            (0x0a0000ff, Some(3)),
            (0x0a000100, Some(1)),
            (0x0a01ffff, None),
            (0x0a020000, Some(1)),
            (0x0b000000, Some(0)),
            (u32::MAX, Some(0)),
        ] {
            assert_eq!(table.get(key), expected, "{key:#x}");
        }
        assert_eq!(Ranges::<u128, u8>::new([(7, 128, Some(1))]).get(7), Some(1));
        assert_eq!(
            Ranges::<u128, u8>::new([(u128::MAX, 200, Some(1))]).get(u128::MAX),
            Some(1)
        );
        assert_eq!(Ranges::<u32, u8>::default().get(7), None);
    }

    fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
        // Few distinct bits, so that prefixes nest and touch.
        let prefix = (0u32..32, 0u8..=32, proptest::option::of(0u16..50));
        proptest::collection::vec(prefix, 0..40).prop_map(|all| {
            all.into_iter()
                .map(|(bits, length, v)| (bits.rotate_right(bits % 7), length, v))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn equals_the_definition(prefixes in prefixes(), keys: Vec<u32>) {
            let table = Ranges::new(prefixes.iter().copied());
            let edges = prefixes.iter().flat_map(|(p, l, _)| {
                [p.first(*l), p.last(*l), p.first(*l).wrapping_sub(1), p.last(*l).wrapping_add(1)]
            });
            for key in keys.into_iter().chain(edges) {
                prop_assert_eq!(table.get(key), slow(&prefixes, key), "{:#x}", key);
            }
            prop_assert!(table.starts.is_sorted());
        }

        #[test]
        fn one_table_over_another(above in prefixes(), below in prefixes(), keys: Vec<u32>) {
            let (a, b) = (Ranges::new(above.iter().copied()), Ranges::new(below.iter().copied()));
            let both = a.over(&b);
            let edges = above.iter().chain(&below).flat_map(|(p, l, _)| [p.first(*l), p.last(*l)]);
            for key in keys.into_iter().chain(edges) {
                prop_assert_eq!(both.get(key), a.get(key).or(b.get(key)));
            }
        }
    }
}
