//! What a run of the demo found; the printed table and the picture are made of it.

use crate::lab::Event;
use crate::lab::topology::{GATEWAYS, gateway_outside};
use crate::probe::{Outage, Record, StreamReport};
use crate::traffic::{Sample, Transfer, rate};
use serde::{Deserialize, Serialize};

/// What was done to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Kill,
    Return,
    Freeze,
    Thaw,
    PullLan,
    RestoreLan,
}

impl Kind {
    /// In the timeline: `gw2 …`.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Kill => "killed (SIGKILL)",
            Self::Return => "started again",
            Self::Freeze => "frozen (SIGSTOP)",
            Self::Thaw => "thawed (SIGCONT)",
            Self::PullLan => "LAN cable pulled",
            Self::RestoreLan => "LAN cable plugged in",
        }
    }

    /// Whether it takes the active gateway away.
    pub(crate) fn harms(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze | Self::PullLan)
    }
}

/// One thing that was done, and what came of it. Stamps: ns of CLOCK_MONOTONIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) at_ns: u64,
    pub(crate) kind: Kind,
    pub(crate) gateway: u8,
    pub(crate) active_before: Option<u8>,
    pub(crate) active_after: Option<u8>,
    /// From the deed to the client's taking the gateway for dead.
    pub(crate) detected_ms: Option<f64>,
    pub(crate) outage_ms: f64,
    pub(crate) recovered: bool,
    pub(crate) lost: u64,
    pub(crate) rate_before: f64,
    pub(crate) rate_after: f64,
    /// What the client noticed: ms after the deed, and a sentence.
    pub(crate) seen: Vec<(f64, String)>,
}

/// The time that one gateway was active.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Band {
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
    pub(crate) gateway: u8,
}

/// A point of the throughput curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) at_ns: u64,
    pub(crate) bits_per_second: f64,
}

/// One interval of the probe: how long answers took and how many never came.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) at_ns: u64,
    pub(crate) median_rtt_ms: Option<f64>,
    pub(crate) worst_rtt_ms: Option<f64>,
    pub(crate) lost: u64,
}

/// The whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) marks: Vec<Mark>,
    pub(crate) bands: Vec<Band>,
    pub(crate) throughput: Vec<Point>,
    pub(crate) beats: Vec<Beat>,
    pub(crate) probes_sent: u64,
    pub(crate) probes_lost: u64,
    pub(crate) transfer: Transfer,
    pub(crate) stream: StreamReport,
}

impl Report {
    /// Why the run failed, if it did.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(error) = &self.transfer.error {
            all.push(format!("the iperf3 transfer broke: {error}"));
        }
        if let Some(error) = &self.stream.error {
            all.push(format!("the checked stream broke: {error}"));
        }
        for mark in self.marks.iter().filter(|m| !m.recovered) {
            all.push(format!(
                "no answer came back after gw{} {}",
                mark.gateway,
                mark.kind.words()
            ));
        }
        for mark in self.marks.iter().filter(|m| m.kind.harms()) {
            if mark.active_after == Some(mark.gateway) {
                all.push(format!(
                    "gw{} {} stayed active",
                    mark.gateway,
                    mark.kind.words()
                ));
            }
        }
        all
    }
}

/// Fills in what the client's events, the probe and the meter say about a deed.
pub(crate) fn judge(
    mark: &mut Mark,
    events: &[Event],
    record: &Record,
    samples: &[Sample],
    until_ns: u64,
) {
    let since = |ns: u64| ns.saturating_sub(mark.at_ns) as f64 / 1e6;
    let after: Vec<&Event> = events
        .iter()
        .filter(|e| (mark.at_ns..until_ns).contains(&e.mono_ns))
        .collect();
    mark.detected_ms = after
        .iter()
        .find(|e| e.kind == "gateway_dead" && e.gateway_number() == Some(mark.gateway))
        .map(|e| since(e.mono_ns));
    mark.active_after = after
        .iter()
        .rev()
        .find(|e| e.kind == "active" && e.gateway_number().is_some())
        .map_or(mark.active_before, |e| e.gateway_number());
    mark.seen = after
        .iter()
        .map(|e| (since(e.mono_ns), short_names(&e.text)))
        .collect();
    let Outage {
        recovered, lost, ..
    } = record.outage(mark.at_ns, until_ns);
    mark.outage_ms = record.outage(mark.at_ns, until_ns).millis();
    (mark.recovered, mark.lost) = (recovered, lost);
    const SECOND: u64 = 1_000_000_000;
    mark.rate_before = rate(samples, mark.at_ns.saturating_sub(SECOND), mark.at_ns);
    mark.rate_after = rate(samples, until_ns.saturating_sub(SECOND), until_ns);
}

