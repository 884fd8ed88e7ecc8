//! Lines and words that know where they stand.

use super::diagnostic::Span;

/// A part of one line, with its position in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    line: u32,
    /// Of the first character, counted from 1.
    column: u32,
}

/// Counts characters; files beyond 4 Gi of them keep the highest column.
fn characters(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

impl<'a> Piece<'a> {
    pub(super) fn span(self) -> Span {
        Span {
            line: self.line,
            column: self.column,
            length: characters(self.text).max(1),
        }
    }

    /// The place just behind the piece, for what is missing there.
    pub(super) fn end(self) -> Span {
        let column = self.column.saturating_add(characters(self.text));
        Span {
            line: self.line,
            column,
            length: 1,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// Splits at a byte offset that lies on a character boundary; beyond the text, at its end.
    pub(super) fn split_at(self, offset: usize) -> (Self, Self) {
        let (head, tail) = self
            .text
            .split_at_checked(offset)
            .unwrap_or((self.text, ""));
        let column = self.column.saturating_add(characters(head));
        (
            Self { text: head, ..self },
            Self {
                text: tail,
                column,
                ..self
            },
        )
    }

    /// Without blanks around.
    pub(super) fn trim(self) -> Self {
        let leading = self.text.len() - self.text.trim_start().len();
        let (_, rest) = self.split_at(leading);
        Self {
            text: rest.text.trim_end(),
            ..rest
        }
    }

    /// The parts before and after the first `separator`, trimmed.
    pub(super) fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        let (head, rest) = self.split_at(at);
        let (_, tail) = rest.split_at(separator.len_utf8());
        Some((head.trim(), tail.trim()))
    }

    /// From the start of this piece to the end of `last`, which stands later on the same line.
    pub(super) fn through(self, last: Self) -> Span {
        let end = last.end().column;
        Span {
            length: end.saturating_sub(self.column).max(1),
            ..self.span()
        }
    }

    /// The words, parted by blanks.
    pub(super) fn words(self) -> Vec<Self> {
        self.cut(|_| false)
    }

    /// The words and dashes; a dash parts words even without blanks around it.
    pub(super) fn words_and_dashes(self) -> Vec<Self> {
        self.cut(is_dash)
    }

    /// Cuts at blanks, which vanish, and around single characters, which stay. One pass, so that
    /// a very long line costs linear time.
    fn cut(self, alone: impl Fn(char) -> bool) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut word: Option<(usize, u32)> = None;
        let mut column = self.column;
        for (offset, c) in self.text.char_indices() {
            let stands_alone = alone(c);
            if stands_alone || c.is_whitespace() {
                if let Some((from, column)) = word.take() {
                    pieces.push(Self {
                        text: &self.text[from..offset],
                        line: self.line,
                        column,
                    });
                }
            } else if word.is_none() {
                word = Some((offset, column));
            }
            if stands_alone {
                let text = &self.text[offset..offset + c.len_utf8()];
                pieces.push(Self {
                    text,
                    line: self.line,
                    column,
                });
            }
            column = column.saturating_add(1);
        }
        if let Some((from, column)) = word {
            pieces.push(Self {
                text: &self.text[from..],
                line: self.line,
                column,
            });
        }
        pieces
    }

    pub(super) fn is_dash(self) -> bool {
        let mut characters = self.text.chars();
        characters.next().is_some_and(is_dash) && characters.next().is_none()
    }
}

/// Hyphens, dashes and the minus sign: word processors turn each into the other.
fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// The file without its byte order mark.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The lines that say something, without comments and blanks around. Ends of line are LF or CRLF.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Piece<'_>> {
    without_mark(text)
        .lines()
        .zip(1u32..)
        .filter_map(|(text, line)| {
            let said = text.split(['#', ';']).next().unwrap_or("");
            let piece = Piece {
                text: said,
                line,
                column: 1,
            }
            .trim();
            (!piece.is_empty()).then_some(piece)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_counted_in_characters() {
        let text = "\u{feff}; note\r\n  Tunnel1 = a \u{2013} b\u{2013}c # x\r\n";
        let line = lines(text).next().unwrap();
        assert_eq!(
            line.span(),
            Span {
                line: 2,
                column: 3,
                length: 17
            }
        );
        let (key, value) = line.split_once('=').unwrap();
        assert_eq!((key.text, key.span().column), ("Tunnel1", 3));
        let pieces = value.words_and_dashes();
        let seen: Vec<_> = pieces.iter().map(|p| (p.text, p.span().column)).collect();
        assert_eq!(
            seen,
            [
                ("a", 13),
                ("\u{2013}", 15),
                ("b", 17),
                ("\u{2013}", 18),
                ("c", 19)
            ]
        );
        assert!(pieces[1].is_dash() && !pieces[0].is_dash());
        assert_eq!(
            pieces[0].through(pieces[2]),
            Span {
                line: 2,
                column: 13,
                length: 5
            }
        );
        assert_eq!(
            value.end(),
            Span {
                line: 2,
                column: 20,
                length: 1
            }
        );
    }

    #[test]
    fn a_comment_alone_is_no_line() {
        assert_eq!(lines("# a\n;b\n\n \t \n").count(), 0);
    }
}
