use super::*;

struct Lot {
    parking: Parking,
    umem: Umem,
    now: Instant,
}

impl Lot {
    fn new() -> Self {
        Self {
            parking: Parking::new(),
            umem: Umem::new(4 * FRAMES as u32).unwrap(),
            now: Instant::now(),
        }
    }

    /// Says why a frame was not taken, if it was not.
    fn put(&mut self, spi: u32, waits: Waits) -> Option<Counter> {
        let frame = self.umem.take().unwrap();
        let (frame, reason) = self
            .parking
            .put(frame, spi, waits, self.now)
            .err()
            .map(|(frame, reason)| (Some(frame), Some(reason)))
            .unwrap_or_default();
        frame.into_iter().for_each(|frame| self.umem.free(frame));
        reason
    }

    fn put_many(&mut self, count: usize, spi: u32, waits: Waits) -> usize {
        (0..count)
            .filter(|_| self.put(spi, waits).is_none())
            .count()
    }

    fn waiting(&self) -> usize {
        4 * FRAMES - self.umem.free_chunks()
    }
}

#[test]
fn every_bound_holds_and_none_takes_anothers_room() {
    let mut lot = Lot::new();
    let of_session = usize::from(OF_SESSION);
    assert_eq!(lot.put_many(500, 1, Waits::Esp), of_session);
    assert_eq!(lot.put(1, Waits::Inner), Some(Counter::ParkedFull));
    // Of SPIs that nobody knows, however many there are.
    assert_eq!(lot.put_many(50, 2, Waits::Strange), usize::from(OF_STRANGE));
    let strange: usize = (3..900)
        .map(|spi| lot.put_many(2, spi, Waits::Strange))
        .sum();
    assert_eq!(strange + usize::from(OF_STRANGE), STRANGE);
    assert_eq!(lot.put(2, Waits::Strange), Some(Counter::UnknownSpi));
    // Of inner packets, of however many sessions.
    let inner: usize = (1000..1020)
        .map(|spi| lot.put_many(200, spi, Waits::Inner))
        .sum();
    assert_eq!(inner, INNER);
    let left = FRAMES - of_session - STRANGE - INNER;
    let esp: usize = (2000..2010)
        .map(|spi| lot.put_many(200, spi, Waits::Esp))
        .sum();
    assert_eq!(esp, left);
    assert_eq!(lot.put(3000, Waits::Esp), Some(Counter::ParkedFull));
    assert_eq!(lot.waiting(), FRAMES);
    assert!(lot.parking.places.capacity() < 2 * FRAMES);
    lot.parking.clear(&mut lot.umem);
    assert_eq!(lot.waiting(), 0);
    assert!(!lot.parking.waits_for(1) && lot.parking.deadline().is_none());
}

#[test]
fn what_is_late_goes_and_takes_its_reason_along() {
    let mut lot = Lot::new();
    let start = lot.now;
    let at = |ms| start + Duration::from_millis(ms);
    for (ms, waits) in [(0, Waits::Esp), (10, Waits::Strange), (20, Waits::Inner)] {
        lot.now = at(ms);
        lot.put(7, waits);
    }
    assert_eq!(lot.parking.deadline(), Some(at(100)));
    assert!(lot.parking.late(at(99)).is_none());
    let mut late = |ms| {
        let (frame, reason) = lot.parking.late(at(ms))?;
        lot.umem.free(frame);
        Some(reason)
    };
    assert_eq!(late(110), Some(Counter::ParkedLate));
    assert_eq!(late(110), Some(Counter::UnknownSpi));
    assert_eq!(late(110), None);
    assert_eq!(late(500), Some(Counter::ParkedLate));
    assert!(!lot.parking.waits_for(7));
    assert_eq!(lot.waiting(), 0);
}

// What goes on waiting keeps its place and its time.
#[test]
fn what_is_put_back_waits_no_longer_for_it() {
    let mut lot = Lot::new();
    let start = lot.now;
    let at = |ms| start + Duration::from_millis(ms);
    for number in 0..6u64 {
        lot.now = at(number);
        lot.put(1 + number as u32 % 2, Waits::Esp);
    }
    let mut taken = Vec::new();
    let mut next = lot.parking.first(1);
    for turn in 0.. {
        let Some(place) = next else { break };
        next = lot.parking.next(place);
        assert!(lot.parking.take(place, true).is_none(), "no inner packet");
        let (frame, _) = lot.parking.take(place, false).unwrap();
        match turn {
            1 => lot.parking.put_back(place, frame, 1, Waits::Esp).unwrap(),
            _ => {
                lot.parking.vacate(place);
                taken.push(frame);
            }
        }
    }
    assert_eq!((taken.len(), lot.parking.len()), (2, 4));
    let late: Vec<_> = std::iter::from_fn(|| lot.parking.late(at(102))).collect();
    assert_eq!(late.len(), 2);
    assert!(lot.parking.late(at(102)).is_none());
    for frame in taken.into_iter().chain(late.into_iter().map(|(f, _)| f)) {
        lot.umem.free(frame);
    }
}

// The table of those who wait never grows, whatever anybody sends.
#[test]
fn changing_spis_take_no_memory() {
    let mut lot = Lot::new();
    let before = (lot.parking.places.capacity(), lot.parking.of.capacity());
    for round in 0..200u32 {
        for spi in 0..STRANGE as u32 {
            lot.put(round * 1000 + spi, Waits::Strange);
            lot.put(round * 1000 + spi, Waits::Esp);
        }
        lot.now += PATIENCE;
        while let Some((frame, _)) = lot.parking.late(lot.now) {
            lot.umem.free(frame);
        }
    }
    let after = (lot.parking.places.capacity(), lot.parking.of.capacity());
    assert_eq!(before, after);
}

// What is put back for another session waits with that one's, and its place is found again.
#[test]
fn what_is_put_back_for_another_session_is_found_there() {
    let mut lot = Lot::new();
    for spi in [1, 2, 1] {
        lot.put(spi, Waits::Inner);
    }
    let place = lot.parking.first(1).unwrap();
    let next = lot.parking.next(place);
    let (frame, waits) = lot.parking.take(place, true).unwrap();
    lot.parking.put_back(place, frame, 2, waits).unwrap();
    assert_eq!(lot.parking.first(1), next);
    let first = lot.parking.first(2).unwrap();
    assert_eq!(lot.parking.next(first), Some(place));
    assert_eq!(lot.parking.next(place), None);
    // The oldest of all is still the first to be late.
    let mut late = 0;
    while let Some((frame, _)) = lot.parking.late(lot.now + PATIENCE) {
        lot.umem.free(frame);
        late += 1;
    }
    assert_eq!((late, lot.parking.len(), lot.waiting()), (3, 0, 0));
    assert!([1, 2].iter().all(|spi| !lot.parking.waits_for(*spi)));
    assert!(lot.parking.of.is_empty());
}
