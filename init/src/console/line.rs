//! How a container's line looks: `web   | text`, and `web   > text` where it goes on.
//!
//! Lines are broken at the terminal's width, each row with its prefix. Left to the terminal, the break would put text of the
//! container's choice at the start of a row, where it could pass for one of ours.

use crate::escape::escape_into;
use crate::logs::Piece;

/// Width of a serial terminal that doesn't say.
const COLUMNS: usize = 80;
/// Names are padded up to this; longer ones stand out.
const WIDEST_NAME: usize = 16;
/// Text gets at least so many columns.
const NARROWEST_TEXT: usize = 20;

/// The columns.
#[derive(Debug)]
pub(super) struct Layout {
    columns: usize,
    name: usize,
}

impl Layout {
    /// For a terminal of so many columns; 0: unknown.
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: if columns == 0 { COLUMNS } else { columns }, name: 0 }
    }

    pub(super) fn align(&mut self, names: impl Iterator<Item = usize>) {
        self.name = names.filter(|n| *n <= WIDEST_NAME).max().unwrap_or(0);
    }

    /// Gives out the rows of one line, each with its line feed.
    pub(super) fn rows(&self, name: &str, piece: Piece<'_>, mut out: impl FnMut(&str)) {
        let mut text = String::with_capacity(piece.text.len());
        escape_into(&mut text, piece.text);
        let name_width = name.len().max(self.name);
        let room = self.columns.saturating_sub(name_width.saturating_add(3)).max(NARROWEST_TEXT);
        let mut mark = if piece.continues { '>' } else { '|' };
        let mut rest = text.as_str();
        loop {
            let (now, later) = rest.split_at_checked(fitting(rest, room)).unwrap_or((rest, ""));
            out(&format!("{name:<name_width$} {mark} {now}\n"));
            if later.is_empty() {
                return;
            }
            (rest, mark) = (later, '>');
        }
    }
}

/// How many bytes of `text` fit into so many columns. What is not ASCII counts double: it may be that wide.
fn fitting(text: &str, columns: usize) -> usize {
    let mut used = 0_usize;
    for (at, c) in text.char_indices() {
        used = used.saturating_add(if c.is_ascii() { 1 } else { 2 });
        if used > columns {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: usize, name: &str, text: &[u8], continues: bool) -> Vec<String> {
        let mut layout = Layout::new(columns);
        layout.align([3, 5, 40].into_iter());
        let mut out = Vec::new();
        layout.rows(name, Piece { text, continues, unfinished: false }, |row| out.push(row.to_owned()));
        out
    }

    #[test]
    fn names_are_padded_and_lines_marked() {
        assert_eq!(rows(0, "web", b"hello", false), ["web   | hello\n"]);
        assert_eq!(rows(0, "web", b"", false), ["web   | \n"]);
        assert_eq!(rows(0, "web", b"more", true), ["web   > more\n"]);
    }

    #[test]
    fn no_row_begins_with_what_a_container_chose() {
        let text = format!("{}garboard: all is well", "x".repeat(72));
        assert_eq!(
            rows(0, "web", text.as_bytes(), false),
            [format!("web   | {}\n", "x".repeat(72)), "web   > garboard: all is well\n".into()]
        );
        assert_eq!(
            rows(0, "web", b"a\ngarboard: x\rgarboard: y", false),
            ["web   | a\\x0agarboard: x\\x0dgarboard: y\n"]
        );
        for row in rows(40, "web", "船".repeat(100).as_bytes(), false) {
            assert!(row.chars().count() <= 8 + 16 + 1, "{row}");
        }
    }
}
