//! The state table itself, and its copy in the documentation.

use super::super::table::{Event, Phase};

const EVENTS: [Event; 12] = [
    Event::Wanted,
    Event::Rejected,
    Event::Activated,
    Event::Lost,
    Event::LostIdle,
    Event::Heard,
    Event::Resumed,
    Event::Silent,
    Event::SilentUnused,
    Event::Sent,
    Event::Unanswered,
    Event::Overslept,
];

fn table() -> String {
    let mut text = String::from("| event |");
    for phase in Phase::ALL {
        text += &format!(" {} |", phase.word());
    }
    text += "\n| --- |";
    text += &" --- |".repeat(Phase::ALL.len());
    for event in EVENTS {
        text += &format!("\n| {event:?} |");
        for phase in Phase::ALL {
            text += &format!(" {} |", phase.after(event).map_or("–", Phase::word));
        }
    }
    text
}

#[test]
fn the_documentation_has_this_table() {
    let page = include_str!("../../../../docs/failover.md");
    assert!(
        page.contains(&table()),
        "docs/failover.md should contain:\n{}",
        table()
    );
}

#[test]
fn every_phase_can_be_reached_and_left() {
    let steps: Vec<(Phase, Phase)> = Phase::ALL
        .iter()
        .flat_map(|from| {
            EVENTS
                .iter()
                .filter_map(|event| Some((*from, from.after(*event)?)))
        })
        .collect();
    for phase in Phase::ALL {
        assert!(
            steps
                .iter()
                .any(|(from, to)| *to == phase && *from != phase),
            "into {phase:?}"
        );
        assert!(
            steps
                .iter()
                .any(|(from, to)| *from == phase && *to != phase),
            "out of {phase:?}"
        );
    }
}
