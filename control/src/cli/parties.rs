//! Who takes part in the connectivity protocol, in `evergate status`.

use std::fmt::Write as _;

use super::number::{count, time};
use super::table::{self, Cell, Look};
use crate::api::model::{Connectivity, Party};

pub(super) fn write(out: &mut String, connectivity: &Connectivity, colour: bool) {
    let at = format!("connectivity at {}", connectivity.at);
    let told = [
        (connectivity.asked, "questions"),
        (connectivity.found, "answered by other edges"),
        (connectivity.lacking, "put to the authority"),
        (connectivity.answered, "of others answered"),
        (connectivity.unusable, "pairs of no use"),
        (connectivity.late, "answers too late"),
        (connectivity.ike_sent, "IKE messages sent"),
        (connectivity.ike_received, "IKE messages received"),
    ];
    let refused = [
        (connectivity.strange, "strange"),
        (connectivity.repeated, "repeated"),
        (connectivity.forged, "forged"),
        (connectivity.unreadable, "unreadable"),
    ];
    let shown = |values: &[(u64, &str)]| {
        let there = values.iter().filter(|(value, _)| *value > 0);
        let words = there.map(|(value, what)| format!("{} {what}", count(*value)));
        words.collect::<Vec<_>>().join(", ")
    };
    let _ = write!(out, "{}", Look::Bold.paint(&at, colour));
    for (text, look) in [(shown(&told), Look::Plain), (shown(&refused), Look::Odd)] {
        if !text.is_empty() {
            let _ = write!(out, "; {}", look.paint(&text, colour));
        }
    }
    out.push('\n');
    let rows: Vec<_> = connectivity.parties.iter().map(party).collect();
    table::write(out, 2, &rows, colour);
}

fn party(party: &Party) -> Vec<Cell> {
    let name = match party.number {
        0 => "authority".to_owned(),
        number => format!("edge {number}"),
    };
    let (state, look) = match (party.present, party.silent_ms) {
        (true, _) => ("present".to_owned(), Look::Good),
        (false, Some(silent)) => {
            let silent = time(silent.saturating_mul(1000));
            (format!("ABSENT, silent for {silent}"), Look::Bad)
        }
        (false, None) => ("not heard yet".to_owned(), Look::Odd),
    };
    vec![
        Cell::new(" "),
        Cell::new(name),
        Cell::new(party.at.to_string()),
        Cell::new(state).look(look),
        Cell::new(format!(
            "{} pairs, {} in use",
            count(party.pairs),
            count(party.owned)
        )),
    ]
}
