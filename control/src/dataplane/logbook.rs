//! How far shared sessions have come, in memory that outlives the process: a worker writes each inbound number
//! there before the packet that had it goes on. Whoever else has the file can read it once the process is dead.
//!
//! The file is a sequence of 64-bit words in the machine's byte order: [`FORM`], the run, how many pages there
//! are, and the pages, of two words each: the inbound SPI (upper half) and the term (lower half), or zero if the
//! page is free; and the highest inbound number accepted.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Pages of a logbook: tenures that it has room for at a time.
pub const MOST: usize = 1 << 18;

/// Marks the file, and the form of what is in it.
const FORM: u64 = u64::from_be_bytes(*b"evglog01");

/// Words before the first page, and of a page.
const HEAD: usize = 3;
const PAGE: usize = 2;

const WORD: usize = size_of::<u64>();
const LENGTH: usize = (HEAD + PAGE * MOST) * WORD;

/// The writer's side.
#[derive(Debug)]
pub struct Logbook {
    words: NonNull<u8>,
    run: u64,
    pages: Mutex<Pages>,
}

// SAFETY: the words are atomic and are mapped until the value is dropped; the rest is Send.
unsafe impl Send for Logbook {}
// SAFETY: as above; nothing is reached by a shared reference but atomic words and what a mutex has.
unsafe impl Sync for Logbook {}

#[derive(Debug, Default)]
struct Pages {
    /// How many there have been at a time.
    used: usize,
    free: Vec<u32>,
}

impl Logbook {
    /// An empty one, and the file that it is in. It takes memory as it fills.
    ///
    /// # Errors
    /// The kernel has no such memory.
    pub fn create(run: u64) -> io::Result<(Arc<Self>, File)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(c"evergate-logbook", flags)?;
        ftruncate(&file, LENGTH as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (access, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. The file is as long
        // as the mapping, and sealed so that it stays that long.
        let words = unsafe {
            mmap(
                std::ptr::null_mut(),
                LENGTH,
                access,
                shared,
                file.as_fd(),
                0,
            )
        };
        let words = NonNull::new(words?.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let logbook = Self {
            words,
            run,
            pages: Mutex::default(),
        };
        logbook.word(0).store(FORM, Ordering::Release);
        logbook.word(1).store(run, Ordering::Release);
        Ok((Arc::new(logbook), file.into()))
    }

    /// The run that it is about.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Begins a page for a tenure that has accepted numbers up to `top`. None: too many are in use.
    pub(super) fn open(self: &Arc<Self>, spi: u32, term: u32, top: u64) -> Option<Page> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match pages.free.pop() {
            Some(number) => number,
            None if pages.used < MOST => {
                pages.used += 1;
                self.word(2).store(pages.used as u64, Ordering::Release);
                (pages.used - 1) as u32
            }
            None => return None,
        };
        let page = Page {
            logbook: Arc::clone(self),
            number,
        };
        page.note(top);
        // Last, so that it never has another tenure's number.
        page.key().store(key(spi, term), Ordering::Release);
        Some(page)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < LENGTH / WORD, "a word of the logbook");
        // SAFETY: within the mapping, which lives as long as `self`, begins at a page of memory and is therefore
        // aligned for words; all who reach it reach it as an atomic.
        unsafe { AtomicU64::from_ptr(self.words.as_ptr().cast::<u64>().add(index)) }
    }
}

impl Drop for Logbook {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `create`, into which no reference outlives `self`.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), LENGTH) };
    }
}

/// Where a tenure writes, as long as it lasts.
#[derive(Debug)]
pub(super) struct Page {
    logbook: Arc<Logbook>,
    number: u32,
}

impl Page {
    fn at(&self) -> usize {
        HEAD + PAGE * self.number as usize
    }

    fn key(&self) -> &AtomicU64 {
        self.logbook.word(self.at())
    }

    /// Numbers up to this one may have been accepted from now on.
    #[inline]
    pub(super) fn note(&self, top: u64) {
        self.logbook
            .word(self.at() + 1)
            .store(top, Ordering::Release);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.key().store(0, Ordering::Release);
        let pages = self.logbook.pages.lock();
        pages
            .unwrap_or_else(PoisonError::into_inner)
            .free
            .push(self.number);
    }
}

fn key(spi: u32, term: u32) -> u64 {
    u64::from(spi) << 32 | u64::from(term)
}

/// What is on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inbound SPI.
    pub spi: u32,
    pub term: u32,
    /// The highest inbound number accepted.
    pub top: u64,
}

/// What a process that is dead has left in this file.
///
/// # Errors
/// It can not be read, or is no logbook.
pub fn read(file: &File) -> io::Result<(u64, Vec<Entry>)> {
    let mut head = [0; HEAD * WORD];
    file.read_exact_at(&mut head, 0)?;
    let mut words = words(&head);
    let mut next = || words.next().unwrap_or_default();
    let (form, run, used) = (next(), next(), next());
    if form != FORM {
        let found = format!("found {form:#x}, expected the mark of a logbook");
        return Err(io::Error::new(io::ErrorKind::InvalidData, found));
    }
    let mut pages = vec![0; MOST.min(used as usize) * PAGE * WORD];
    file.read_exact_at(&mut pages, head.len() as u64)?;
    let mut words = self::words(&pages);
    let mut entries = Vec::new();
    while let (Some(key), Some(top)) = (words.next(), words.next()) {
        if key != 0 {
            let (spi, term) = ((key >> 32) as u32, key as u32);
            entries.push(Entry { spi, term, top });
        }
    }
    Ok((run, entries))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(spi: u32, term: u32, top: u64) -> Entry {
        Entry { spi, term, top }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd")]
    fn what_was_noted_last_is_what_is_read() {
        let (logbook, file) = Logbook::create(77).unwrap();
        assert_eq!(read(&file).unwrap(), (77, vec![]));
        let first = logbook.open(0x1000, 3, 40).unwrap();
        let second = logbook.open(u32::MAX, u32::MAX, 0).unwrap();
        first.note(41);
        second.note(u64::MAX);
        let both = vec![entry(0x1000, 3, 41), entry(u32::MAX, u32::MAX, u64::MAX)];
        assert_eq!(read(&file).unwrap(), (77, both));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd")]
    fn a_tenure_that_has_ended_is_not_told_of() {
        let (logbook, file) = Logbook::create(1).unwrap();
        let first = logbook.open(1, 1, 5).unwrap();
        let _second = logbook.open(2, 1, 6).unwrap();
        drop(first);
        assert_eq!(read(&file).unwrap().1, [entry(2, 1, 6)]);
        // Its page is another one's.
        let _third = logbook.open(3, 9, 7).unwrap();
        assert_eq!(read(&file).unwrap().1, [entry(3, 9, 7), entry(2, 1, 6)]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd")]
    fn more_than_there_is_room_for_are_not_told_of() {
        let (logbook, file) = Logbook::create(1).unwrap();
        let pages: Vec<_> = (0..MOST as u32)
            .map_while(|spi| logbook.open(spi + 1, 1, 0))
            .collect();
        assert_eq!(pages.len(), MOST);
        assert!(logbook.open(1, 2, 0).is_none());
        assert_eq!(read(&file).unwrap().1.len(), MOST);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no files of its own here")]
    fn another_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(&file).is_err(), "empty");
        file.write_all_at(&[1; 64], 0).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("0x101010101010101"), "{error}");
    }
}
