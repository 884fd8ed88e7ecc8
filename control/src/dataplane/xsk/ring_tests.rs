//! The rings over ordinary memory, with both sides ours: what the kernel does with a ring that we fill is
//! what we do with one that it fills. Miri runs these too (`cargo xtask check-memory`).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// Where the kernel puts things, a cache line each.
const OFFSET: libc::xdp_ring_offset = libc::xdp_ring_offset {
    producer: 0,
    consumer: 64,
    flags: 128,
    desc: 192,
};

/// Memory for one ring.
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: nothing but the address is in it; what lies there is accessed by the rings alone.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Exactly as much as the ring needs: one entry further is foreign memory.
    fn new<T>(size: u32) -> Arc<Self> {
        let length = OFFSET.desc as usize + size as usize * size_of::<T>();
        let layout = Layout::from_size_align(length, 64).unwrap();
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        Arc::new(Self { base, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the rings are gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// One side of a ring, and its hold on the memory.
struct Side<R> {
    ring: R,
    _memory: Arc<Memory>,
}

/// Both sides of a ring of `size` entries that has carried `carried` already.
fn pair<T: Copy>(size: u32, carried: u32) -> (Side<Producer<T>>, Side<Consumer<T>>) {
    let memory = Memory::new::<T>(size);
    // SAFETY: `Memory` has room for the ring at these offsets, and each side holds it.
    let ring = || unsafe { Ring::<T>::at(memory.base, &OFFSET, size) };
    let (ours, theirs) = (ring(), ring());
    for which in [ours.producer, ours.consumer] {
        ours.index(which).store(carried, Ordering::Relaxed);
    }
    let (producer, consumer) = (
        Producer::over(ours, carried),
        Consumer::over(theirs, carried),
    );
    (
        Side {
            ring: producer,
            _memory: Arc::clone(&memory),
        },
        Side {
            ring: consumer,
            _memory: memory,
        },
    )
}

/// Fewer where each step is interpreted.
const STEPS: u32 = if cfg!(miri) { 400 } else { 20_000 };

/// Against a queue: nothing is seen before it is submitted, nothing overwritten before it is released,
/// across the end of the numbers.
#[test]
fn a_ring_is_a_bounded_queue() {
    for size in [1u32, 2, 8] {
        let (mut fill, mut drain) = pair::<(u64, u32)>(size, u32::MAX - 5);
        let (fill, drain) = (&mut fill.ring, &mut drain.ring);
        let mut rng = StdRng::seed_from_u64(size.into());
        let (mut pushed, mut submitted) = (VecDeque::new(), VecDeque::new());
        // Entries that still take up room: popped ones do until they are released.
        let (mut taken, mut room) = (0, size);
        for step in 0..STEPS {
            match rng.random_range(0..5) {
                0 | 1 => {
                    let entry = (u64::from(step) << 40, step);
                    let full = fill.push(entry).is_err();
                    assert_eq!(full, room == 0, "step {step}");
                    if !full {
                        room -= 1;
                        pushed.push_back(entry);
                    }
                }
                2 => {
                    fill.submit();
                    submitted.append(&mut pushed);
                }
                3 => {
                    assert_eq!(drain.pop(), submitted.front().copied(), "step {step}");
                    taken += u32::from(submitted.pop_front().is_some());
                }
                _ => {
                    drain.release();
                    room += std::mem::take(&mut taken);
                    let waiting = u32::try_from(pushed.len() + submitted.len()).unwrap();
                    assert_eq!(fill.pending(), waiting, "step {step}");
                    assert_eq!(fill.room(), room, "step {step}");
                }
            }
        }
    }
}

/// With the other side in another thread: all arrive, whole and in order. Under Miri an index that is
/// stored or loaded too loosely is a data race.
#[test]
fn two_threads_share_a_ring() {
    // Two words that only fit together if both were written before they were shown.
    let (mut fill, mut drain) = pair::<[u64; 2]>(4, u32::MAX - 40);
    let reader = std::thread::spawn(move || {
        let mut next = 0u64;
        while next < u64::from(STEPS) {
            match drain.ring.pop() {
                Some([low, high]) => {
                    assert_eq!([low, high], [next, !next]);
                    next += 1;
                    if next.is_multiple_of(3) {
                        drain.ring.release();
                    }
                }
                None => {
                    drain.ring.release();
                    std::thread::yield_now();
                }
            }
        }
        drain.ring.release();
    });
    let mut next = 0u64;
    while next < u64::from(STEPS) {
        match fill.ring.push([next, !next]) {
            Ok(()) => next += 1,
            Err(_) => std::thread::yield_now(),
        }
        fill.ring.submit();
    }
    reader.join().unwrap();
    assert_eq!(fill.ring.pending(), 0);
}

#[test]
fn the_flag_that_asks_for_a_call_is_read() {
    let (fill, _drain) = pair::<u64>(2, 0);
    assert!(!fill.ring.needs_wakeup());
    let flags = fill.ring.ring.flags;
    fill.ring
        .ring
        .index(flags)
        .store(libc::XDP_RING_NEED_WAKEUP | 2, Ordering::Relaxed);
    assert!(fill.ring.needs_wakeup());
}
