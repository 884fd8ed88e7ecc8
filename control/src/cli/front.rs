//! What `evergate status` shows of a front.

use std::fmt::Write as _;

use super::number::{count, time};
use super::table::{self, Cell, Look};
use crate::api::model::{Front, FrontNode, NodeState};

/// The nodes, and who has how many of the clients.
pub(super) fn write(out: &mut String, front: &Front, colour: bool) {
    let living = front.nodes.iter().any(|node| node.state != NodeState::Dead);
    let (text, look) = match living {
        true => (format!("front at {}", front.address), Look::Good),
        false => (
            format!(
                "front at {}: NO NODE LIVES, all packets are dropped",
                front.address
            ),
            Look::Bad,
        ),
    };
    let _ = writeln!(out, "{}", look.paint(&text, colour));
    let mut rows = vec![table::head(&[
        "",
        "node",
        "address",
        "state",
        "clients",
        "rtt",
        "heartbeats",
    ])];
    rows.extend(front.nodes.iter().map(|node| row(node, front.slots)));
    table::write(out, 2, &rows, colour);
}

fn row(node: &FrontNode, of: u32) -> Vec<Cell> {
    let (state, look) = match node.state {
        NodeState::Well => ("well", Look::Good),
        NodeState::Proving => ("back, no clients yet", Look::Odd),
        NodeState::Draining => ("draining", Look::Odd),
        NodeState::Dead => ("DEAD", Look::Bad),
    };
    let lost = node
        .heartbeats_sent
        .saturating_sub(node.heartbeats_answered);
    let heartbeats = match (node.own, lost) {
        (true, _) => Cell::new("this node").look(Look::Dim),
        (false, 0) => Cell::new(format!("{} sent", count(node.heartbeats_sent))),
        (false, lost) => {
            let sent = count(node.heartbeats_sent);
            Cell::new(format!("{sent} sent, {} unanswered", count(lost))).look(Look::Odd)
        }
    };
    let share = f64::from(node.slots) * 100.0 / f64::from(of.max(1));
    vec![
        Cell::new(if node.slots > 0 { "▶" } else { " " }).look(Look::Good),
        Cell::new(node.number.to_string()),
        Cell::new(node.address.to_string()).look(look),
        Cell::new(state).look(look),
        Cell::new(format!("{share:.1} %")).right(),
        Cell::new(node.rtt_us.map_or_else(|| "–".to_owned(), time)),
        heartbeats,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_shown_with_their_share() {
        let node = |number: u8, state, slots, own| FrontNode {
            number,
            address: std::net::Ipv4Addr::new(192, 0, 2, number).into(),
            own,
            state,
            slots,
            heartbeats_sent: 1000,
            heartbeats_answered: 1000 - u64::from(number),
            rtt_us: Some(87),
        };
        let mut front = Front {
            address: std::net::Ipv4Addr::new(192, 0, 2, 9).into(),
            slots: 4096,
            nodes: vec![
                node(1, NodeState::Well, 3072, false),
                node(2, NodeState::Well, 1024, true),
                node(3, NodeState::Dead, 0, false),
            ],
        };
        let mut shown = String::new();
        write(&mut shown, &front, false);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = shown.lines().map(words).collect();
        assert_eq!(
            lines,
            [
                "front at 192.0.2.9",
                "node address state clients rtt heartbeats",
                "▶ 1 192.0.2.1 well 75.0 % 87 µs 1,000 sent, 1 unanswered",
                "▶ 2 192.0.2.2 well 25.0 % 87 µs this node",
                "3 192.0.2.3 DEAD 0.0 % 87 µs 1,000 sent, 3 unanswered",
            ],
            "{shown}"
        );
        front.nodes.drain(..2);
        shown.clear();
        write(&mut shown, &front, false);
        assert!(shown.contains("NO NODE LIVES"), "{shown}");
    }
}
