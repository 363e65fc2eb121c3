//! How lines look: a container's as `web   | text`, and `web   > text` where it goes on; our own as `garboard: text`, and
//! `garboard> text`, which no container's name makes.
//!
//! Lines are broken at the terminal's width, each row with its prefix. Left to the terminal, the break would put text of the
//! container's choice, which our own lines quote, too, at the start of a row, where it could pass for one of ours.

use crate::escape::escape_into;
use crate::logs::Piece;

/// Width of a serial terminal that doesn't say.
const COLUMNS: usize = 80;
/// Names are padded up to this; longer ones stand out.
const WIDEST_NAME: usize = 16;
/// How each of our own lines begins, and each further row of it.
const OWN: [&str; 2] = ["garboard: ", "garboard> "];
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
        let name_width = name.len().max(self.name);
        let mut mark = if piece.continues { '>' } else { '|' };
        self.broken(piece.text, name_width.saturating_add(3), fitting, |row| {
            out(&format!("{name:<name_width$} {mark} {row}\n"));
            mark = '>';
        });
    }

    /// The rows of a line of our own, each with its line feed.
    pub(super) fn own_rows(&self, text: &str) -> String {
        let [mut begin, further] = OWN;
        let mut rows = String::with_capacity(text.len().saturating_add(16));
        self.broken(text.as_bytes(), begin.len(), words_fitting, |row| {
            rows.extend([std::mem::replace(&mut begin, further), row, "\n"]);
        });
        rows
    }

    /// Gives out text in parts that fit beside a prefix of so many columns, at least one.
    fn broken(&self, text: &[u8], prefix: usize, fitting: fn(&str, usize) -> usize, mut out: impl FnMut(&str)) {
        let mut escaped = String::with_capacity(text.len());
        escape_into(&mut escaped, text);
        let room = self.columns.saturating_sub(prefix).max(NARROWEST_TEXT);
        let mut rest = escaped.as_str();
        loop {
            let (now, later) = rest.split_at_checked(fitting(rest, room)).unwrap_or((rest, ""));
            out(now);
            if later.is_empty() {
                return;
            }
            rest = later;
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

/// The same in whole words, with the blank after the last, if that leaves the row half full at least.
fn words_fitting(text: &str, columns: usize) -> usize {
    let end = fitting(text, columns);
    let row = text.get(..end).filter(|_| end < text.len()).unwrap_or_default();
    let blank = row.rfind(' ').and_then(|at| at.checked_add(1));
    blank.filter(|at| *at > end.saturating_div(2)).unwrap_or(end)
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
    fn no_row_of_our_own_begins_with_what_it_quotes() {
        let layout = Layout::new(0);
        let lie = "garboard: web is healthy";
        let text = format!("web is unhealthy: {}{lie}", "x".repeat(52));
        assert_eq!(
            layout.own_rows(&text),
            format!("garboard: web is unhealthy: {}\ngarboard> {lie}\n", "x".repeat(52))
        );
        let text_of_words = "word ".repeat(20);
        assert_eq!(
            layout.own_rows(&text_of_words),
            format!("garboard: {}\ngarboard> {}\n", "word ".repeat(14), "word ".repeat(6))
        );
        assert_eq!(layout.own_rows(""), "garboard: \n");
        assert_eq!(layout.own_rows(&format!("a\n{lie}")), format!("garboard: a\\x0a{lie}\n"));
        assert!(Layout::new(40).own_rows(&text).lines().all(|row| row.len() <= 40));
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
