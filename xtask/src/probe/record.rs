//! What the probe saw, and what of it counts as an outage.

use super::now_ns;
use crate::lab::topology::TARGETS;
use crate::lab::{Lab, Place, Process};
use anyhow::{Context, Result, anyhow};
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// One answered packet; stamps of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) seq: u64,
    pub(crate) sent_ns: u64,
    pub(crate) received_ns: u64,
}

/// Every answer so far, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) start_ns: u64,
    pub(crate) interval_ns: u64,
    pub(crate) answers: Vec<Answer>,
    /// Packets sent; known at the end.
    pub(crate) sent: Option<u64>,
}

/// The longest time without an answer around an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outage {
    /// From the last answer before to the first one after.
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
    /// Packets of that time that were never answered.
    pub(crate) lost: u64,
    /// Whether answers came again within the time looked at.
    pub(crate) recovered: bool,
}

impl Outage {
    pub(crate) fn millis(&self) -> f64 {
        self.until_ns.saturating_sub(self.from_ns) as f64 / 1e6
    }
}

impl Record {
    /// The longest gap between answers that ends after `event_ns`, looked for until `until_ns`.
    pub(crate) fn outage(&self, event_ns: u64, until_ns: u64) -> Outage {
        let mut longest = Outage {
            from_ns: event_ns,
            until_ns: event_ns,
            lost: 0,
            recovered: true,
        };
        let mut last = None;
        for answer in &self.answers {
            if answer.received_ns > until_ns {
                break;
            }
            let gap_start = last.replace(answer.received_ns).unwrap_or(event_ns);
            if answer.received_ns >= event_ns
                && answer.received_ns.saturating_sub(gap_start) > longest.until_ns - longest.from_ns
            {
                longest.from_ns = gap_start;
                longest.until_ns = answer.received_ns;
            }
        }
        let silent_since = last.unwrap_or(event_ns);
        if until_ns.saturating_sub(silent_since) > longest.until_ns - longest.from_ns {
            longest.from_ns = silent_since;
            longest.until_ns = until_ns;
            longest.recovered = false;
        }
        // What was on its way when the gap began belongs to it.
        longest.lost = self.lost(longest.from_ns.saturating_sub(20_000_000), longest.until_ns);
        longest
    }

    /// Packets whose turn was between the two stamps and that no answer came for.
    pub(crate) fn lost(&self, from_ns: u64, until_ns: u64) -> u64 {
        let Some(interval) = std::num::NonZeroU64::new(self.interval_ns) else {
            return 0;
        };
        let index = |ns: u64| ns.saturating_sub(self.start_ns).div_ceil(interval.get());
        let (first, end) = (
            index(from_ns),
            index(until_ns).min(self.sent.unwrap_or(u64::MAX)),
        );
        let answered = self
            .answers
            .iter()
            .filter(|a| (first..end).contains(&a.seq))
            .count();
        end.saturating_sub(first).saturating_sub(answered as u64)
    }

    /// Median round-trip time of the answers received between two stamps.
    pub(crate) fn median_rtt_ms(&self, from_ns: u64, until_ns: u64) -> Option<f64> {
        let mut times: Vec<u64> = self
            .answers
            .iter()
            .filter(|a| (from_ns..until_ns).contains(&a.received_ns))
            .map(|a| a.received_ns.saturating_sub(a.sent_ns))
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).map(|ns| *ns as f64 / 1e6)
    }
}

/// A running probe from the client to the target.
#[derive(Debug)]
pub(crate) struct Probe {
    sender: Process,
    _echo: Process,
    record: Arc<Mutex<Record>>,
    reader: Option<JoinHandle<()>>,
}

