//! The four rings of an AF_XDP socket: shared memory with the kernel, one producer and one
//! consumer each.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use crate::sync::{AtomicU32, Ordering};

/// Memory of the kernel in our address space; unmapped when dropped.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(fd: RawFd, page: i64, length: usize) -> io::Result<Self> {
        // SAFETY: maps kernel memory at an address of the kernel's choice; checked below.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd,
                page,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.length);
        }
    }
}

/// A ring: entries of type `T`, a producer and a consumer index, and where in memory they lie.
pub(super) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// What it lies in, unless that is somebody else's.
    _memory: Option<Mapping>,
}

impl<T> Ring<T> {
    /// Maps ring `page` of socket `fd` with `size` entries, a power of two.
    fn map(fd: RawFd, page: i64, offset: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let length = offset.desc as usize + size as usize * size_of::<T>();
        let memory = Mapping::new(fd, page, length)?;
        // SAFETY: the kernel says by XDP_MMAP_OFFSETS where its indices and entries lie in a
        // mapping of this length; they are aligned for their types. The ring holds the mapping.
        let mut ring = unsafe { Self::at(memory.base, offset, size) };
        ring._memory = Some(memory);
        Ok(ring)
    }

    /// The ring in the memory at `base`.
    ///
    /// # Safety
    /// The indices and `size` entries must lie at these offsets, aligned, in memory that outlives the
    /// ring; `size` must be a power of two. The other side touches the memory only as the protocol of
    /// the rings allows.
    pub(super) unsafe fn at(base: NonNull<u8>, offset: &libc::xdp_ring_offset, size: u32) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                producer: base.add(offset.producer as usize).cast(),
                consumer: base.add(offset.consumer as usize).cast(),
                flags: base.add(offset.flags as usize).cast(),
                entries: base.add(offset.desc as usize).cast(),
                size,
                _memory: None,
            }
        }
    }

    fn index(&self, which: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: points into memory that outlives `self`; the other side accesses it atomically
        // too.
        unsafe { which.as_ref() }
    }

    fn entry(&self, position: u32) -> *mut T {
        // SAFETY: the mask keeps the position below `size`, a power of two.
        unsafe {
            self.entries
                .as_ptr()
                .add((position & (self.size - 1)) as usize)
        }
    }

    /// Whether the kernel asks to be woken (`XDP_RING_NEED_WAKEUP`).
    fn needs_wakeup(&self) -> bool {
        self.index(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that we fill: fill ring and transmit ring.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    next: u32,
    consumed: u32,
}

/// A ring that the kernel fills: receive ring and completion ring.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
    produced: u32,
}

// SAFETY: a ring has one user on our side; moving it to another thread moves that role.
unsafe impl<T: Send> Send for Producer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Producer<T> {
    pub(super) fn new(
        fd: RawFd,
        page: i64,
        offset: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::over(Ring::map(fd, page, offset, size)?, 0))
    }

    /// Of a ring that has carried so many entries.
    pub(super) fn over(ring: Ring<T>, carried: u32) -> Self {
        Self {
            ring,
            next: carried,
            consumed: carried,
        }
    }

    /// How many entries can be pushed now.
    pub(super) fn room(&mut self) -> u32 {
        let room = self.ring.size - self.next.wrapping_sub(self.consumed);
        if room > 0 {
            return room;
        }
        // Acquire: the kernel is done with the entries that it has consumed.
        self.consumed = self.ring.index(self.ring.consumer).load(Ordering::Acquire);
        self.ring.size - self.next.wrapping_sub(self.consumed)
    }

    /// Puts an entry into the ring, or gives it back when there is no room. Visible to the kernel
    /// only after [`Self::submit`].
    pub(super) fn push(&mut self, entry: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(entry);
        }
        // SAFETY: `room` says that the kernel has given this entry back; `entry` masks.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Shows the pushed entries to the kernel.
    pub(super) fn submit(&mut self) {
        self.ring
            .index(self.ring.producer)
            .store(self.next, Ordering::Release);
    }

    /// How many submitted entries the kernel has not consumed yet.
    pub(super) fn pending(&mut self) -> u32 {
        self.consumed = self.ring.index(self.ring.consumer).load(Ordering::Acquire);
        self.next.wrapping_sub(self.consumed)
    }

    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

impl<T: Copy> Consumer<T> {
    pub(super) fn new(
        fd: RawFd,
        page: i64,
        offset: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::over(Ring::map(fd, page, offset, size)?, 0))
    }

    /// Of a ring that has carried so many entries.
    pub(super) fn over(ring: Ring<T>, carried: u32) -> Self {
        Self {
            ring,
            next: carried,
            produced: carried,
        }
    }

    /// Takes the next entry out of the ring. The kernel may use its place only after
    /// [`Self::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            // Acquire: entries up to the producer index have been written.
            self.produced = self.ring.index(self.ring.producer).load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: the kernel has produced this entry; `entry` masks.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of the popped entries back to the kernel.
    pub(super) fn release(&mut self) {
        self.ring
            .index(self.ring.consumer)
            .store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
