//! The first page: the containers, more of the selected one, and what happened last.

use std::ops::Range;

use super::dashboard::Dashboard;
use super::draw::Model;
use super::pages;
use super::screen::{Color, Grid, Style};
use super::table;
use crate::snapshot::{Container, ContainerState, Health};

/// Names are this wide, at least and, on a terminal of the usual size, at most.
const NAME: (usize, usize) = (9, 20);
/// The detail is left out where it would be narrower: the selected container's is below.
const NARROWEST_DETAIL: usize = 8;
/// Rows about the selected container.
const MORE: usize = 3;
/// Rows of events, at least, and from how high a page on.
const EVENTS: (usize, usize) = (3, 16);

/// From how high a page on there is an empty row more.
const ROOMY: usize = 24;

/// A column: its title, its width, whether it is one of numbers, and how gladly it is left out (0: never).
type Column = (&'static str, usize, bool, u8);

/// Draws the page into some rows of the grid.
pub(super) fn draw(dashboard: &mut Dashboard, model: &Model<'_>, grid: &mut Grid, page: Range<usize>) {
    let containers = &model.snapshot.containers;
    let (least, from) = EVENTS;
    let high = page.len() >= from;
    let below = if high { MORE.saturating_add(1).saturating_add(least) } else { 2 };
    // A row of titles, and one that keeps a short list off what is below.
    let room = page.len().saturating_sub(below.saturating_add(2));
    let listed = containers.len().clamp(1, room.max(1));
    let columns = columns(containers, grid.columns());
    titles(grid, page.start, &columns);
    let first = page.start.saturating_add(1);
    if containers.is_empty() {
        grid.put(first, 1, usize::MAX, "no containers are declared", Style::PLAIN);
    }
    let seen = dashboard.list.window_on_selected(containers.len(), listed);
    let selected = dashboard.selected();
    more_marks(grid, page.start, first.saturating_add(listed).saturating_sub(1), &seen, containers.len());
    for (row, (index, container)) in (first..).zip(containers.iter().enumerate().take(seen.end).skip(seen.start)) {
        entry(grid, row, &columns, container, &model.meter.text(index), index == selected);
    }
    let mut row = first.saturating_add(listed).saturating_add(usize::from(high));
    if let Some(container) = containers.get(selected) {
        let lines = page.end.saturating_sub(row).min(if high { MORE } else { 2 });
        more(grid, row, lines, container);
        row = row.saturating_add(MORE).saturating_add(usize::from(page.len() >= ROOMY));
    }
    if high {
        rule(grid, row, "EVENTS");
        let rows = row.saturating_add(1)..page.end;
        if model.events.is_empty() {
            grid.put(rows.start, 1, usize::MAX, "nothing yet", Style::PLAIN);
        }
        pages::events(grid, rows.clone(), model.events, model.events.len().saturating_sub(rows.len()));
    }
}

/// Which columns there is room for.
fn columns(containers: &[Container], width: usize) -> Vec<Column> {
    let (least, most) = NAME;
    let longest = containers.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let name = longest.clamp(least, most.max(width.saturating_div(4)).min(if width < 60 { 12 } else { width }));
    let mut columns: Vec<Column> = vec![("CONTAINER", name, false, 0), ("STATE", 8, false, 0)];
    if containers.iter().any(|c| c.health != Health::None) {
        columns.push(("HEALTH", 9, false, 2));
    }
    columns.extend([("UP", 7, true, 0), ("RESTARTS", 8, true, 3), ("CPU", 5, true, 4), ("MEMORY", 8, true, 1)]);
    columns.push(("DETAIL", NARROWEST_DETAIL, false, 5));
    let taken = |columns: &[Column]| columns.iter().map(|c| c.1.saturating_add(1)).sum::<usize>();
    while taken(&columns).saturating_add(1) > width
        && let Some(place) = (0..columns.len()).max_by_key(|i| columns.get(*i).map_or(0, |c| c.3))
        && columns.get(place).is_some_and(|c| c.3 > 0)
    {
        columns.remove(place);
    }
    let left = width.saturating_sub(taken(&columns)).saturating_sub(1);
    if let Some(detail) = columns.last_mut().filter(|c| c.3 == 5) {
        detail.1 = detail.1.saturating_add(left);
    }
    columns
}

fn titles(grid: &mut Grid, row: usize, columns: &[Column]) {
    let mut at = 1_usize;
    for (title, width, number, _) in columns {
        if *number {
            grid.put_right(row, at, *width, title, Style::ASIDE);
        } else {
            grid.put(row, at, *width, title, Style::ASIDE);
        }
        at = at.saturating_add(*width).saturating_add(1);
    }
}

fn entry(grid: &mut Grid, row: usize, columns: &[Column], container: &Container, load: &str, selected: bool) {
    if selected {
        grid.put(row, 0, 1, ">", Style::BOLD);
    }
    let dash = || "-".to_owned();
    let mut at = 1_usize;
    for (title, width, number, _) in columns {
        let (text, style) = match *title {
            "CONTAINER" => (container.name.clone(), Style::BOLD),
            "STATE" => (container.state.text().to_owned(), Style::color(color(container))),
            "HEALTH" => health(container.health),
            "UP" => (container.uptime_ms.map_or_else(dash, table::duration), Style::PLAIN),
            "RESTARTS" if container.restarts == 0 => (dash(), Style::PLAIN),
            "RESTARTS" => (container.restarts.to_string(), Style::PLAIN),
            "CPU" if container.pid.is_none() => (dash(), Style::PLAIN),
            "CPU" => (load.to_owned(), Style::PLAIN),
            "MEMORY" if container.memory_bytes == 0 => (dash(), Style::PLAIN),
            "MEMORY" => (table::size(container.memory_bytes), Style::PLAIN),
            _ => (detail(container), Style::PLAIN),
        };
        if *number {
            grid.put_right(row, at, *width, &text, style);
        } else {
            grid.put(row, at, *width, &text, style);
        }
        at = at.saturating_add(*width).saturating_add(1);
    }
    if selected {
        grid.bar(row);
    }
}

/// What it says of itself, when there is nothing to say about it.
fn detail(container: &Container) -> String {
    let text = if container.detail.is_empty() { &container.says } else { &container.detail };
    text.clone()
}

fn color(container: &Container) -> Color {
    match container.state {
        ContainerState::Running if container.health == Health::Unhealthy => Color::Red,
        ContainerState::Running => Color::Green,
        ContainerState::Waiting | ContainerState::Starting => Color::Cyan,
        ContainerState::Backoff | ContainerState::Stopping => Color::Yellow,
        ContainerState::Exited if container.as_declared => Color::Default,
        ContainerState::Exited => Color::Yellow,
        ContainerState::Failed => Color::Red,
    }
}

fn health(health: Health) -> (String, Style) {
    let (text, color) = match health {
        Health::None => ("-", Color::Default),
        Health::Starting => ("starting", Color::Cyan),
        Health::Healthy => ("healthy", Color::Green),
        Health::Unhealthy => ("unhealthy", Color::Red),
    };
    (text.to_owned(), Style::color(color))
}

/// That there are more above or below what is seen.
fn more_marks(grid: &mut Grid, title: usize, last: usize, seen: &Range<usize>, total: usize) {
    let end = grid.columns().saturating_sub(1);
    if seen.start > 0 {
        grid.put(title, end, 1, "^", Style::BOLD);
    }
    if seen.end < total {
        grid.put(last.saturating_add(1), end, 1, "v", Style::BOLD);
    }
}

/// A line with a title in it.
fn rule(grid: &mut Grid, row: usize, title: &str) {
    let columns = grid.columns();
    let used = grid.put(row, 1, usize::MAX, title, Style::ASIDE).saturating_add(2);
    grid.put(row, used, usize::MAX, &"-".repeat(columns.saturating_sub(used.saturating_add(1))), Style::ASIDE);
}

/// What the table has no room for.
fn more(grid: &mut Grid, row: usize, lines: usize, container: &Container) {
    if lines == 0 {
        return;
    }
    rule(grid, row, &container.name.to_uppercase());
    let mut facts = Vec::new();
    if let Some(pid) = container.pid {
        facts.push(format!("pid {pid}"));
    }
    facts.extend(container.pod.as_ref().map(|pod| format!("pod {pod}")));
    facts.push(format!("image {}", container.image));
    if container.log_dropped > 0 {
        facts.push(format!("{} of its output thrown away", table::size(container.log_dropped)));
    }
    if container.log_unkept > 0 {
        facts.push(format!("{} of its log not kept", table::size(container.log_unkept)));
    }
    let facts = (facts.join("  "), Style::PLAIN);
    let mut why = vec![(container.detail.clone(), Style::color(Color::Yellow))];
    if container.state == ContainerState::Running || container.as_declared {
        why = vec![(container.detail.clone(), Style::PLAIN)];
    }
    why.push((container.says.clone(), Style::PLAIN));
    if !container.weakened.is_empty() {
        why.push((format!("isolation weakened: {}", container.weakened.join(", ")), Style::color(Color::Yellow)));
    }
    why.retain(|(text, _)| !text.is_empty());
    let below = row.saturating_add(1)..row.saturating_add(lines);
    // With one line only, the reason is worth more than the facts.
    let first = if below.len() == 1 && !why.is_empty() { None } else { Some(facts) };
    let mut rows = below;
    if let (Some((text, style)), Some(at)) = (first, rows.next()) {
        grid.put(at, 1, usize::MAX, &text, style);
    }
    if let Some(at) = rows.next() {
        let mut column = 1_usize;
        for (text, style) in why {
            column = column.saturating_add(grid.put(at, column, usize::MAX, &text, style)).saturating_add(2);
        }
    }
}