impl Probe {
    /// Starts both ends; a packet each millisecond.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        Self::start_at(lab, TARGETS[0], 7000)
    }

    /// The same to another address of the target.
    pub(crate) fn start_at(lab: &Lab, address: &str, port: u16) -> Result<Self> {
        let to = format!("{address}:{port}");
        let mut echo = lab.urgent_helper(Place::Target, &["probe-echo", &to])?;
        wait_ready(&mut echo)?;
        let mut sender = lab.urgent_helper(Place::Client, &["probe-send", &to])?;
        let stdout = sender
            .stdout()
            .ok_or_else(|| anyhow!("the probe has no stdout"))?;
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                note(&mut lock(&shared), &line);
            }
        });
        let probe = Self {
            sender,
            _echo: echo,
            record,
            reader: Some(reader),
        };
        lab.wait(
            "the first answer to a probe",
            Duration::from_secs(5),
            |_| Ok((!lock(&probe.record).answers.is_empty()).then_some(())),
        )?;
        Ok(probe)
    }

    /// What was seen so far.
    pub(crate) fn so_far(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// The outage after an event, as far as it can be told now; answers come here in portions.
    pub(crate) fn outage_until_now(&self, event_ns: u64) -> Outage {
        let until_ns = now_ns();
        std::thread::sleep(Duration::from_millis(80));
        self.so_far().outage(event_ns, until_ns)
    }

    /// Stops sending, waits for late answers, returns everything.
    pub(crate) fn finish(mut self) -> Result<Record> {
        drop(self.sender.stdin());
        let status = self.sender.wait(Duration::from_secs(5))?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let record = self.so_far().clone();
        record
            .sent
            .with_context(|| format!("the probe ended early ({status})"))?;
        Ok(record)
    }
}

/// Waits for a helper's line that it listens.
pub(crate) fn wait_ready(helper: &mut Process) -> Result<BufReader<std::process::ChildStdout>> {
    let stdout = helper
        .stdout()
        .ok_or_else(|| anyhow!("a helper has no stdout"))?;
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line.trim() != "ready" {
        return Err(anyhow!("a helper did not start (see log/helpers.log)"));
    }
    Ok(reader)
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn note(record: &mut Record, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
    match (words.first().copied(), number(1), number(2)) {
        (Some("start"), Some(start), Some(interval)) => {
            record.start_ns = start;
            record.interval_ns = interval;
        }
        (Some("sent"), Some(count), _) => record.sent = Some(count),
        (_, Some(sent_ns), Some(received_ns)) => {
            if let Some(seq) = number(0) {
                record.answers.push(Answer {
                    seq,
                    sent_ns,
                    received_ns,
                });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A packet a millisecond from 1 s on, answered after 0.2 ms except in `gap` (in ms).
    fn record(gap: std::ops::Range<u64>) -> Record {
        let mut record = Record::default();
        note(&mut record, &format!("start {} {MS}", 1000 * MS));
        for seq in (0..1000).filter(|s| !gap.contains(s)) {
            let sent = (1000 + seq) * MS;
            note(&mut record, &format!("{seq} {sent} {}", sent + MS / 5));
        }
        note(&mut record, "sent 1000");
        record
    }

    #[test]
    fn a_gap_is_measured_and_its_packets_counted() {
        let outage = record(300..314).outage(1299 * MS + MS / 2, 1900 * MS);
        assert!((outage.millis() - 15.0).abs() < 0.01, "{outage:?}");
        assert_eq!(outage.lost, 14);
        assert!(outage.recovered);
    }

    #[test]
    fn a_gap_before_the_event_does_not_count() {
        let outage = record(300..400).outage(1500 * MS, 1900 * MS);
        assert!(outage.millis() < 1.5, "{outage:?}");
        assert_eq!(outage.lost, 0);
    }

    #[test]
    fn silence_to_the_end_is_no_recovery() {
        let outage = record(500..1000).outage(1499 * MS, 1900 * MS);
        assert!(!outage.recovered);
        assert!((outage.millis() - 400.8).abs() < 0.01, "{outage:?}");
        assert_eq!(outage.lost, 400);
    }

    #[test]
    fn median_of_round_trips() {
        assert_eq!(record(0..0).median_rtt_ms(0, u64::MAX), Some(0.2));
        assert_eq!(record(0..0).median_rtt_ms(0, 1), None);
    }
}
