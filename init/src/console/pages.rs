//! The other pages: a log, be it a container's or the kernel's, what happened, how the boot went, what the kernel can do, the keys.

use std::ops::Range;

use super::dashboard::{Dashboard, Gate, Log, Page};
use super::draw::Model;
use super::screen::{Color, Grid, Style, escape};
use crate::boot::{Feature, Step, Verdict};
use crate::events::{Event, Kind};
use crate::logs::Entry;

/// Columns of a time.
const TIME: usize = 11;

const HELP: &[(&str, &str)] = &[
    ("up down j k", "the container above, below; a row up, down"),
    ("PgUp PgDn", "a page up, down"),
    ("Home End g G", "the first, the last; the end of a log is followed"),
    ("Enter l", "what the selected container printed"),
    ("m", "what the kernel warned of; while this is open it prints emergencies only"),
    ("e", "what happened"),
    ("t", "how the boot went, step by step"),
    ("f", "what this kernel can do, and what it lacks"),
    ("? h", "this page"),
    ("Ctrl-L", "draw the screen anew, in the terminal's size"),
    ("Esc q", "back; from the first page, back to plain lines"),
];
const CONTROL_HELP: &[(&str, &str)] = &[
    ("r", "restart the selected container"),
    ("s", "stop it, until it is started by hand"),
    ("S a", "start it"),
    ("x", "a shell in it; Ctrl-] leaves that"),
    ("", "these ask for the passphrase once, until the dashboard is closed"),
];

/// Draws the dashboard's page into some rows of the grid.
pub(super) fn draw(dashboard: &mut Dashboard, model: &Model<'_>, grid: &mut Grid, page: Range<usize>) {
    let rows = page.start.saturating_add(1)..page.end;
    let title = match dashboard.page() {
        Page::Logs | Page::Messages => log(dashboard, model, grid, rows),
        Page::Events => {
            let seen = dashboard.rows.window(model.events.len(), rows.len());
            if model.events.is_empty() {
                grid.put(rows.start, 1, usize::MAX, "nothing yet", Style::PLAIN);
            }
            events(grid, rows, model.events, seen.start);
            "EVENTS".to_owned()
        }
        Page::Trace => {
            let seen = dashboard.rows.window(model.trace.len(), rows.len());
            trace(grid, rows, model.trace, seen);
            "BOOT  ms since the kernel started, ms that it took".to_owned()
        }
        Page::Features => {
            let all = &model.snapshot.features;
            let seen = dashboard.rows.window(all.len(), rows.len());
            features(grid, rows, all.get(seen).unwrap_or_default());
            "KERNEL".to_owned()
        }
        Page::Help | Page::Containers => {
            let further = if matches!(dashboard.gate, Gate::Shut) { &[] } else { CONTROL_HELP };
            let seen = dashboard.rows.window(HELP.len().saturating_add(further.len()), rows.len());
            for (row, (keys, text)) in rows.zip(HELP.iter().chain(further).skip(seen.start)) {
                grid.put(row, 1, 14, keys, Style::BOLD);
                grid.put(row, 16, usize::MAX, text, Style::PLAIN);
            }
            "KEYS".to_owned()
        }
    };
    grid.put(page.start, 1, usize::MAX, &title, Style::ASIDE);
}

/// Milliseconds since boot as hours, minutes, seconds and tenths.
fn clock(ms: u64) -> String {
    let part = |unit: u64, of: u64| ms.checked_div(unit).and_then(|n| n.checked_rem(of)).unwrap_or(0);
    format!("{:02}:{:02}:{:02}.{}", part(3_600_000, u64::MAX), part(60_000, 60), part(1_000, 60), part(100, 10))
}

/// One row of a log.
struct Row {
    /// Empty where a line goes on.
    time: String,
    text: String,
}

/// The rows of some lines on so many columns. Each is marked, so that no row of a container's begins with what it chose.
fn rows_of(entries: &[Entry], columns: usize) -> Vec<Row> {
    let room = columns.saturating_sub(TIME.saturating_add(4)).max(1);
    let mut rows = Vec::new();
    for entry in entries {
        let text = escape(&entry.text);
        let mut rest = text.as_str();
        let mut time = if entry.continues { String::new() } else { clock(entry.time_ms) };
        loop {
            // It is ASCII: a byte is a column.
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, ""));
            rows.push(Row { time: std::mem::take(&mut time), text: now.to_owned() });
            if later.is_empty() {
                break;
            }
            rest = later;
        }
    }
    rows
}

