//! What is to happen, in the order of its time. What is due at the same time happens in the order in
//! which it was put down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The heap has only what is compared: entries are moved often.
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    entries: Vec<Option<T>>,
    free: Vec<usize>,
    order: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Agenda<T> {
        Agenda {
            heap: BinaryHeap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            order: 0,
        }
    }

    pub(super) fn put(&mut self, at: Duration, what: T) {
        self.order += 1;
        let slot = self.free.pop().unwrap_or(self.entries.len());
        match self.entries.get_mut(slot) {
            Some(entry) => *entry = Some(what),
            None => self.entries.push(Some(what)),
        }
        self.heap.push(Reverse((at, self.order, slot)));
    }

    /// The first thing that is due until then, and its time.
    pub(super) fn take(&mut self, until: Duration) -> Option<(Duration, T)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > until {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.entries.get_mut(slot)?.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_their_order() {
        let ms = Duration::from_millis;
        let mut agenda = Agenda::new();
        for (at, what) in [(3, 'c'), (1, 'a'), (1, 'b')] {
            agenda.put(ms(at), what);
        }
        assert_eq!(agenda.take(ms(0)), None);
        assert_eq!(agenda.take(ms(2)), Some((ms(1), 'a')));
        agenda.put(ms(1), 'd');
        assert_eq!(agenda.take(ms(2)), Some((ms(1), 'b')));
        assert_eq!(agenda.take(ms(2)), Some((ms(1), 'd')));
        assert_eq!(agenda.take(ms(2)), None);
        assert_eq!(agenda.take(ms(3)), Some((ms(3), 'c')));
    }
}
