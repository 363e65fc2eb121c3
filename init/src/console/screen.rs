//! What a terminal shows: a grid of cells.
//!
//! A cell can't hold anything but a printable ASCII character: whatever is put into a grid, nothing in it steers a terminal.
//! Serial terminals seldom agree on more than ASCII, and each of its characters is one cell wide on all of them.

use crate::escape::escape_into;

/// A terminal is taken to be at most so large, in columns and rows, whatever it says: it bounds memory.
pub const LARGEST: (usize, usize) = (240, 100);
/// What a terminal that doesn't say is taken for.
pub const USUAL: (usize, usize) = (80, 24);

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Style {
    /// Its colour.
    pub color: Color,
    /// Brighter or thicker.
    pub bold: bool,
    /// Background and foreground swapped.
    pub reverse: bool,
}

/// One of a terminal's own colours; what it looks like is the terminal's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Color {
    /// The terminal's foreground.
    #[default]
    Default,
    /// What went wrong.
    Red,
    /// What is well.
    Green,
    /// What should be looked at.
    Yellow,
    /// What is on its way.
    Cyan,
}

impl Style {
    /// As the terminal shows text without being told how.
    pub const PLAIN: Self = Self { color: Color::Default, bold: false, reverse: false };
    /// Titles.
    pub const BOLD: Self = Self { bold: true, ..Self::PLAIN };
    /// Numbers of columns and what a person need not read.
    pub const ASIDE: Self = Self::color(Color::Cyan);

    /// Plain, in a colour.
    pub const fn color(color: Color) -> Self {
        Self { color, ..Self::PLAIN }
    }
}

/// One place on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Printable ASCII.
    byte: u8,
    /// How it looks.
    pub style: Style,
}

impl Cell {
    /// Nothing there.
    pub const BLANK: Self = Self { byte: b' ', style: Style::PLAIN };

    /// A character; `?` for what is not printable ASCII.
    pub fn new(c: char, style: Style) -> Self {
        let byte = u8::try_from(c).ok().filter(|byte| (b' '..=b'~').contains(byte)).unwrap_or(b'?');
        Self { byte, style }
    }

    /// Its character, from space to `~`.
    pub fn byte(self) -> u8 {
        self.byte
    }
}

/// A screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    columns: usize,
    cells: Vec<Cell>,
}

impl Grid {
    /// A blank one, of at least one cell and at most [`LARGEST`].
    pub fn new(columns: usize, rows: usize) -> Self {
        let (most_columns, most_rows) = LARGEST;
        let columns = columns.clamp(1, most_columns);
        Self { columns, cells: vec![Cell::BLANK; columns.saturating_mul(rows.clamp(1, most_rows))] }
    }

    /// Its width.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Its height.
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Its rows, the topmost first.
    pub fn lines(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks(self.columns)
    }

    /// One of them.
    pub fn line(&self, row: usize) -> Option<&[Cell]> {
        self.lines().nth(row)
    }

    /// One of them, to be changed.
    pub fn line_mut(&mut self, row: usize) -> Option<&mut [Cell]> {
        self.cells.chunks_mut(self.columns).nth(row)
    }

    /// Writes `text` from a place on, at most `room` cells of it and none beyond the row's end; what is cut ends in `~`. Returns
    /// how many cells it took. Anything in `text` that is not plainly printable is written out; see [`escape`].
    pub fn put(&mut self, row: usize, column: usize, room: usize, text: &str, style: Style) -> usize {
        let start = row.saturating_mul(self.columns).saturating_add(column.min(self.columns));
        let room = room.min(self.columns.saturating_sub(column));
        let Some(cells) = self.cells.get_mut(start..start.saturating_add(room)) else { return 0 };
        let text = escape(text.as_bytes());
        let mut used = 0_usize;
        for (cell, c) in cells.iter_mut().zip(text.chars()) {
            *cell = Cell::new(c, style);
            used = used.saturating_add(1);
        }
        if text.len() > used
            && let Some(last) = cells.last_mut()
        {
            *last = Cell::new('~', style);
        }
        used
    }

    /// The same, with its end at the end of its `room`.
    pub fn put_right(&mut self, row: usize, column: usize, room: usize, text: &str, style: Style) {
        let before = room.saturating_sub(escape(text.as_bytes()).len());
        self.put(row, column.saturating_add(before), room.saturating_sub(before), text, style);
    }

    /// Makes a bar of a whole row, of one colour: patches in it would be harder to read than the words are.
    pub fn bar(&mut self, row: usize) {
        for cell in self.line_mut(row).into_iter().flatten() {
            cell.style = Style { color: Color::Default, reverse: true, ..cell.style };
        }
    }
}

/// Foreign text in printable ASCII: as [`escape_into`] has it, with other scripts written out, too.
pub fn escape(text: &[u8]) -> String {
    let mut visible = String::with_capacity(text.len());
    escape_into(&mut visible, text);
    if visible.is_ascii() {
        return visible;
    }
    let mut out = String::with_capacity(visible.len());
    for c in visible.chars() {
        if c.is_ascii() { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn text(grid: &Grid) -> Vec<String> {
        grid.lines().map(|line| line.iter().map(|cell| char::from(cell.byte())).collect()).collect()
    }

    #[test]
    fn text_is_cut_where_its_room_or_the_row_ends() {
        let mut grid = Grid::new(8, 2);
        assert_eq!(grid.put(0, 1, 4, "abcdef", Style::PLAIN), 4);
        assert_eq!(grid.put(1, 6, 9, "xyz", Style::BOLD), 2);
        assert_eq!(grid.put(2, 0, 9, "nowhere", Style::PLAIN), 0);
        assert_eq!(text(&grid), [" abc~   ", "      x~"]);
        grid.put_right(0, 5, 3, "7", Style::PLAIN);
        assert_eq!(text(&grid)[0], " abc~  7");
    }

    #[test]
    fn foreign_text_is_ascii() {
        assert_eq!(escape("na\u{ef}ve \x1b[2J\n".as_bytes()), "na\\u{ef}ve \\x1b[2J\\x0a");
    }

    proptest! {
        #[test]
        fn a_grid_holds_nothing_but_printable_ascii(text in any::<String>(), row in 0..5_usize, column in 0..20_usize,
                                                    room in 0..30_usize) {
            let mut grid = Grid::new(12, 4);
            grid.put(row, column, room, &text, Style::PLAIN);
            grid.put_right(row, column, room, &text, Style::PLAIN);
            prop_assert!(grid.lines().flatten().all(|cell| (b' '..=b'~').contains(&cell.byte())));
            prop_assert!(escape(text.as_bytes()).bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }
}
