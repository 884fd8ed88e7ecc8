//! Runs that follow from seeds, on all cores.

use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said how far a search is.
const SAYS: Duration = Duration::from_secs(30);

/// Runs seed after seed until one fails, or `enough` says so once a run was added to the sum.
///
/// # Errors
/// The first that failed, as `run` tells of it.
pub(crate) fn search<S: Default + Send, R, F: Send>(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<R, F> + Sync,
    enough: impl Fn(&mut S, &R) -> bool + Sync,
) -> Result<S, F> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let sum = Mutex::new(S::default());
    let found = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed) {
                Ok(report) => {
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    if enough(&mut sum, &report) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                Err(broken) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.get_or_insert(broken);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(broken) => Err(broken),
        None => Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Says on standard output how far a search is, now and then.
pub struct Progress {
    start: Instant,
    said: Mutex<Instant>,
}

impl Progress {
    #[must_use]
    pub fn begin() -> Self {
        let start = Instant::now();
        Self {
            start,
            said: Mutex::new(start),
        }
    }

    /// Since the beginning.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub fn tell(&self, sum: &impl Display) {
        let Ok(mut said) = self.said.lock() else {
            return;
        };
        if said.elapsed() > SAYS {
            *said = Instant::now();
            println!("{:.0} s: {sum}", self.seconds());
        }
    }
}
