//! What every page has: the machine in the first rows, keys or a message in the last one. Between them is the page.

use super::dashboard::{Dashboard, Gate, Page};
use super::meter::Meter;
use super::screen::{Color, Grid, Style};
use super::session::View;
use super::{overview, pages, table};
use crate::boot::Verdict;
use crate::snapshot::{MachineState, Snapshot};

/// A smaller screen shows a message only, in columns and rows.
pub const SMALLEST: (usize, usize) = (40, 10);

/// What there is to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// How everything is.
    pub view: View<'a>,
    /// How busy the containers are.
    pub meter: &'a Meter,
}

impl<'a> std::ops::Deref for Model<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

/// Draws the dashboard on a blank grid.
pub fn draw(dashboard: &mut Dashboard, model: &Model<'_>, grid: &mut Grid) {
    let (columns, rows) = (grid.columns(), grid.rows());
    if columns < SMALLEST.0 || rows < SMALLEST.1 {
        grid.put(0, 0, columns, "too small; q: lines", Style::BOLD);
        return;
    }
    header(model.snapshot, grid);
    let page = 2..rows.saturating_sub(1);
    match dashboard.page() {
        Page::Containers => overview::draw(dashboard, model, grid, page),
        _ => pages::draw(dashboard, model, grid, page),
    }
    footer(dashboard, model.now, grid);
}

fn header(snapshot: &Snapshot, grid: &mut Grid) {
    let columns = grid.columns();
    let state = match (snapshot.state, snapshot.ready) {
        (MachineState::Running, true) => "running, all as declared",
        (MachineState::Running, false) => "running, NOT as declared",
        (other, _) => other.text(),
    };
    let right = format!("up {}  PID 1 {} ", table::duration(snapshot.uptime_ms), table::size(snapshot.pid1_rss_bytes));
    let room = columns.saturating_sub(right.len().saturating_add(1));
    let used = grid.put(0, 1, room, &snapshot.appliance, Style::BOLD);
    grid.put(0, used.saturating_add(2), room.saturating_sub(used.saturating_add(1)), state, Style::PLAIN);
    grid.put_right(0, room, columns.saturating_sub(room), &right, Style::PLAIN);
    grid.bar(0);

    let mut at = 1_usize;
    let mut say = |label: &str, text: &str, style: Style| {
        let used = grid.put(1, at, usize::MAX, label, Style::ASIDE);
        at = at.saturating_add(used).saturating_add(1);
        let used = grid.put(1, at, usize::MAX, text, style);
        at = at.saturating_add(used).saturating_add(2);
    };
    say("host", &snapshot.hostname, Style::PLAIN);
    let worry = |worried: bool| if worried { Style::color(Color::Yellow) } else { Style::PLAIN };
    if let Some(text) = table::network(snapshot) {
        say("network", &text, worry(snapshot.network.state != crate::work::report::NetworkState::Up));
    }
    if let Some(text) = table::data(snapshot) {
        say("data", &text, worry(snapshot.data.state != crate::work::report::DataState::Mounted));
    }
    let lacking = snapshot.features.iter().filter(|f| f.verdict != Verdict::Ok).count();
    if lacking > 0 {
        say("kernel", &format!("lacks {lacking}: see f"), worry(true));
    }
}

fn footer(dashboard: &Dashboard, now: u64, grid: &mut Grid) {
    let row = grid.rows().saturating_sub(1);
    if let Some(text) = dashboard.message(now) {
        grid.put(row, 1, usize::MAX, text, Style::BOLD);
        grid.bar(row);
        return;
    }
    let controls: &[&str] = match (&dashboard.gate, dashboard.page()) {
        (Gate::Shut, _) | (_, Page::Messages | Page::Trace | Page::Features | Page::Help | Page::Events) => &[],
        _ => &["r restart", "s stop", "a start", "x shell"],
    };
    let (pages, last): (&[&str], _) = match dashboard.page() {
        Page::Containers => (&["l logs", "e events", "t trace", "f kernel"], ["? help", "q quit"]),
        Page::Logs | Page::Messages if dashboard.rows.follows() => (&["up back", "e events"], ["? help", "q back"]),
        Page::Logs | Page::Messages => (&["End newest", "e events"], ["? help", "q back"]),
        _ => (&["up/down scroll"], ["? help", "q back"]),
    };
    // Where there is room; the help has it in any case.
    let further: &[&str] = if dashboard.page() == Page::Containers { &["m dmesg"] } else { &[] };
    // Help and the way back are always there.
    let kept: usize = last.iter().map(|key| key.len().saturating_add(2)).sum();
    let mut at = 1_usize;
    for key in pages.iter().chain(controls).chain(further) {
        let end = at.saturating_add(key.len()).saturating_add(2);
        if end.saturating_add(kept) <= grid.columns().saturating_add(2) {
            grid.put(row, at, usize::MAX, key, Style::PLAIN);
            at = end;
        }
    }
    for key in last {
        at = at.saturating_add(grid.put(row, at, usize::MAX, key, Style::PLAIN)).saturating_add(2);
    }
    grid.bar(row);
}
