//! A ring of AF_XDP between two threads, of which one plays the kernel.

use std::mem::offset_of;
use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::ring::{Consumer, Producer, Ring};
use crate::sync::AtomicU32;

const SIZE: u32 = 2;
/// More than the ring holds, so that places and frames are used again.
const FRAMES: u32 = 3;

/// What the kernel maps for a ring, and the frames that its entries name.
#[repr(C)]
struct Shared {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: [std::cell::UnsafeCell<u32>; SIZE as usize],
    /// loom notices when both sides have one of these at once.
    frames: [UnsafeCell<u32>; SIZE as usize],
}

// SAFETY: entries are accessed by the rings alone, and frames under loom's eyes.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

fn ring(shared: &Arc<Shared>) -> Ring<u32> {
    let offset = libc::xdp_ring_offset {
        producer: offset_of!(Shared, producer) as u64,
        consumer: offset_of!(Shared, consumer) as u64,
        flags: offset_of!(Shared, flags) as u64,
        desc: offset_of!(Shared, entries) as u64,
    };
    // SAFETY: the parts lie at these offsets, and both threads hold the memory as long as their
    // side of the ring; the size is a power of two.
    unsafe { Ring::at(NonNull::from(&**shared).cast(), &offset, SIZE) }
}

/// What is in a frame when it is shown is what the other side finds in it, and it is not touched before it
/// was given back.
pub(crate) fn frames_go_over() {
    let start = u32::MAX;
    let shared = Arc::new(Shared {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        flags: AtomicU32::new(0),
        entries: Default::default(),
        frames: std::array::from_fn(|_| UnsafeCell::new(u32::MAX)),
    });
    let kernel = Arc::clone(&shared);
    let kernel = thread::spawn(move || {
        let mut ring = Consumer::over(ring(&kernel), start);
        for expected in 0..FRAMES {
            let frame = loop {
                match ring.pop() {
                    Some(frame) => break frame,
                    None => thread::yield_now(),
                }
            };
            let cell = &kernel.frames[frame as usize];
            // SAFETY: the entry has given us the frame; loom panics if it has not.
            let found = cell.with(|frame| unsafe { *frame });
            assert_eq!(found, expected);
            ring.release();
        }
    });
    let mut ring = Producer::over(ring(&shared), start);
    for number in 0..FRAMES {
        while ring.room() == 0 {
            thread::yield_now();
        }
        let frame = number % SIZE;
        let cell = &shared.frames[frame as usize];
        // SAFETY: room for an entry means that the frame of the entry before it there was given
        // back; loom panics if it was not.
        cell.with_mut(|frame| unsafe { *frame = number });
        ring.push(frame).expect("there is room");
        ring.submit();
    }
    kernel.join().unwrap();
}
