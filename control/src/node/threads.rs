//! Threads for the key exchange: a herd of clients is served on several cores, while the node's core
//! decides.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::ike::{Job, Spread};

/// Datagrams taken at once for each thread. A thread needs about a quarter of a millisecond for one,
/// and all else that the core has to do waits so long.
const EACH: usize = 8;

/// The core's own thread and others, if there are any.
pub struct Threads(Option<ThreadPool>);

impl Threads {
    /// So many threads in all, that of the caller among them.
    ///
    /// # Errors
    /// If the system has none to give.
    pub fn new(count: usize) -> Result<Self> {
        if count <= 1 {
            return Ok(Self(None));
        }
        let name = |number| format!("ike-{number}");
        let pool = ThreadPoolBuilder::new()
            .num_threads(count - 1)
            .thread_name(name)
            .start_handler(|_| crate::privilege::drop_capabilities())
            .build();
        let pool = pool.with_context(|| format!("{count} threads for IKE can not be had"))?;
        Ok(Self(Some(pool)))
    }

    /// So many datagrams at once keep all of them busy, and the core not for long.
    pub fn batch(&self) -> usize {
        EACH * (1 + self.0.as_ref().map_or(0, ThreadPool::current_num_threads))
    }
}

impl Spread for Threads {
    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        let Some(pool) = &self.0 else {
            return jobs.into_iter().for_each(|job| job());
        };
        // The caller takes part: it has a core already, while one of several that are woken at once
        // may have to wait for the other's.
        let jobs = Mutex::new(jobs.into_iter());
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || std::iter::from_fn(next).for_each(|job| job());
        pool.in_place_scope(|scope| {
            for _ in 0..pool.current_num_threads() {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_once() {
        for count in [1, 3] {
            let threads = Threads::new(count).unwrap();
            assert_eq!(threads.batch(), 8 * count);
            let done: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            let jobs = done.iter().map(|at| -> Job<'_> {
                Box::new(move || {
                    at.fetch_add(1, Ordering::Relaxed);
                })
            });
            threads.run(jobs.collect());
            assert!(done.iter().all(|at| at.load(Ordering::Relaxed) == 1));
        }
    }
}
