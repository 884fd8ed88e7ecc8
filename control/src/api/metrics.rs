//! The status in Prometheus' text format, version 0.0.4.

use std::fmt::{self, Write as _};

use super::model::{CounterValue, FrontNode, NodeState, Status};

/// Writes one family: its help, its type, then its samples.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { out, name }
    }

    fn sample(&mut self, labels: &[(&str, &dyn fmt::Display)], value: impl fmt::Display) {
        // Writing to a String does not fail.
        let _ = write!(self.out, "{}", self.name);
        for (i, (key, label)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{key}=\"", if i == 0 { '{' } else { ',' });
            escape(self.out, &label.to_string());
            self.out.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }
}

fn escape(out: &mut String, label: &str) {
    for c in label.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time of 2^53 µs is 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The whole page.
pub(super) fn render(status: &Status) -> String {
    let mut page = String::with_capacity(8192);
    let out = &mut page;
    Family::new(out, "evergate_info", "gauge", "The running node; always 1.").sample(
        &[
            ("name", &status.name),
            ("role", &status.role),
            ("identity", &status.identity),
            ("version", &status.version),
        ],
        1,
    );
    Family::new(
        out,
        "evergate_uptime_seconds",
        "gauge",
        "Time since the node started.",
    )
    .sample(&[], seconds(status.uptime_ms.saturating_mul(1000)));
    // Always there, so that an alarm can be made of it.
    Family::new(
        out,
        "evergate_keylog",
        "gauge",
        "1 while the keys of all sessions are written to a file.",
    )
    .sample(&[], u8::from(status.keylog.as_ref().is_some_and(|k| k.on)));
    counters(
        out,
        "evergate_events_total",
        "What was counted that is not a drop.",
        &status.counters,
    );
    counters(
        out,
        "evergate_drops_total",
        "Packets dropped, by reason.",
        &status.drops,
    );

    let mut up = Family::new(
        out,
        "evergate_interface_up",
        "gauge",
        "1 while the link is up.",
    );
    for port in &status.interfaces {
        up.sample(&[("interface", &port.name)], u8::from(port.up));
    }
    gateways(out, status);
    sessions(out, status);
    front(out, status);
    page
}

fn counters(out: &mut String, name: &'static str, help: &str, values: &[CounterValue]) {
    let mut family = Family::new(out, name, "counter", help);
    for counter in values {
        family.sample(&[("name", &counter.name)], counter.value);
    }
}

fn gateways(out: &mut String, status: &Status) {
    type Read = fn(&super::model::Gateway) -> Option<f64>;
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus values are floating point"
    )]
    let families: [(&'static str, &str, &str, Read); 6] = [
        (
            "evergate_gateway_keyed",
            "gauge",
            "1 while a session with it exists.",
            |g| Some(f64::from(u8::from(g.keyed))),
        ),
        (
            "evergate_gateway_active",
            "gauge",
            "1 while it carries the traffic.",
            |g| Some(f64::from(u8::from(g.active))),
        ),
        (
            "evergate_gateway_last_heard_seconds",
            "gauge",
            "Since it proved that it lives.",
            |g| g.last_heard_us.map(seconds),
        ),
        (
            "evergate_gateway_rtt_seconds",
            "gauge",
            "Round trip of the last heartbeat.",
            |g| g.rtt_us.map(seconds),
        ),
        (
            "evergate_gateway_heartbeats_sent_total",
            "counter",
            "Heartbeats sent to it.",
            |g| Some(g.heartbeats_sent as f64),
        ),
        (
            "evergate_gateway_heartbeats_answered_total",
            "counter",
            "Heartbeats it answered.",
            |g| Some(g.heartbeats_answered as f64),
        ),
    ];
    for (name, kind, help, read) in families {
        let mut family = Family::new(out, name, kind, help);
        for cluster in &status.clusters {
            for gateway in &cluster.gateways {
                if let Some(value) = read(gateway) {
                    let labels: [(&str, &dyn fmt::Display); 2] =
                        [("cluster", &cluster.id), ("gateway", &gateway.address)];
                    family.sample(&labels, value);
                }
            }
        }
    }
}

