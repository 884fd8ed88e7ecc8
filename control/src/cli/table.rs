//! Aligned columns with colours that do not disturb them.

use std::fmt::Write as _;

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Plain,
    Bold,
    Dim,
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Broken.
    Bad,
}

impl Look {
    /// The text as it goes to the terminal.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            _ if !colour || text.is_empty() => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "1;32",
            Self::Odd => "33",
            Self::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    look: Look,
    right: bool,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn look(mut self, look: Look) -> Self {
        self.look = look;
        self
    }

    /// Aligns the column to the right, as numbers are.
    pub(super) fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

/// Writes rows with their columns aligned, two blanks between them and `indent` before.
pub(super) fn write(out: &mut String, indent: usize, rows: &[Vec<Cell>], colour: bool) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let lengths = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.text.chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let right = |column: usize| {
        rows.iter()
            .any(|row| row.get(column).is_some_and(|c| c.right))
    };
    let rights: Vec<bool> = (0..columns).map(right).collect();
    for row in rows {
        let mut line = " ".repeat(indent);
        // The end of the line without the blanks that only pad it.
        let mut end = 0;
        for ((cell, width), right) in row.iter().zip(&widths).zip(&rights) {
            let pad = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let text = cell.look.paint(&cell.text, colour);
            if *right {
                line.push_str(&pad);
            }
            line.push_str(&text);
            if !cell.text.is_empty() {
                end = line.len();
            }
            if !*right {
                line.push_str(&pad);
            }
            line.push_str("  ");
        }
        line.truncate(end);
        // Writing to a String does not fail.
        let _ = writeln!(out, "{line}");
    }
}

/// The heads of columns.
pub(super) fn head(names: &[&str]) -> Vec<Cell> {
    names
        .iter()
        .map(|name| Cell::new(*name).look(Look::Dim))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_move_columns() {
        let rows = [
            vec![
                Cell::new("a").look(Look::Good),
                Cell::new("1").right(),
                Cell::new("µ"),
            ],
            vec![Cell::new("long"), Cell::new("100").right(), Cell::new("")],
        ];
        let mut plain = String::new();
        write(&mut plain, 2, &rows, false);
        assert_eq!(plain, "  a       1  µ\n  long  100\n");
        let mut coloured = String::new();
        write(&mut coloured, 2, &rows, true);
        assert_eq!(
            coloured.replace("\x1b[1;32m", "").replace("\x1b[0m", ""),
            plain
        );
    }
}
