//! How the nodes are: whether they live, answer, and stay within bounds; and how late this machine
//! is itself.

use super::deeds::Hand;
use crate::lab::topology::GATEWAYS;
use crate::lab::{Lab, Place};
use crate::probe::now_ns;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A node is judged by what it used this long after its start.
const WARM: Duration = Duration::from_secs(8);
/// More than that beyond it is growth without a bound.
const MEMORY_KB: u64 = 48 << 10;
const DESCRIPTORS: u64 = 32;
/// So long a node may take to answer on a busy machine.
const ANSWER: Duration = Duration::from_secs(6);

/// All nodes.
pub(super) fn nodes() -> impl Iterator<Item = Place> {
    let gateways = GATEWAYS.map(Place::Gateway);
    [Place::Client].into_iter().chain(gateways)
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Use {
    pub(crate) memory_kb: u64,
    pub(crate) descriptors: u64,
}

impl Use {
    fn of(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        Some(Self {
            memory_kb: rss.split_whitespace().next()?.parse().ok()?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
        })
    }
}

/// What the processes of one place have used.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Usage {
    /// How many there were.
    pub(crate) processes: u64,
    /// The most that one has grown by since it was warm.
    pub(crate) grown: Use,
    /// Of the one that runs now, or ran last.
    pub(crate) warm: Use,
    pub(crate) last: Use,
    #[serde(skip)]
    pid: i32,
    #[serde(skip)]
    since: Option<Instant>,
    #[serde(skip)]
    told: bool,
}

impl Usage {
    fn note(&mut self, pid: i32, now: Use, at: Instant) -> Option<String> {
        if self.pid != pid {
            self.pid = pid;
            self.processes += 1;
            self.since = Some(at);
            (self.warm, self.told) = (Use::default(), false);
        }
        self.last = now;
        if at.duration_since(self.since?) < WARM {
            return None;
        }
        if self.warm == Use::default() {
            self.warm = now;
        }
        let memory = now.memory_kb.saturating_sub(self.warm.memory_kb);
        let descriptors = now.descriptors.saturating_sub(self.warm.descriptors);
        self.grown.memory_kb = self.grown.memory_kb.max(memory);
        self.grown.descriptors = self.grown.descriptors.max(descriptors);
        let grown = memory > MEMORY_KB || descriptors > DESCRIPTORS;
        (grown && !std::mem::replace(&mut self.told, true))
            .then(|| format!("has grown from {:?} to {now:?}", self.warm))
    }
}

/// Looks after the nodes.
#[derive(Default)]
pub(super) struct Health {
    pub(super) usage: BTreeMap<Place, Usage>,
    pub(super) asked: u64,
    next: usize,
    late: HashSet<Place>,
}

impl Health {
    /// A look at all nodes; yields what is wrong.
    pub(super) fn look(&mut self, lab: &mut Lab, hand: &mut Hand) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for place in nodes() {
            let home = hand.homes.get_mut(&place).context("a node has no disk")?;
            let new = home.collect(lab)?;
            for line in new.lines().filter(|line| line.contains("panicked")) {
                wrong.push(format!("{place}: {line}"));
            }
            if let Ok(pid) = lab.pid(place)
                && let Some(now) = Use::of(pid)
                && let Some(grown) =
                    (self.usage.entry(place).or_default()).note(pid, now, Instant::now())
            {
                wrong.push(format!("{place} {grown}"));
            }
        }
        for place in lab.unexpected_ends() {
            let status = lab.bury(place)?;
            wrong.push(format!(
                "{place} has ended by itself ({status}): {}",
                lab.log_tail(place)
            ));
            // The run goes on: there may be more to see.
            lab.start(place)?;
        }
        wrong.extend(self.ask(lab, hand));
        Ok(wrong)
    }

    /// Asks one node after the other for its status.
    fn ask(&mut self, lab: &Lab, hand: &Hand) -> Option<String> {
        let all: Vec<Place> = nodes().collect();
        let place = *all.get(self.next % all.len())?;
        self.next += 1;
        if hand.silent.contains(&place) || !lab.runs(place) {
            return None;
        }
        self.asked += 1;
        let (start, answer) = (Instant::now(), lab.status(place));
        let took = start.elapsed();
        let wrong = match answer {
            Ok(_) if took <= ANSWER => None,
            Ok(_) => Some(format!("{place} took {took:?} for its status")),
            Err(error) => Some(format!("{place} does not tell its status: {error:#}")),
        };
        match wrong {
            // Once, until it answers again.
            Some(wrong) => self.late.insert(place).then_some(wrong),
            None => {
                self.late.remove(&place);
                None
            }
        }
    }
}

/// Measures how late this machine wakes those who sleep: what it does to us it does to the nodes.
pub(super) struct Lateness {
    late: Arc<Mutex<VecDeque<(u64, u64)>>>,
    stop: Arc<AtomicBool>,
}

const NAP: Duration = Duration::from_millis(5);
/// Less is usual.
const USUAL_NS: u64 = 5_000_000;

impl Lateness {
    pub(super) fn start() -> Self {
        let late = Arc::new(Mutex::new(VecDeque::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&late), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let before = now_ns();
                std::thread::sleep(NAP);
                let now = now_ns();
                let by = now.saturating_sub(before + NAP.as_nanos() as u64);
                if by > USUAL_NS {
                    let mut late = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    late.push_back((now, by));
                    if late.len() > 10_000 {
                        late.pop_front();
                    }
                }
            }
        });
        Self { late, stop }
    }

    /// All lateness since then.
    pub(super) fn since(&self, from_ns: u64) -> Duration {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let these = late.iter().filter(|(at, _)| *at >= from_ns);
        Duration::from_nanos(these.map(|(_, by)| by).sum())
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_once_for_a_process_and_counted_from_when_it_was_warm() {
        let mut usage = Usage::default();
        let start = Instant::now();
        let mut note = |pid, seconds, mb: u64, descriptors| {
            let now = Use {
                memory_kb: mb << 10,
                descriptors,
            };
            usage.note(pid, now, start + Duration::from_secs(seconds))
        };
        assert_eq!(note(1, 0, 1, 1), None);
        assert_eq!(note(1, 9, 60, 20), None);
        assert_eq!(note(1, 10, 100, 50), None);
        assert!(note(1, 11, 109, 50).unwrap().contains("has grown"));
        assert_eq!(note(1, 12, 120, 50), None);
        // Another process begins anew.
        assert_eq!(note(2, 20, 10, 10), None);
        assert_eq!(note(2, 30, 20, 10), None);
        assert!(note(2, 31, 20, 43).is_some());
        assert_eq!((usage.processes, usage.grown.descriptors), (2, 33));
        assert_eq!(usage.grown.memory_kb, 60 << 10);
    }
}
