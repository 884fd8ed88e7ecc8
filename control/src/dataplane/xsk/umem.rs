//! The frame memory of a worker and the tokens that own its chunks.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{CHUNK, HEADROOM};

/// Owns one chunk of a [`Umem`], and says where in it the packet lies.
///
/// Neither `Clone` nor `Copy`: whoever holds the token has the chunk to itself. A token that is
/// dropped is a chunk lost until the worker ends, so every path hands it on or frees it.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost; free it or hand it on"]
pub struct Frame {
    chunk: u32,
    start: u16,
    end: u16,
}

impl Frame {
    /// Where the packet lies within the chunk.
    pub fn range(&self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }

    /// Says where the packet lies now.
    ///
    /// # Panics
    /// If the range is not within a chunk: that is an error of ours, never of the network.
    pub fn set_range(&mut self, range: Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= CHUNK,
            "{range:?} is not within a chunk"
        );
        self.start = range.start as u16;
        self.end = range.end as u16;
    }

    /// Length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Address of the packet's first byte for a descriptor.
    pub(super) fn address(&self) -> u64 {
        u64::from(self.chunk) * CHUNK as u64 + u64::from(self.start)
    }
}

/// The mapping, for as long as anybody has chunks of it.
#[derive(Debug)]
struct Area {
    first: NonNull<u8>,
    chunks: u32,
}

// SAFETY: a private anonymous mapping without a thread of its own; what lies in it is reached through
// the tokens of a [`Umem`] only, and each of those is in one place.
unsafe impl Send for Area {}
// SAFETY: as above; the value itself is never changed after it was made.
unsafe impl Sync for Area {}

impl Area {
    fn length(&self) -> usize {
        self.chunks as usize * CHUNK
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `Umem::new`, of which nobody has a chunk any more; sockets that used
        // it keep their own reference to the pages, so unmapping ours is sound in any order.
        unsafe {
            libc::munmap(self.first.as_ptr().cast(), self.length());
        }
    }
}

/// The memory that the sockets of all workers share, cut into chunks of [`CHUNK`] bytes, and those of
/// them that are free and belong to one worker.
#[derive(Debug)]
pub struct Umem {
    area: Arc<Area>,
    /// Start of the area.
    first: NonNull<u8>,
    chunks: u32,
    free: Vec<u32>,
    /// Chunks that this worker began with.
    own: usize,
}

