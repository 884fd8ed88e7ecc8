//! What a run has seen, and how it is shown.

use super::flow::Totals;
use super::health::Usage;
use super::plan::{Kind, Round};
use super::wire::Seen;
use crate::lab::{Place, Status};
use crate::probe::StreamReport;
use crate::style;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is known of one kind of fault.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// How often it came with others.
    pub(crate) together: usize,
    /// How often alone, and with the gateway in use.
    pub(crate) alone: usize,
    pub(crate) in_use: usize,
    /// Of those: of each, with a standby keyed.
    pub(crate) outages_ms: Vec<f64>,
    pub(crate) lost: u64,
    /// The same without a standby.
    pub(crate) without_standby_ms: Vec<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) rows: BTreeMap<Kind, Row>,
    /// Of rounds with several faults.
    pub(crate) together_ms: Vec<f64>,
    pub(crate) flow: Totals,
    pub(crate) stream_bytes: u64,
    pub(crate) longest_stall_ms: f64,
    pub(crate) connections: u64,
    pub(crate) connection_bytes: u64,
    pub(crate) seen: Seen,
    #[serde(serialize_with = "by_name")]
    pub(crate) usage: BTreeMap<Place, Usage>,
    /// How often a node was asked for its status.
    pub(crate) asked: u64,
    #[serde(skip)]
    pub(crate) on_the_wire: BTreeSet<String>,
    /// There was no service any more.
    pub(crate) lost: bool,
    /// What was promised and not kept.
    pub(crate) wrong: Vec<String>,
}

fn by_name<S: Serializer>(usage: &BTreeMap<Place, Usage>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        usage
            .iter()
            .map(|(place, usage)| (place.to_string(), usage)),
    )
}

/// How much there was.
pub(crate) struct Tally {
    pub(crate) rounds: usize,
    pub(crate) faults: usize,
}

impl Report {
    /// Adds a round: whom the client used before it, how long nothing came back, how many datagrams
    /// never did.
    pub(super) fn tally(&mut self, round: &Round, before: &Status, took: Duration, lost: u64) {
        self.rounds += 1;
        let ms = took.as_secs_f64() * 1e3;
        let [fault] = round.faults.as_slice() else {
            self.together_ms.push(ms);
            for fault in &round.faults {
                self.rows.entry(fault.kind).or_default().together += 1;
            }
            return;
        };
        let row = self.rows.entry(fault.kind).or_default();
        row.alone += 1;
        let used = match fault.place {
            Place::Gateway(number) => before.active() == Some(number),
            _ => true,
        };
        if !used {
            return;
        }
        row.in_use += 1;
        match super::settled(before) {
            true => {
                row.outages_ms.push(ms);
                row.lost += lost;
            }
            false => row.without_standby_ms.push(ms),
        }
    }

    pub(super) fn connection(&mut self, bytes: u64) {
        self.connections += 1;
        self.connection_bytes += bytes;
    }

    pub(super) fn stream(&mut self, stream: &StreamReport) {
        self.stream_bytes += stream.checked;
        self.longest_stall_ms = self.longest_stall_ms.max(stream.longest_stall_ms);
    }

    pub(crate) fn count(&self) -> Tally {
        let rows = self.rows.values();
        Tally {
            rounds: self.rounds,
            faults: rows.map(|row| row.alone + row.together).sum(),
        }
    }

    /// Prints it.
    pub(super) fn show(&self) {
        println!(
            "\n{:<24} {:>8} {:>6} {:>6}   {:>8} {:>8} {:>8} {:>6}   without a standby",
            "fault", "together", "alone", "in use", "p50 ms", "p99 ms", "max ms", "lost"
        );
        for (kind, row) in &self.rows {
            println!(
                "{:<24} {:>8} {:>6} {:>6}   {} {:>6}   {}",
                kind.name(),
                row.together,
                row.alone,
                row.in_use,
                figures(&row.outages_ms),
                row.lost,
                figures(&row.without_standby_ms),
            );
        }
        println!(
            "{:<48}   {}",
            "several together",
            figures(&self.together_ms)
        );
        let Tally { rounds, faults } = self.count();
        println!(
            "\n{faults} faults in {rounds} rounds, {:.0} s, seed {}",
            self.seconds, self.seed
        );
        let flow = &self.flow;
        println!(
            "datagrams    {} sent, {} lost, {} came back wrong, {} twice; {}",
            flow.sent,
            flow.sent.saturating_sub(flow.answers),
            flow.wrong,
            flow.twice,
            style::bytes(flow.bytes)
        );
        println!(
            "TCP          {} and {} short connections with {}, there and back, byte for byte; \
             longest stall {:.0} ms",
            style::bytes(self.stream_bytes),
            self.connections,
            style::bytes(self.connection_bytes),
            self.longest_stall_ms
        );
        let seen = &self.seen;
        println!(
            "on the wire  {} frames: {} ESP packets with {} nonces of {} keys, {} sent twice as they \
             were; {} heartbeats, {} IKE messages; {} frames not seen",
            seen.frames,
            seen.esp,
            seen.nonces,
            seen.keys,
            seen.repeated,
            seen.heartbeats,
            seen.ike,
            seen.unseen
        );
        for (place, usage) in &self.usage {
            println!(
                "{:<12} {} processes, grown by {} kB and {} descriptors at most; the last one \
                 {} kB, then {} kB",
                place.to_string(),
                usage.processes,
                usage.grown.memory_kb,
                usage.grown.descriptors,
                usage.warm.memory_kb,
                usage.last.memory_kb
            );
        }
        println!("status       asked {} times", self.asked);
        for wrong in &self.wrong {
            println!("{} {wrong}", style::red("✗"));
        }
        if self.wrong.is_empty() {
            println!("{}", style::green("✓ every promise was kept"));
        }
    }
}

/// Median, 99th percentile, maximum.
fn figures(ms: &[f64]) -> String {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        match sorted.get(index) {
            Some(ms) => format!("{ms:>8.1}"),
            None => format!("{:>8}", "–"),
        }
    };
    format!("{} {} {}", at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let ms: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let words: Vec<String> = figures(&ms).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["100.0", "198.0", "200.0"]);
        assert!(figures(&[]).contains('–'));
        assert!(figures(&[5.0]).contains("5.0"));
    }
}
