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
        (connectivity.stations, "stations asked for"),
        (connectivity.stations_found, "of them known"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_and_what_was_refused_are_shown() {
        let party = |number: u16, present, silent_ms| Party {
            number,
            at: format!("10.0.0.{}:4511", 10 + number).parse().unwrap(),
            present,
            silent_ms,
            pairs: 812,
            owned: 3,
        };
        let connectivity = Connectivity {
            at: "10.0.0.11:4511".parse().unwrap(),
            parties: vec![
                party(0, true, Some(400)),
                party(2, false, Some(4_000)),
                party(3, false, None),
            ],
            asked: 12,
            found: 11,
            lacking: 1,
            stations: 0,
            stations_found: 0,
            late: 0,
            unusable: 0,
            answered: 4,
            ike_sent: 0,
            ike_received: 0,
            strange: 0,
            repeated: 0,
            forged: 7,
            unreadable: 0,
        };
        let mut shown = String::new();
        write(&mut shown, &connectivity, false);
        let expected = "\
connectivity at 10.0.0.11:4511; 12 questions, 11 answered by other edges, 1 put to the authority, 4 of others answered; 7 forged
     authority  10.0.0.10:4511  present                812 pairs, 3 in use
     edge 2     10.0.0.12:4511  ABSENT, silent for 4 s 812 pairs, 3 in use
     edge 3     10.0.0.13:4511  not heard yet          812 pairs, 3 in use
";
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            text.lines().map(line).collect()
        };
        assert_eq!(words(&shown), words(expected), "{shown}");
    }
}
