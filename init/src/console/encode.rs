//! From the screen that a terminal shows to the one that it should: as few bytes as may be, for a line of 11 KB a second.
//!
//! Only cells that differ are sent. A frame has a greatest size; what it leaves out, the next one has, made from what is wanted by
//! then. So a reader that is slow gets the newest state, and nothing piles up.

use std::fmt::Write;

use super::screen::{Cell, Color, Grid, Style};

/// A frame is full after so many bytes, about a third of a second of a usual line. A row that was begun is finished.
const FULL: usize = 4 << 10;
/// Unchanged cells in between are sent again rather than jumped over when they are no more than so many: a jump takes as much.
const GAP: usize = 4;
/// A row's blank end is erased rather than written when so many cells of it changed.
const ERASE: usize = 4;

/// Remembers what the terminal shows.
#[derive(Debug, Default)]
pub struct Encoder {
    /// `None`: nobody knows.
    shown: Option<Grid>,
    /// The row that a frame begins with: where the last one was full.
    begin: usize,
}

impl Encoder {
    /// The terminal may show anything now: the next frame begins with a clear screen.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// Bytes that bring the terminal nearer to `wanted`, and whether that takes another frame.
    pub fn frame(&mut self, wanted: &Grid) -> (String, bool) {
        let same_size = |shown: &Grid| shown.columns() == wanted.columns() && shown.rows() == wanted.rows();
        let mut out = Writer { text: String::new(), style: Style::PLAIN, at: None };
        if !self.shown.as_ref().is_some_and(same_size) {
            self.shown = Some(Grid::new(wanted.columns(), wanted.rows()));
            out.text.push_str("\x1b[0m\x1b[2J");
        }
        let Some(shown) = &mut self.shown else { return (String::new(), false) };
        let begin = std::mem::take(&mut self.begin);
        for row in (begin..wanted.rows()).chain(0..begin) {
            let Some((before, line)) = shown.line_mut(row).zip(wanted.line(row)) else { continue };
            if before == line {
                continue;
            }
            if out.text.len() >= FULL {
                self.begin = row;
                return (out.finish(), true);
            }
            out.line(row, before, line);
            before.copy_from_slice(line);
        }
        (out.finish(), false)
    }
}

/// A frame in the making.
struct Writer {
    text: String,
    /// How the terminal shows what comes next.
    style: Style,
    /// Where that is; `None`: nobody knows.
    at: Option<(usize, usize)>,
}

impl Writer {
    fn line(&mut self, row: usize, before: &[Cell], wanted: &[Cell]) {
        // From here on the row is blank.
        let end = wanted.iter().rposition(|cell| *cell != Cell::BLANK).map_or(0, |at| at.saturating_add(1));
        let stale = before.iter().skip(end).filter(|cell| **cell != Cell::BLANK).count();
        let erased = stale >= ERASE;
        let limit = if erased { end } else { wanted.len() };
        for (column, (old, new)) in before.iter().zip(wanted).enumerate().take(limit) {
            if old != new {
                self.go(row, column, wanted);
                self.cell(row, column, *new, wanted.len());
            }
        }
        if erased {
            self.go(row, end, wanted);
            self.wear(Style::PLAIN);
            self.text.push_str("\x1b[K");
        }
    }

    /// Moves to a place, over what stands there already if that is shorter.
    fn go(&mut self, row: usize, column: usize, wanted: &[Cell]) {
        match self.at {
            Some(at) if at == (row, column) => return,
            Some((same, from)) if same == row && from < column => {
                let between = wanted.get(from..column).unwrap_or_default();
                if between.len() <= GAP && between.iter().all(|cell| cell.style == self.style) {
                    self.text.extend(between.iter().map(|cell| char::from(cell.byte())));
                } else {
                    let _ = write!(self.text, "\x1b[{}C", column.saturating_sub(from));
                }
            }
            _ => {
                let _ = write!(self.text, "\x1b[{};{}H", row.saturating_add(1), column.saturating_add(1));
            }
        }
        self.at = Some((row, column));
    }

    fn cell(&mut self, row: usize, column: usize, cell: Cell, columns: usize) {
        self.wear(cell.style);
        self.text.push(char::from(cell.byte()));
        // Terminals differ in where the cursor is after the last column.
        let next = column.saturating_add(1);
        self.at = (next < columns).then_some((row, next));
    }

    fn wear(&mut self, style: Style) {
        if self.style == style {
            return;
        }
        self.style = style;
        self.text.push_str("\x1b[0");
        if style.bold {
            self.text.push_str(";1");
        }
        if style.reverse {
            self.text.push_str(";7");
        }
        self.text.push_str(match style.color {
            Color::Default => "",
            Color::Red => ";31",
            Color::Green => ";32",
            Color::Yellow => ";33",
            Color::Cyan => ";36",
        });
        self.text.push('m');
    }