// SAFETY: chunks are reached through `&mut self` and a token; tokens are unique over all that share the
// area, wherever they go, and so moving the value moves the right to its free chunks with it.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps memory for `chunks` frames.
    pub fn new(chunks: u32) -> io::Result<Self> {
        let length = chunks as usize * CHUNK;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of
        // ours; the result is checked below.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Huge pages spare the TLB, and a process that is killed gives them back in no time: while
        // small ones are freed one by one, its XDP programs still answer heartbeats. What lies here
        // is cleartext, so it stays out of core dumps. Only advice: without it all works too.
        let advice = [
            libc::MADV_HUGEPAGE,
            libc::MADV_DONTDUMP,
            libc::MADV_POPULATE_WRITE,
        ];
        // Miri has no memory to advise on.
        for advice in advice.into_iter().filter(|_| !cfg!(miri)) {
            // SAFETY: the mapping just made, which nobody uses yet.
            unsafe { libc::madvise(area, length, advice) };
        }
        let first = NonNull::new(area.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            area: Arc::new(Area { first, chunks }),
            first,
            chunks,
            free: (0..chunks).rev().collect(),
            own: chunks as usize,
        })
    }

    /// Shares the free chunks out to so many workers, one at least; each may take in the tokens of all.
    #[must_use]
    pub fn split(mut self, workers: usize) -> Vec<Self> {
        let workers = workers.max(1);
        let share = self.free.len() / workers;
        let taken = self.chunks as usize - self.free.len();
        let mut parts: Vec<Self> = (1..workers)
            .map(|_| {
                let free = self.free.split_off(self.free.len() - share);
                // The list grows when others hand their chunks over.
                let mut roomy = Vec::with_capacity(self.chunks as usize);
                roomy.extend(free);
                Self {
                    area: Arc::clone(&self.area),
                    first: self.first,
                    chunks: self.chunks,
                    free: roomy,
                    own: share + taken / workers,
                }
            })
            .collect();
        self.own -= parts.iter().map(|part| part.own).sum::<usize>();
        parts.insert(0, self);
        parts
    }

    pub(super) fn address(&self) -> u64 {
        self.first.as_ptr() as u64
    }

    pub(super) fn length(&self) -> u64 {
        self.area.length() as u64
    }

    /// How many chunks the worker began with.
    pub fn chunks(&self) -> usize {
        self.own
    }

    /// How many chunks are free.
    pub fn free_chunks(&self) -> usize {
        self.free.len()
    }

    /// Takes a free chunk; the packet is empty and starts at [`HEADROOM`].
    pub fn take(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        Some(Frame {
            chunk,
            start: HEADROOM as u16,
            end: HEADROOM as u16,
        })
    }

    /// Gives a chunk back.
    pub fn free(&mut self, frame: Frame) {
        self.free.push(frame.chunk);
    }

    /// Makes the token for a descriptor that the kernel gave back, or none if the descriptor is
    /// not within the memory (which no sound kernel does).
    ///
    /// The caller vouches that the kernel gave the chunk away: rings do, after consuming it.
    pub(super) fn frame_at(&self, address: u64, length: u32) -> Option<Frame> {
        let chunk = u32::try_from(address / CHUNK as u64)
            .ok()
            .filter(|c| *c < self.chunks)?;
        let start = (address % CHUNK as u64) as usize;
        let end = start
            .checked_add(length as usize)
            .filter(|end| *end <= CHUNK)?;
        Some(Frame {
            chunk,
            start: start as u16,
            end: end as u16,
        })
    }

    /// The whole chunk of a frame, head- and tailroom included.
    pub fn chunk_mut(&mut self, frame: &Frame) -> &mut [u8] {
        // SAFETY: `chunk < chunks` for every token (see `take` and `frame_at`), so the range is
        // within the mapping; the token is unique and `&mut self` excludes another slice.
        unsafe {
            let first = self.first.as_ptr().add(frame.chunk as usize * CHUNK);
            std::slice::from_raw_parts_mut(first, CHUNK)
        }
    }

    /// The bytes of a frame's packet.
    pub fn packet(&mut self, frame: &Frame) -> &mut [u8] {
        let range = frame.range();
        &mut self.chunk_mut(frame)[range]
    }

    /// The whole chunk of a frame, to read; several frames' at once.
    pub fn chunk(&self, frame: &Frame) -> &[u8] {
        // SAFETY: as in `chunk_mut`; `&self` excludes a slice to write, and whoever else could write
        // there, the kernel, has given the chunk away with its token.
        unsafe {
            let first = self.first.as_ptr().add(frame.chunk as usize * CHUNK);
            std::slice::from_raw_parts(first, CHUNK)
        }
    }

    /// The bytes of a frame's packet, to read.
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        &self.chunk(frame)[frame.range()]
    }

    /// The chunks of several frames at once, from byte `from` of each on.
    pub fn tails<'a>(
        &'a mut self,
        frames: &'a [Frame],
        from: usize,
    ) -> impl Iterator<Item = &'a mut [u8]> + 'a {
        let first = self.first;
        frames.iter().map(move |frame| {
            // SAFETY: as in `chunk_mut`; the tokens are distinct values, so their chunks differ
            // and the slices do not overlap; `&mut self` is held for as long as they live.
            let chunk = unsafe {
                let first = first.as_ptr().add(frame.chunk as usize * CHUNK);
                std::slice::from_raw_parts_mut(first, CHUNK)
            };
            &mut chunk[from..]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unique_and_come_back() {
        let mut umem = Umem::new(4).unwrap();
        let frames: Vec<Frame> = std::iter::from_fn(|| umem.take()).collect();
        assert_eq!(frames.len(), 4);
        assert_eq!(umem.free_chunks(), 0);
        for (i, slice) in umem.tails(&frames, 0).enumerate() {
            slice.fill(i as u8);
        }
        for (i, mut frame) in frames.into_iter().enumerate() {
            frame.set_range(0..CHUNK);
            assert!(umem.packet(&frame).iter().all(|b| *b == i as u8));
            umem.free(frame);
        }
        assert_eq!(umem.free_chunks(), 4);
    }

    #[test]
    fn workers_share_the_memory_and_hand_chunks_over() {
        let mut parts = Umem::new(7).unwrap().split(2);
        let [mut second, mut first] = [parts.pop().unwrap(), parts.pop().unwrap()];
        assert_eq!((first.free_chunks(), second.free_chunks()), (4, 3));
        assert_eq!((first.chunks(), second.chunks()), (4, 3));
        let mut frame = first.take().unwrap();
        frame.set_range(0..4);
        first.packet(&frame).copy_from_slice(b"over");
        drop(first);
        let thread = std::thread::spawn(move || {
            assert_eq!(second.bytes(&frame), b"over");
            second.free(frame);
            second.free_chunks()
        });
        assert_eq!(thread.join().unwrap(), 4);
    }

    #[test]
    fn a_descriptor_outside_the_memory_makes_no_token() {
        let umem = Umem::new(2).unwrap();
        assert!(umem.frame_at(CHUNK as u64 * 2, 1).is_none());
        assert!(umem.frame_at(CHUNK as u64 - 1, 2).is_none());
        assert!(umem.frame_at(u64::MAX, u32::MAX).is_none());
        assert_eq!(umem.frame_at(CHUNK as u64 + 7, 9).unwrap().range(), 7..16);
    }
}
