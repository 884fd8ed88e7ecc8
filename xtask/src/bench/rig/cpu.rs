//! Processor time: of daemons alone, and of the whole machine with what the kernel does for them.
//!
//! Much of a packet's way is interrupt work that the kernel books to whoever runs just then, to nobody, or to
//! threads of its own. So the machine's busy time is taken as a whole, without what the ends of the
//! transfer used, and without processes that have nothing to do with it.

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use std::collections::HashMap;

/// Of `/proc`, on every architecture that we run on.
const HZ: f64 = 100.0;
/// A kernel thread: PF_KTHREAD of linux/sched.h.
const KERNEL: u64 = 0x0020_0000;

/// A moment.
pub(super) struct Snapshot {
    /// Busy time of all cores, seconds.
    busy: f64,
    /// Of programs that this one has started and that have ended.
    ended: f64,
    /// Of each process that is no thread of the kernel.
    processes: HashMap<i32, f64>,
}

/// What was used between two moments, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// By the daemons.
    pub(super) daemons: f64,
    /// By everything but the ends of the transfer and strange processes.
    pub(super) machine: f64,
}

impl Snapshot {
    pub(super) fn take() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let (user, system) = (children.user_time(), children.system_time());
        let ended = [user, system].map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6);
        let mut processes = HashMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
                continue;
            };
            // Gone meanwhile, or a kernel thread.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            if let Some(seconds) = stat.ok().as_deref().and_then(process) {
                processes.insert(pid, seconds);
            }
        }
        Ok(Self {
            busy: busy(&stat).context("a strange /proc/stat")?,
            ended: ended.iter().sum(),
            processes,
        })
    }

    /// What was used since an earlier moment; the ends of the transfer have ended in between.
    pub(super) fn since(&self, earlier: &Self, daemons: &[i32]) -> Used {
        let mut used = Used {
            daemons: 0.0,
            machine: self.busy - earlier.busy - (self.ended - earlier.ended),
        };
        for (pid, seconds) in &self.processes {
            let Some(before) = earlier.processes.get(pid) else {
                continue;
            };
            match daemons.contains(pid) {
                true => used.daemons += seconds - before,
                false => used.machine -= seconds - before,
            }
        }
        used.machine = used.machine.max(0.0);
        used
    }
}

/// Busy seconds of `/proc/stat`: user, nice, system, irq and softirq; neither idle nor stolen.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<f64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _wait, irq, softirq, ..] = fields[..] else {
        return None;
    };
    Some((user + nice + system + irq + softirq) / HZ)
}

/// Seconds of a `/proc/PID/stat`; none for a thread of the kernel.
fn process(stat: &str) -> Option<f64> {
    // The name, in parentheses, may have spaces.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let (flags, user, system) = (fields.get(5)?, fields.get(10)?, fields.get(11)?);
    (flags & KERNEL == 0).then_some((user + system) as f64 / HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let stat = "cpu  100 20 30 4000 50 6 70 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(2.26));
        assert_eq!(busy("intr 5"), None);
        let line = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 7 7 20 0 1 0 99";
        assert_eq!(process(line), Some(4.0));
        let kernel = line.replace("4194560", "69238880");
        assert_eq!(process(&kernel), None);
    }

    #[test]
    fn strangers_and_the_ends_are_taken_off() {
        let moment = |busy, ended, daemon, stranger| Snapshot {
            busy,
            ended,
            processes: [(1, daemon), (2, stranger)].into(),
        };
        let used = moment(20.0, 3.0, 6.0, 9.0).since(&moment(10.0, 1.0, 2.0, 8.0), &[1]);
        assert_eq!((used.daemons, used.machine), (4.0, 7.0));
    }

    #[test]
    fn this_process_is_found() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(Snapshot::take().unwrap().processes.contains_key(&pid));
    }
}