    /// Leaves the terminal as the next frame expects it.
    fn finish(mut self) -> String {
        self.wear(Style::PLAIN);
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLORS: [(Color, vt100::Color); 5] = [
        (Color::Default, vt100::Color::Default),
        (Color::Red, vt100::Color::Idx(1)),
        (Color::Green, vt100::Color::Idx(2)),
        (Color::Yellow, vt100::Color::Idx(3)),
        (Color::Cyan, vt100::Color::Idx(6)),
    ];

    /// What an emulator that is not ours shows.
    fn seen(terminal: &vt100::Parser, columns: usize, rows: usize) -> Grid {
        let mut grid = Grid::new(columns, rows);
        for row in 0..rows {
            for (column, cell) in grid.line_mut(row).unwrap().iter_mut().enumerate() {
                let seen = terminal.screen().cell(row as u16, column as u16).unwrap();
                let color = COLORS.iter().find(|(_, theirs)| *theirs == seen.fgcolor()).unwrap().0;
                let style = Style { color, bold: seen.bold(), reverse: seen.inverse() };
                *cell = Cell::new(seen.contents().chars().next().unwrap_or(' '), style);
            }
        }
        grid
    }

    fn style() -> impl Strategy<Value = Style> {
        let color = prop::sample::select(COLORS.map(|(ours, _)| ours).to_vec());
        (color, any::<bool>(), any::<bool>()).prop_map(|(color, bold, reverse)| Style { color, bold, reverse })
    }

    /// A few texts at a few places.
    fn grid(columns: usize, rows: usize) -> impl Strategy<Value = Grid> {
        let text = (0..rows, 0..columns, "[ -~]{0,24}", style());
        prop::collection::vec(text, 0..16).prop_map(move |texts| {
            let mut grid = Grid::new(columns, rows);
            for (row, column, text, style) in texts {
                grid.put(row, column, columns, &text, style);
            }
            grid
        })
    }

    fn size() -> impl Strategy<Value = (usize, usize)> {
        (1..50_usize, 1..12_usize)
    }

    fn terminal(columns: usize, rows: usize) -> vt100::Parser {
        let size = |n: usize| u16::try_from(n).unwrap().try_into().unwrap();
        vt100::Parser::new(size(rows), size(columns), 0)
    }

    proptest! {
        #[test]
        fn a_terminal_shows_what_is_wanted_whatever_it_showed(
            (columns, rows, grids) in size().prop_flat_map(|(c, r)| (Just(c), Just(r), prop::collection::vec(grid(c, r), 1..5))),
            noise in "[ -~]{0,60}",
        ) {
            let mut terminal = terminal(columns, rows);
            terminal.process(b"\x1b[1;44m");
            terminal.process(noise.as_bytes());
            let mut encoder = Encoder::default();
            for wanted in grids {
                let (bytes, more) = encoder.frame(&wanted);
                prop_assert!(!more);
                terminal.process(bytes.as_bytes());
                prop_assert_eq!(&seen(&terminal, columns, rows), &wanted);
                prop_assert_eq!(encoder.frame(&wanted), (String::new(), false), "nothing is sent twice");
            }
        }
    }

    #[test]
    fn a_large_change_comes_in_frames_and_the_newest_wins() {
        let (columns, rows) = (200, 60);
        let filled = |c: &str| {
            let mut grid = Grid::new(columns, rows);
            for row in 0..rows {
                grid.put(row, 0, columns, &c.repeat(columns), Style::PLAIN);
            }
            grid
        };
        let mut terminal = terminal(columns, rows);
        let mut encoder = Encoder::default();
        let (first, more) = encoder.frame(&filled("a"));
        assert!(more && first.len() <= FULL + 2 * columns, "{}", first.len());
        terminal.process(first.as_bytes());
        // Every row has its turn, however much changes meanwhile.
        for text in ["b", "c", "d", "e", "f", "g"] {
            terminal.process(encoder.frame(&filled(text)).0.as_bytes());
        }
        let shown = seen(&terminal, columns, rows);
        assert!(shown.lines().all(|line| b"efg".contains(&line[0].byte())), "{:?}", shown.lines().next());
        let mut frames = 0;
        while encoder.shown.as_ref() != Some(&filled("b")) {
            terminal.process(encoder.frame(&filled("b")).0.as_bytes());
            frames += 1;
        }
        assert!(frames <= 4, "{frames}");
        assert_eq!(seen(&terminal, columns, rows), filled("b"));
    }

    #[test]
    fn a_small_change_is_a_few_bytes() {
        let mut grid = Grid::new(80, 24);
        grid.put(3, 10, 70, "running    12 s", Style::color(Color::Green));
        let mut encoder = Encoder::default();
        let _ = encoder.frame(&grid);
        grid.put(3, 21, 9, "13 s", Style::color(Color::Green));
        assert_eq!(encoder.frame(&grid).0, "\x1b[4;23H\x1b[0;32m3\x1b[0m");
        let empty = Grid::new(80, 24);
        assert_eq!(encoder.frame(&empty).0, "\x1b[4;1H\x1b[K");
    }
}