fn log(dashboard: &mut Dashboard, model: &Model<'_>, grid: &mut Grid, page: Range<usize>) -> String {
    let shown = dashboard.log().unwrap_or(Log::Kernel);
    let newest;
    let entries = match &dashboard.held {
        Some(held) => held,
        None => {
            newest = (model.log)(shown);
            &newest
        }
    };
    let rows = rows_of(entries, grid.columns());
    let (title, empty, dropped) = match shown {
        Log::Container(index) => {
            let container = model.snapshot.containers.get(index);
            let name = container.map_or("", |container| container.name.as_str());
            let dropped = container.map_or(0, |container| container.log_dropped);
            (format!("LOG OF {name}"), "it has printed nothing", dropped)
        }
        Log::Kernel => ("WARNINGS OF THE KERNEL".to_owned(), "it has warned of nothing", 0),
    };
    let seen = dashboard.rows.window(rows.len(), page.len());
    if rows.is_empty() {
        grid.put(page.start, 1, usize::MAX, empty, Style::PLAIN);
    }
    for (at, row) in page.zip(rows.iter().take(seen.end).skip(seen.start)) {
        grid.put(at, 1, TIME, &row.time, Style::ASIDE);
        let mark = if row.time.is_empty() { ">" } else { "|" };
        grid.put(at, TIME.saturating_add(1), 1, mark, Style::ASIDE);
        grid.put(at, TIME.saturating_add(3), usize::MAX, &row.text, Style::PLAIN);
    }
    let how = if dashboard.rows.follows() { "following" } else { "held while you read; End goes on" };
    let lost = if dropped > 0 { "  (it printed too fast: some was thrown away)" } else { "" };
    format!("{title}  {how}{lost}")
}

/// Events from the one at `first` on.
pub(super) fn events(grid: &mut Grid, rows: Range<usize>, events: &[Event], first: usize) {
    let name = events.iter().filter_map(|e| e.container.as_ref()).map(String::len).max().unwrap_or(0).clamp(7, 16);
    for (row, event) in rows.zip(events.iter().skip(first)) {
        let (word, color) = word(event.kind);
        let mut at = 1_usize;
        let mut say = |width: usize, text: &str, style| {
            grid.put(row, at, width, text, style);
            at = at.saturating_add(width).saturating_add(1);
        };
        say(TIME, &clock(event.time_ms), Style::ASIDE);
        say(name, event.container.as_deref().unwrap_or("machine"), Style::BOLD);
        say(13, word, Style::color(color));
        grid.put(row, at, usize::MAX, &event.text, Style::PLAIN);
    }
}

fn word(kind: Kind) -> (&'static str, Color) {
    match kind {
        Kind::Boot => ("boot", Color::Default),
        Kind::Previous => ("boot before", Color::Default),
        Kind::Started => ("started", Color::Default),
        Kind::Ready => ("ready", Color::Green),
        Kind::Exited => ("exited", Color::Yellow),
        Kind::OutOfMemory => ("out of memory", Color::Red),
        Kind::LaunchFailed => ("launch failed", Color::Red),
        Kind::Failed => ("failed", Color::Red),
        Kind::Health => ("health", Color::Default),
        Kind::Stopping => ("stopping", Color::Yellow),
        Kind::Shutdown => ("shutdown", Color::Yellow),
        Kind::Crash => ("crash", Color::Red),
        Kind::Note => ("note", Color::Default),
    }
}

fn trace(grid: &mut Grid, rows: Range<usize>, steps: &[Step], seen: Range<usize>) {
    let mut before = seen.start.checked_sub(1).and_then(|i| steps.get(i)).map(|step| step.at_us);
    for (row, step) in rows.zip(steps.get(seen).unwrap_or_default()) {
        let took = step.at_us.saturating_sub(before.unwrap_or(step.at_us));
        before = Some(step.at_us);
        grid.put_right(row, 1, 11, &millis(step.at_us), Style::ASIDE);
        grid.put_right(row, 13, 10, &millis(took), Style::PLAIN);
        grid.put(row, 25, usize::MAX, &step.name, Style::PLAIN);
    }
}

/// Microseconds as milliseconds.
fn millis(us: u64) -> String {
    format!("{}.{:03}", us.checked_div(1000).unwrap_or(0), us.checked_rem(1000).unwrap_or(0))
}

fn features(grid: &mut Grid, rows: Range<usize>, features: &[Feature]) {
    for (row, feature) in rows.zip(features) {
        let (word, color) = match feature.verdict {
            Verdict::Ok => ("ok", Color::Green),
            Verdict::Degraded => ("degraded", Color::Yellow),
            Verdict::Missing => ("missing", Color::Red),
        };
        grid.put(row, 1, 14, &feature.name, Style::BOLD);
        grid.put(row, 16, 8, word, Style::color(color));
        let text = format!("{}  {}", feature.config, feature.detail);
        grid.put(row, 25, usize::MAX, text.trim_end(), Style::PLAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!(clock(0), "00:00:00.0");
        assert_eq!(clock(3_725_450), "01:02:05.4");
        assert_eq!(clock(400 * 3_600_000), "400:00:00.0");
    }

    #[test]
    fn long_lines_go_on_in_marked_rows() {
        let entry =
            |text: &[u8], continues| Entry { time_ms: 1_000, continues, unfinished: false, text: text.to_vec() };
        let rows = rows_of(&[entry(b"0123456789abc", false), entry(b"\x1b[2J", true), entry(b"", false)], 25);
        let seen: Vec<_> = rows.iter().map(|row| (row.time.as_str(), row.text.as_str())).collect();
        let time = "00:00:01.0";
        assert_eq!(seen, [(time, "0123456789"), ("", "abc"), ("", "\\x1b[2J"), (time, "")]);
    }
}
