//! `evergate status`: the node at a glance.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::args::NodeArgs;
use super::number::{bytes, count, time};
use super::table::{self, Cell, Look};
use super::{client, colour, print, print_json, print_json_line};
use crate::api::model::{
    self, Cluster, ClusterState, CounterValue, Gateway, Interface, InterfaceKind, KeyLog, Role,
    Session, Side, Status, Tunnel,
};

/// A core that has not drawn a picture for so long hangs.
const STALE_MS: u64 = 2_000;
/// A plain gateway address stands for a cluster of one, whose number has this bit set.
const IMPLICIT: u32 = 0x8000_0000;

pub(super) async fn command(node: &NodeArgs, watch: Option<Duration>) -> anyhow::Result<()> {
    let client = client(node)?;
    let Some(interval) = watch else {
        let status = client.status().await?;
        if node.json {
            return print_json(&status);
        }
        print(&render(&status, colour()))?;
        return Ok(());
    };
    // On a terminal each picture replaces the last; elsewhere they follow each other.
    let replace = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        match client.status().await {
            Ok(status) if node.json => print_json_line(&status)?,
            Ok(status) => draw(&render(&status, colour()), replace)?,
            // It may come back: that is what one watches for.
            Err(error) if replace => {
                draw(&Look::Bad.paint(&format!("{error}\n"), colour()), replace)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn draw(picture: &str, replace: bool) -> std::io::Result<()> {
    if replace {
        print(&format!("\x1b[H\x1b[2J{picture}"))
    } else {
        print(&format!("{picture}\n"))
    }
}

/// The picture, with a line end at its end.
pub(crate) fn render(status: &Status, colour: bool) -> String {
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{}  {} {}, evergate {}, up {}",
        Look::Bold.paint(&status.name, colour),
        status.role,
        status.identity,
        status.version,
        time(status.uptime_ms.saturating_mul(1000)),
    );
    if let Some(keylog) = &status.keylog {
        let (text, look) = keylog_line(keylog);
        let _ = writeln!(out, "{}", look.paint(&text, colour));
    }
    if status.snapshot_age_ms > STALE_MS {
        let text = format!(
            "the node's core has not reported for {}: keys and sessions below may be outdated",
            time(status.snapshot_age_ms.saturating_mul(1000))
        );
        let _ = writeln!(out, "{}", Look::Bad.paint(&text, colour));
    }
    if let Some(drain) = &status.drain {
        let (text, look) = match (drain.sessions, drain.patience_ms) {
            (0, _) => ("drained: no session is left".to_owned(), Look::Good),
            (left, patience) => {
                let left = if left == 1 {
                    "1 session".to_owned()
                } else {
                    format!("{left} sessions")
                };
                let rest = time(patience.saturating_mul(1000));
                (
                    format!("draining: {left} left, deleted in {rest}"),
                    Look::Odd,
                )
            }
        };
        let _ = writeln!(out, "{}", look.paint(&text, colour));
    }
    let rows: Vec<_> = status.interfaces.iter().map(interface).collect();
    table::write(&mut out, 2, &rows, colour);
    write_sharing(&mut out, status, colour);
    if let Some(front) = &status.front {
        super::front::write(&mut out, front, colour);
    }
    for cluster in &status.clusters {
        out.push('\n');
        write_cluster(&mut out, cluster, &status.tunnels, colour);
    }
    out.push('\n');
    write_sessions(&mut out, status, colour);
    write_filter(&mut out, status, colour);
    write_counters(&mut out, "counters", &status.counters, Look::Plain, colour);
    write_counters(&mut out, "drops", &status.drops, Look::Odd, colour);
    if status.drops.iter().all(|drop| drop.value == 0) {
        out.push_str("\nno packet was dropped\n");
    }
    out
}

/// Whether keys leave the process.
pub(super) fn keylog_line(keylog: &KeyLog) -> (String, Look) {
    let KeyLog {
        on,
        directory,
        lines,
    } = keylog;
    match on {
        true => (
            format!(
                "KEYLOG: the keys of ALL sessions are written to {directory} ({lines} lines): \
                 whoever reads them reads the traffic"
            ),
            Look::Bad,
        ),
        false => (
            format!("keylog off; {lines} lines with keys were written to {directory}"),
            Look::Odd,
        ),
    }
}

fn interface(port: &Interface) -> Vec<Cell> {
    let side = match port.side {
        Side::Outside => "outside",
        Side::Inside => "inside",
    };
    let (kind, look) = match port.kind {
        InterfaceKind::XdpNative => ("XDP native", Look::Plain),
        InterfaceKind::XdpGeneric => ("XDP generic (slower)", Look::Odd),
        InterfaceKind::Udp => ("UDP socket", Look::Plain),
        InterfaceKind::Routed => ("TUN, kernel forwards", Look::Plain),
        InterfaceKind::Tun => ("TUN", Look::Plain),
    };
    let link = if port.up {
        Cell::new("up").look(Look::Good)
    } else {
        Cell::new("DOWN").look(Look::Bad)
    };
    vec![
        Cell::new(side),
        Cell::new(&port.name).look(Look::Bold),
        link,
        Cell::new(kind).look(look),
        Cell::new(format!("MTU {}", port.mtu)),
    ]
}

fn write_cluster(out: &mut String, cluster: &Cluster, tunnels: &[Tunnel], colour: bool) {
    let name = if cluster.id & IMPLICIT == 0 {
        format!("cluster {}", cluster.id)
    } else {
        "gateway".to_owned()
    };
    let (state, look) = match (cluster.state, cluster.active) {
        (ClusterState::Up, Some(active)) => (format!("up through {active}"), Look::Good),
        (ClusterState::Up, None) => ("up".to_owned(), Look::Good),
        (ClusterState::Idle, _) => ("idle: no traffic has needed it".to_owned(), Look::Plain),
        (ClusterState::Authenticating, _) => (
            "authenticating: traffic waits for a key".to_owned(),
            Look::Odd,
        ),
        (ClusterState::Rejected, _) => (
            "REJECTED: no gateway authenticated, trying again".to_owned(),
            Look::Bad,
        ),
    };
    let name = Look::Bold.paint(&name, colour);
    let _ = writeln!(out, "{name}  {}", look.paint(&state, colour));
    for tunnel in tunnels.iter().filter(|tunnel| tunnel.cluster == cluster.id) {
        let _ = writeln!(out, "  tunnel {}: {}", tunnel.number, tunnel.range);
    }
    let mut rows = vec![table::head(&[
        "",
        "gateway",
        "identity",
        "state",
        "last heard",
        "rtt",
        "heartbeats",
    ])];
    rows.extend(cluster.gateways.iter().map(gateway));
    table::write(out, 2, &rows, colour);
}

fn gateway(gateway: &Gateway) -> Vec<Cell> {
    let (marker, state, look) = match (gateway.active, gateway.keyed) {
        (true, true) => ("▶", "active", Look::Good),
        (true, false) => ("▶", "active, no key", Look::Bad),
        (false, true) => (" ", "keyed", Look::Plain),
        (false, false) => (" ", "no key", Look::Dim),
    };
    let lost = gateway
        .heartbeats_sent
        .saturating_sub(gateway.heartbeats_answered);
    let heartbeats = match (gateway.heartbeats_sent, lost) {
        (0, _) => Cell::new("none sent").look(Look::Dim),
        (sent, 0) => Cell::new(format!("{} sent", count(sent))),
        (sent, lost) => {
            let text = format!("{} sent, {} unanswered", count(sent), count(lost));
            Cell::new(text).look(Look::Odd)
        }
    };
    let or_dash = |value: Option<u64>, suffix: &str| match value {
        Some(micros) => format!("{}{suffix}", time(micros)),
        None => "–".to_owned(),
    };
    vec![
        Cell::new(marker).look(Look::Good),
        Cell::new(gateway.address.to_string()).look(look),
        Cell::new(gateway.identity.as_deref().unwrap_or("no [[peer]] for it")),
        Cell::new(state).look(look),
        Cell::new(or_dash(gateway.last_heard_us, " ago")),
        Cell::new(or_dash(gateway.rtt_us, "")),
        heartbeats,
    ]
}

/// Authority and edges.
fn write_sharing(out: &mut String, status: &Status, colour: bool) {
    for authority in &status.authorities {
        let model::Authority {
            number,
            at,
            pairs,
            owned,
        } = authority;
        let which = number.map_or_else(String::new, |number| format!(" {number}"));
        let (text, look) = match at {
            Some(at) => (format!("edge of authority{which} at {at}"), Look::Good),
            None => (
                format!("edge WITHOUT AUTHORITY{which}: traffic goes on, it serves nobody new"),
                Look::Bad,
            ),
        };
        let text = format!("{text}; {pairs} pairs of SAs are here, {owned} in use here");
        let _ = writeln!(out, "{}", look.paint(&text, colour));
    }
    if let Some(connectivity) = &status.connectivity {
        super::parties::write(out, connectivity, colour);
    }
    if status.role != Role::Authority {
        return;
    }
    let _ = writeln!(out, "{}", Look::Bold.paint("edges", colour));
    let mut rows = vec![table::head(&[
        "",
        "edge",
        "name",
        "connected from",
        "in use there",
        "IKE by channel",
        "translated",
    ])];
    rows.extend(status.edges.iter().map(|edge| {
        let (from, look) = match edge.from {
            Some(from) => (from.to_string(), Look::Good),
            None => ("NOT CONNECTED".to_owned(), Look::Bad),
        };
        vec![
            Cell::new(" "),
            Cell::new(edge.number.to_string()),
            Cell::new(&edge.name),
            Cell::new(from).look(look),
            Cell::new(count(edge.owned)).right(),
            Cell::new(count(edge.relayed)).right(),
            Cell::new(count(edge.translated)).right(),
        ]
    }));
    table::write(out, 2, &rows, colour);
}

fn write_sessions(out: &mut String, status: &Status, colour: bool) {
    if status.sessions.is_empty() {
        // A front has none by nature.
        if status.role != Role::Front {
            out.push_str("no sessions\n");
        }
        return;
    }
    let _ = writeln!(out, "{}", Look::Bold.paint("sessions", colour));
    let mut rows = vec![table::head(&[
        "", "peer", "outside", "inner", "cipher", "MTU", "age", "in", "out",
    ])];
    rows.extend(status.sessions.iter().map(|s| session(s, status.role)));
    table::write(out, 2, &rows, colour);
}

/// What the path carries; how that is known only where it is not settled.
fn path(session: &Session) -> Cell {
    match (session.path_mtu, session.path_state.as_str()) {
        (0, _) => Cell::new("–"),
        (mtu, "complete" | "followed" | "") => Cell::new(mtu.to_string()),
        (mtu, "error") => Cell::new(format!("{mtu} error")).look(Look::Bad),
        (mtu, state) => Cell::new(format!("{mtu} {state}")).look(Look::Odd),
    }
}

fn session(session: &Session, role: Role) -> Vec<Cell> {
    let look = if session.active {
        Look::Good
    } else {
        Look::Plain
    };
    let traffic = |packets, octets| format!("{} ({})", count(packets), bytes(octets));
    let inner: Vec<String> = session.inner.iter().map(ToString::to_string).collect();
    // Clients start sessions, as a rule: what is worth a word is the other way.
    let odd_start = session.initiator == (role != Role::Client);
    let peer = match odd_start {
        true if role != Role::Client => format!("{} (started here)", session.peer),
        true => format!("{} (started there)", session.peer),
        false => session.peer.clone(),
    };
    let mut age = time(session.age_ms.saturating_mul(1000));
    if session.resumed {
        age.push_str(", resumed");
    }
    vec![
        Cell::new(if session.active { "▶" } else { " " }).look(look),
        Cell::new(peer).look(look),
        Cell::new(session.outside.to_string()),
        Cell::new(inner.join(" ")),
        Cell::new(&session.cipher),
        path(session),
        Cell::new(age),
        Cell::new(traffic(session.packets_in, session.bytes_in)).right(),
        Cell::new(traffic(session.packets_out, session.bytes_out)).right(),
    ]
}

/// What the packet filter has done.
fn write_filter(out: &mut String, status: &Status, colour: bool) {
    if status.filter.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", Look::Bold.paint("filter", colour));
    let titles = ["class", "direct", "refused", "IKE and ESP refused"];
    let mut rows = vec![table::head(&titles)];
    rows.extend(status.filter.iter().map(|class| {
        let refused = |value| Cell::new(count(value)).look(Look::Odd).right();
        vec![
            Cell::new(&class.name),
            Cell::new(count(class.direct)).right(),
            refused(class.refused),
            refused(class.service),
        ]
    }));
    table::write(out, 2, &rows, colour);
}

/// Those that are not zero, the largest first.
fn write_counters(
    out: &mut String,
    title: &str,
    values: &[CounterValue],
    look: Look,
    colour: bool,
) {
    let mut counted: Vec<&CounterValue> = values.iter().filter(|c| c.value > 0).collect();
    if counted.is_empty() {
        return;
    }
    counted.sort_by_key(|counter| std::cmp::Reverse(counter.value));
    let _ = writeln!(out, "\n{}", Look::Bold.paint(title, colour));
    let row = |counter: &&CounterValue| {
        vec![
            Cell::new(count(counter.value)).look(look).right(),
            Cell::new(&counter.name),
            Cell::new(&counter.text).look(Look::Dim),
        ]
    };
    let rows: Vec<_> = counted.iter().map(row).collect();
    table::write(out, 2, &rows, colour);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn classes_of_the_filter_are_shown() {
        let mut status = sample::gateway_in_trouble();
        assert!(!render(&status, false).contains("filter"));
        status.filter = vec![model::FilterClass {
            name: "guests".to_owned(),
            direct: 7,
            refused: 12,
            service: 3,
        }];
        let shown = render(&status, false);
        let rows = shown.lines().skip_while(|line| *line != "filter");
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..3], ["class", "direct", "refused"], "{shown}");
        assert_eq!(rows[2], ["guests", "7", "12", "3"], "{shown}");
    }

    #[test]
    fn a_client_looks_like_this() {
        assert_eq!(
            render(&sample::client(), false),
            include_str!("testdata/client.txt")
        );
    }

    #[test]
    fn a_gateway_in_trouble_looks_like_this() {
        let expected = include_str!("testdata/gateway.txt");
        assert_eq!(render(&sample::gateway_in_trouble(), false), expected);
    }

    #[test]
    fn the_manual_shows_what_is_drawn() {
        let manual = include_str!("../../../docs/operating.md");
        assert!(manual.contains(&render(&sample::client(), false)));
    }

    #[test]
    fn colours_change_nothing_else() {
        let painted = render(&sample::client(), true);
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some((before, escape)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = escape.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, render(&sample::client(), false));
        assert!(painted.contains("\x1b[1;32mactive\x1b[0m"));
        assert!(painted.contains("\x1b[1;31mREJECTED"));
    }
}
