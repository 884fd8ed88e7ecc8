//! What has come of a run.

use std::collections::BTreeSet;

use evergate_common::sample::{MOST_FLOWS, Note};
use rustc_hash::FxHashMap;
use serde::Serialize;

/// Numbers beyond this are no sender's of ours: a bound on the memory.
const MOST: u64 = 1 << 32;

/// What a collector says of the run that it saw last.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Received {
    /// The sender's number of the run; 0 before the first packet.
    pub run: u32,
    /// Packets, each counted once.
    pub received: u64,
    /// Tunnels and flows within them of which any have come.
    pub tunnels: usize,
    pub flows: usize,
    /// Packets that came again.
    pub duplicated: u64,
    /// Packets that came after a later one of their flow.
    pub reordered: u64,
    /// Packets that are missing below the highest number; what is lost at the end only the sender knows.
    pub missing: u64,
    /// From the first to the last.
    pub seconds: f64,
    pub latency: Latency,
}

/// From sender to collector, one way, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub worst_us: f64,
}

/// Counts the packets of one run; another run begins afresh.
#[derive(Debug, Default)]
pub(super) struct Tally {
    run: u32,
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// A bit for each number.
    seen: Vec<u64>,
    behind_last: u64,
    /// The number after the highest one of each tunnel's flows.
    flows: FxHashMap<(u16, u16), u64>,
    first_ns: u64,
    last_ns: u64,
    latencies_ns: Vec<u32>,
}

impl Tally {
    /// Counts a packet that has come at this time.
    pub(super) fn add(&mut self, note: Note, now_ns: u64) {
        if note.number >= MOST {
            return;
        }
        if note.run != self.run {
            *self = Self {
                run: note.run,
                first_ns: now_ns,
                ..Self::default()
            };
        }
        let flow = (note.tunnel, note.flow);
        if self.flows.len() >= MOST_FLOWS && !self.flows.contains_key(&flow) {
            return;
        }
        let (word, bit) = ((note.number / 64) as usize, 1_u64 << (note.number % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        let Some(word) = self.seen.get_mut(word) else {
            return;
        };
        if *word & bit != 0 {
            self.duplicated += 1;
            return;
        }
        *word |= bit;
        self.received += 1;
        self.last_ns = now_ns;
        self.behind_last = self.behind_last.max(note.number + 1);
        let highest = self.flows.entry(flow).or_default();
        match note.number < *highest {
            true => self.reordered += 1,
            false => *highest = note.number + 1,
        }
        let latency = now_ns.saturating_sub(note.sent_ns);
        self.latencies_ns
            .push(u32::try_from(latency).unwrap_or(u32::MAX));
    }

    /// What has come so far; begins afresh.
    pub(super) fn take(&mut self) -> Received {
        let mut tally = std::mem::take(self);
        tally.latencies_ns.sort_unstable();
        let at = |share: f64| {
            let last = tally.latencies_ns.len().saturating_sub(1);
            let found = tally
                .latencies_ns
                .get((share * last as f64).round() as usize);
            found.map_or(0.0, |ns| f64::from(*ns) / 1e3)
        };
        Received {
            run: tally.run,
            received: tally.received,
            tunnels: tally
                .flows
                .keys()
                .map(|flow| flow.0)
                .collect::<BTreeSet<_>>()
                .len(),
            flows: tally.flows.len(),
            duplicated: tally.duplicated,
            reordered: tally.reordered,
            missing: tally.behind_last - tally.received,
            seconds: tally.last_ns.saturating_sub(tally.first_ns) as f64 / 1e9,
            latency: Latency {
                p50_us: at(0.5),
                p99_us: at(0.99),
                p999_us: at(0.999),
                worst_us: at(1.0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(run: u32, flow: u16, number: u64) -> Note {
        Note {
            run,
            tunnel: 0,
            flow,
            number,
            sent_ns: 1_000_000,
        }
    }

    #[test]
    fn loss_order_and_repetition_are_told_apart() {
        let mut tally = Tally::default();
        // Two flows, even and odd; 4 is late in its own flow, 1 only behind one of the other's.
        for (number, us) in [
            (0, 10),
            (2, 20),
            (1, 30),
            (6, 40),
            (4, 50),
            (6, 60),
            (9, 70),
        ] {
            let flow = (number % 2) as u16;
            tally.add(note(3, flow, number), 1_000_000 + us * 1000);
        }
        let received = tally.take();
        assert_eq!(received.run, 3);
        assert_eq!((received.received, received.duplicated), (6, 1));
        assert_eq!((received.reordered, received.missing), (1, 4));
        assert_eq!(
            (received.latency.p50_us, received.latency.worst_us),
            (40.0, 70.0)
        );
        assert!((received.seconds - 60e-6).abs() < 1e-12);
        assert_eq!(tally.take(), Received::default());
    }

    #[test]
    fn another_run_begins_afresh_and_wild_numbers_are_ignored() {
        let mut tally = Tally::default();
        tally.add(note(1, 0, 0), 2_000_000);
        tally.add(note(2, 0, 5), 2_000_000);
        tally.add(note(2, 0, u64::MAX), 2_000_000);
        let received = tally.take();
        assert_eq!(
            (received.run, received.received, received.missing),
            (2, 1, 5)
        );
    }

    #[test]
    fn order_is_looked_at_within_a_tunnel_s_flow() {
        let mut tally = Tally::default();
        let sent = [(0, 0, 3), (1, 0, 2), (1, 1, 1), (0, 0, 0), (1, 0, 4)];
        for (tunnel, flow, number) in sent {
            let note = Note {
                tunnel,
                ..note(1, flow, number)
            };
            tally.add(note, 2_000_000);
        }
        let received = tally.take();
        assert_eq!((received.tunnels, received.flows), (2, 3));
        assert_eq!((received.reordered, received.missing), (1, 0));
    }
}
