//! `evergate events`: what happened.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::args::NodeArgs;
use super::table::Look;
use super::{client, colour, print, print_json, print_json_line};
use crate::api::model::{Event, EventKind};
use crate::node::events::mono_ns;

/// How long one request waits for an event; only so that a dead node is noticed.
const WAIT: Duration = Duration::from_secs(20);
/// As wide as the longest kind.
const KIND_WIDTH: usize = 15;

pub(super) async fn command(node: &NodeArgs, since: u64, follow: bool) -> anyhow::Result<()> {
    let client = client(node)?;
    // Read once, so that an event keeps its time from line to line.
    let epoch = epoch();
    let events = client.events(since, Duration::ZERO).await?;
    if !follow {
        return if node.json {
            print_json(&events)
        } else {
            show(node, &events, since, epoch).map(|_| ())
        };
    }
    let mut last = show(node, &events, since, epoch)?;
    loop {
        let events = client.events(last, WAIT).await?;
        last = show(node, &events, last, epoch)?;
    }
}

/// Prints events, one line each, and returns the number of the last one.
fn show(node: &NodeArgs, events: &[Event], after: u64, epoch: SystemTime) -> anyhow::Result<u64> {
    if node.json {
        for event in events {
            print_json_line(event)?;
        }
    } else {
        print(&render(events, after, epoch, colour()))?;
    }
    Ok(events.last().map_or(after, |event| event.seq))
}

/// The time at which this machine's monotonic clock was zero.
fn epoch() -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(Duration::from_nanos(mono_ns()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// One line for each event; a gap in the numbers gets a line of its own.
pub(crate) fn render(events: &[Event], after: u64, epoch: SystemTime, colour: bool) -> String {
    let mut out = String::new();
    let mut last = after;
    for event in events {
        // A smaller number than the last: the node started again.
        let missing = event.seq.saturating_sub(last.saturating_add(1));
        if missing > 0 {
            let text = format!("({missing} older events are forgotten)");
            let _ = writeln!(out, "{}", Look::Dim.paint(&text, colour));
        }
        last = event.seq;
        let when = epoch + Duration::from_nanos(event.mono_ns);
        let look = match event.kind {
            EventKind::GatewayDead | EventKind::KeyFailed | EventKind::KeyRejected => Look::Bad,
            EventKind::HeartbeatLost | EventKind::SessionDown | EventKind::Link => Look::Odd,
            EventKind::SessionUp | EventKind::Active => Look::Good,
            _ => Look::Plain,
        };
        let kind = format!("{:KIND_WIDTH$}", event.kind.name());
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{:>5}  {}  {}  {}",
            event.seq,
            Look::Dim.paint(&humantime::format_rfc3339_micros(when).to_string(), colour),
            look.paint(&kind, colour),
            event.text
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, mono_ns: u64, kind: EventKind, text: &str) -> Event {
        Event {
            seq,
            mono_ns,
            kind,
            cluster: None,
            gateway: None,
            text: text.into(),
        }
    }

    #[test]
    fn one_line_each_with_gaps_told() {
        let events = [
            event(
                5,
                1_500_000,
                EventKind::GatewayDead,
                "gateway 192.0.2.1 is dead",
            ),
            event(
                6,
                1_500_001_000,
                EventKind::Active,
                "cluster 1 goes on through 192.0.2.2",
            ),
            event(1, 2_000_000_000, EventKind::NodeStarted, "gw-a is ready"),
        ];
        let text = render(&events, 3, SystemTime::UNIX_EPOCH, false);
        assert_eq!(
            text,
            "(1 older events are forgotten)\n    \
             5  1970-01-01T00:00:00.001500Z  gateway_dead     gateway 192.0.2.1 is dead\n    \
             6  1970-01-01T00:00:01.500001Z  active           cluster 1 goes on through 192.0.2.2\n    \
             1  1970-01-01T00:00:02.000000Z  node_started     gw-a is ready\n"
        );
    }

    #[test]
    fn every_kind_fits_its_column() {
        assert_eq!(EventKind::PolicyReloaded.name().len(), KIND_WIDTH);
    }

    #[test]
    fn the_epoch_is_in_the_past() {
        assert!(epoch() < SystemTime::now());
    }
}
