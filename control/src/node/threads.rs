//! Threads for the key exchange: a herd of clients is served on several cores, while the node's core
//! decides.

use anyhow::{Context as _, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::ike::{Job, Spread};

/// Datagrams taken at once for each thread. A thread needs about a quarter of a millisecond for one,
/// and all else that the core has to do waits so long.
const EACH: usize = 8;

/// Threads, or none: then the core does it all by itself.
pub(super) struct Threads(Option<ThreadPool>);

impl Threads {
    /// With one thread the core does the work.
    pub(super) fn new(count: usize) -> Result<Self> {
        if count <= 1 {
            return Ok(Self(None));
        }
        let name = |number| format!("ike-{number}");
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(name)
            .build();
        let pool = pool.with_context(|| format!("{count} threads for IKE can not be had"))?;
        Ok(Self(Some(pool)))
    }

    /// So many datagrams at once keep all of them busy, and the core not for long.
    pub(super) fn batch(&self) -> usize {
        EACH * self.0.as_ref().map_or(1, ThreadPool::current_num_threads)
    }
}

impl Spread for Threads {
    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        let Some(pool) = &self.0 else {
            return jobs.into_iter().for_each(|job| job());
        };
        pool.scope(|scope| {
            for job in jobs {
                scope.spawn(move |_| job());
            }
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