/// Outside addresses of gateways by their names in the lab.
pub(crate) fn short_names(text: &str) -> String {
    GATEWAYS.into_iter().fold(text.to_owned(), |text, n| {
        text.replace(&gateway_outside(n).to_string(), &format!("gw{n}"))
    })
}

/// Who was active when.
pub(crate) fn bands(first: Option<u8>, events: &[Event], start_ns: u64, end_ns: u64) -> Vec<Band> {
    let mut all: Vec<Band> = Vec::new();
    let mut current = first.map(|gateway| (start_ns, gateway));
    let mut close = |current: Option<(u64, u8)>, until_ns: u64| {
        if let Some((from_ns, gateway)) = current
            && until_ns > from_ns
        {
            all.push(Band {
                from_ns,
                until_ns,
                gateway,
            });
        }
    };
    for event in events
        .iter()
        .filter(|e| (start_ns..end_ns).contains(&e.mono_ns))
    {
        match (event.kind.as_str(), event.gateway_number()) {
            ("active", Some(gateway)) if current.map(|c| c.1) != Some(gateway) => {
                close(current, event.mono_ns);
                current = Some((event.mono_ns, gateway));
            }
            // Nobody is active until the next one is.
            ("gateway_dead", Some(gateway)) if current.map(|c| c.1) == Some(gateway) => {
                close(current, event.mono_ns);
                current = None;
            }
            _ => {}
        }
    }
    close(current, end_ns);
    all
}

/// The throughput in steps of 50 ms.
pub(crate) fn throughput(samples: &[Sample], start_ns: u64, end_ns: u64) -> Vec<Point> {
    const STEP: u64 = 50_000_000;
    (start_ns..end_ns.saturating_sub(STEP))
        .step_by(STEP as usize)
        .map(|from| Point {
            at_ns: from + STEP / 2,
            bits_per_second: rate(
                samples,
                from.saturating_sub(5_000_000),
                from + STEP + 5_000_000,
            ),
        })
        .collect()
}

/// The probe in steps of 20 ms.
pub(crate) fn beats(record: &Record, start_ns: u64, end_ns: u64) -> Vec<Beat> {
    const STEP: u64 = 20_000_000;
    let mut answers = record.answers.clone();
    answers.sort_unstable_by_key(|a| a.sent_ns);
    let mut rest = answers.as_slice();
    (start_ns..end_ns)
        .step_by(STEP as usize)
        .map(|from| {
            rest = &rest[rest.partition_point(|a| a.sent_ns < from)..];
            let count = rest.partition_point(|a| a.sent_ns < from + STEP);
            let mut times: Vec<u64> = rest[..count]
                .iter()
                .map(|a| a.received_ns.saturating_sub(a.sent_ns))
                .collect();
            times.sort_unstable();
            let ms = |ns: &u64| *ns as f64 / 1e6;
            Beat {
                at_ns: from + STEP / 2,
                median_rtt_ms: times.get(times.len() / 2).map(ms),
                worst_rtt_ms: times.last().map(ms),
                lost: record.lost(from, from + STEP),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ms: u64, kind: &str, gateway: &str) -> Event {
        Event {
            seq: ms,
            mono_ns: ms * 1_000_000,
            kind: kind.into(),
            gateway: Some(gateway.into()),
            text: format!("{kind} {gateway}"),
        }
    }

    #[test]
    fn bands_follow_the_active_gateway() {
        let events = [
            event(10, "gateway_dead", "192.0.2.1"),
            event(11, "active", "192.0.2.3"),
            event(15, "active", "192.0.2.3"),
            event(20, "active", "192.0.2.2"),
        ];
        let found: Vec<(u64, u64, u8)> = bands(Some(1), &events, 0, 30_000_000)
            .iter()
            .map(|b| (b.from_ns / 1_000_000, b.until_ns / 1_000_000, b.gateway))
            .collect();
        assert_eq!(found, [(0, 10, 1), (11, 20, 3), (20, 30, 2)]);
    }

    #[test]
    fn addresses_become_names() {
        assert_eq!(
            short_names("192.0.2.3 is taken for dead"),
            "gw3 is taken for dead"
        );
    }
}