/// The encryption nodes of a front.
fn front(out: &mut String, status: &Status) {
    let Some(front) = &status.front else { return };
    type Read = fn(&FrontNode) -> u32;
    let families: [(&'static str, &str, Read); 2] = [
        (
            "evergate_front_node_alive",
            "1 unless the encryption node is dead.",
            |node| u32::from(node.state != NodeState::Dead),
        ),
        (
            "evergate_front_node_slots",
            "Slots of clients that lead to it.",
            |node| node.slots,
        ),
    ];
    for (name, help, read) in families {
        let mut family = Family::new(out, name, "gauge", help);
        for node in &front.nodes {
            let labels: [(&str, &dyn fmt::Display); 2] =
                [("node", &node.number), ("address", &node.address)];
            family.sample(&labels, read(node));
        }
    }
}

fn sessions(out: &mut String, status: &Status) {
    let mut packets = Family::new(
        out,
        "evergate_session_packets_total",
        "counter",
        "Inner packets.",
    );
    for s in &status.sessions {
        for (direction, value) in [("in", s.packets_in), ("out", s.packets_out)] {
            let labels: [(&str, &dyn fmt::Display); 3] = [
                ("peer", &s.peer),
                ("spi_in", &s.spi_in),
                ("direction", &direction),
            ];
            packets.sample(&labels, value);
        }
    }
    let mut bytes = Family::new(
        out,
        "evergate_session_bytes_total",
        "counter",
        "Inner bytes.",
    );
    for s in &status.sessions {
        for (direction, value) in [("in", s.bytes_in), ("out", s.bytes_out)] {
            let labels: [(&str, &dyn fmt::Display); 3] = [
                ("peer", &s.peer),
                ("spi_in", &s.spi_in),
                ("direction", &direction),
            ];
            bytes.sample(&labels, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn every_line_is_a_comment_or_a_sample_with_a_number() {
        let page = render(&sample::client());
        for line in page.lines() {
            if line.starts_with("# HELP evergate_") || line.starts_with("# TYPE evergate_") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.starts_with("evergate_"), "{line}");
        }
    }

    #[test]
    fn gateways_and_drops_are_there() {
        let page = render(&sample::client());
        for line in [
            "evergate_gateway_active{cluster=\"1\",gateway=\"192.0.2.2\"} 1",
            "evergate_gateway_rtt_seconds{cluster=\"1\",gateway=\"192.0.2.2\"} 0.000184",
            "evergate_drops_total{name=\"replayed\"} 3",
            "evergate_interface_up{interface=\"wan0\"} 1",
            "evergate_uptime_seconds 93784.005",
            "evergate_keylog 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("last_heard_seconds{cluster=\"1\",gateway=\"192.0.2.3\"}"));
    }

    #[test]
    fn encryption_nodes_are_there() {
        let mut status = sample::client();
        assert!(!render(&status).contains("evergate_front"));
        status.front = Some(crate::api::model::Front {
            address: std::net::Ipv4Addr::new(192, 0, 2, 9).into(),
            slots: 4096,
            nodes: vec![FrontNode {
                number: 2,
                address: std::net::Ipv4Addr::new(192, 0, 2, 2).into(),
                own: false,
                state: NodeState::Draining,
                slots: 17,
                heartbeats_sent: 9,
                heartbeats_answered: 8,
                rtt_us: None,
            }],
        });
        let page = render(&status);
        for line in [
            "evergate_front_node_alive{node=\"2\",address=\"192.0.2.2\"} 1",
            "evergate_front_node_slots{node=\"2\",address=\"192.0.2.2\"} 17",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn labels_can_not_break_out() {
        let mut status = sample::client();
        status.identity = "a\"b\\c\nd".into();
        assert!(render(&status).contains(r#"identity="a\"b\\c\nd""#));
    }
}
