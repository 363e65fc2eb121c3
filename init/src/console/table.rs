//! The status table, in plain lines of at most 80 columns (prefix included).

use std::fmt::Write;

use crate::snapshot::{Container, Snapshot};
use crate::work::report::{DataState, KeptState, NetworkState};

/// Columns that `garboard: ` leaves of 80.
const WIDTH: usize = 70;
/// Bytes of all rows together: with their prefixes and with what follows they fit into what is kept for our own lines, however much of
/// containers' waits for the console.
const ROWS: usize = 10 << 10;

/// The table. Its lines have no prefix yet; foreign text in them is not yet escaped.
pub fn render(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let ready = if snapshot.ready { ", all containers are as declared" } else { "" };
    let _ = writeln!(
        out,
        "{} is {}{ready} ({} up, PID 1 uses {})",
        snapshot.appliance,
        snapshot.state.text(),
        duration(snapshot.uptime_ms),
        size(snapshot.pid1_rss_bytes),
    );
    if !snapshot.containers.is_empty() {
        let _ = writeln!(
            out,
            "  {:<16} {:<8} {:>8} {:>7} {:>8}  DETAIL",
            "CONTAINER", "STATE", "RESTARTS", "UPTIME", "MEMORY"
        );
    }
    rows(&mut out, &snapshot.containers);
    if let Some(text) = network(snapshot) {
        let _ = writeln!(out, "  network: {text}{}", because(&snapshot.network.detail));
    }
    if let Some(text) = data(snapshot) {
        let _ = writeln!(out, "  data: {text}{}", because(&snapshot.data.detail));
    }
    if matches!(snapshot.kept_logs.state, KeptState::Failed | KeptState::Absent) {
        let _ = writeln!(out, "  logs: not kept{}", because(&snapshot.kept_logs.detail));
    }
    for feature in snapshot.features.iter().filter(|f| f.verdict != crate::boot::Verdict::Ok) {
        let _ = writeln!(out, "  kernel: {}", cut(&format!("{}: {}", feature.name, feature.detail), 60));
    }
    for note in &snapshot.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    out
}

/// All containers; of a great many those that aren't as declared, as many as a console may have waiting.
fn rows(out: &mut String, containers: &[Container]) {
    let mut all: Vec<(bool, String)> = Vec::new();
    for container in containers {
        let mut text = String::new();
        row(&mut text, container);
        all.push((container.as_declared, text));
    }
    let size = |rows: &[(bool, String)]| rows.iter().map(|(_, text)| text.len()).fold(0, usize::saturating_add);
    if size(&all) <= ROWS {
        all.iter().for_each(|(_, text)| out.push_str(text));
        return;
    }
    let (mut left, mut well, mut others) = (ROWS, 0_usize, 0_usize);
    for (as_declared, text) in &all {
        if *as_declared {
            well = well.saturating_add(1);
        } else if let Some(rest) = left.checked_sub(text.len()) {
            left = rest;
            out.push_str(text);
        } else {
            (left, others) = (0, others.saturating_add(1));
        }
    }
    let more = if others > 0 { format!(", {others} more that aren't") } else { String::new() };
    let _ = writeln!(out, "  {well} containers as declared{more}: `garboard status` shows them all");
}

fn row(out: &mut String, container: &Container) {
    let uptime = container.uptime_ms.map_or("-".to_owned(), duration);
    let memory = if container.memory_bytes == 0 { "-".to_owned() } else { size(container.memory_bytes) };
    let name = cut(&container.name, 16);
    let start = format!("  {name:<16} {:<8} {:>8} {uptime:>7} {memory:>8}", container.state.text(), container.restarts);
    let room = WIDTH.saturating_sub(start.len().saturating_add(2));
    if container.detail.chars().count() <= room {
        let line = format!("{start}  {}", container.detail);
        let _ = writeln!(out, "{}", line.trim_end());
    } else {
        let _ = writeln!(out, "{start}");
        let _ = writeln!(out, "      {}", container.detail);
    }
    if !container.weakened.is_empty() {
        let _ = writeln!(out, "      isolation weakened: {}", container.weakened.join(", "));
    }
    if container.log_dropped > 0 {
        let _ =
            writeln!(out, "      {} of its output were thrown away: it prints too fast", size(container.log_dropped));
    }
    if container.log_unkept > 0 {
        let _ = writeln!(out, "      {} of its log could not be kept", size(container.log_unkept));
    }
}

/// How the uplink is; `None`: there is none, as declared.
pub(super) fn network(snapshot: &Snapshot) -> Option<String> {
    let network = &snapshot.network;
    let uplink = network.uplink.as_deref().unwrap_or("no uplink");
    Some(match network.state {
        NetworkState::None => return None,
        NetworkState::Up => format!("{uplink} {}", network.addresses.join(" ")),
        NetworkState::Configuring => format!("{uplink}, waiting for an address"),
        NetworkState::Failed => format!("{uplink}, no address"),
    })
}

/// How the data filesystem is; `None`: there is none, as declared.
pub(super) fn data(snapshot: &Snapshot) -> Option<String> {
    let data = &snapshot.data;
    Some(match data.state {
        DataState::None => return None,
        DataState::Mounted => format!("mounted, {}", size(data.bytes)),
        DataState::Readonly => "READ-ONLY".to_owned(),
        DataState::Tmpfs => "in memory only, nothing is kept".to_owned(),
        DataState::Absent => "absent".to_owned(),
    })
}

/// What follows a state that has more to say.
fn because(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// Milliseconds for people, at most 7 columns.
pub fn duration(ms: u64) -> String {
    let part = |divisor: u64| ms.checked_div(divisor).unwrap_or(0);
    let rest = |divisor: u64, of: u64| part(divisor).checked_rem(of).unwrap_or(0);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", part(1000), rest(100, 10)),
        10_000..120_000 => format!("{} s", part(1000)),
        120_000..7_200_000 => format!("{} min", part(60_000)),
        7_200_000..172_800_000 => format!("{}h{:02}m", part(3_600_000), rest(60_000, 60)),
        _ => format!("{}d{:02}h", part(86_400_000), rest(3_600_000, 24)),
    }
}

/// Bytes for people, at most 8 columns.
pub fn size(bytes: u64) -> String {
    for (shift, unit) in [(30_u32, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = bytes >> shift;
        if whole >= 100 {
            return format!("{whole} {unit}");
        }
        if whole > 0 {
            let rest = bytes >> shift.saturating_sub(10) & 1023;
            return format!("{whole}.{} {unit}", rest.saturating_mul(10) >> 10);
        }
    }
    format!("{bytes} B")
}

/// At most so many characters of a text.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::*;
    use crate::work::report;

    fn snapshot() -> Snapshot {
        let container = |name: &str, state, detail: &str, uptime_ms| Container {
            name: name.into(),
            image: "oci:x".into(),
            state,
            health: Health::None,
            pid: None,
            restarts: 2,
            exit: None,
            detail: detail.into(),
            uptime_ms,
            memory_bytes: 3_300_000,
            cpu_us: 0,
            oom_kills: 0,
            says: String::new(),
            log_dropped: 0,
            log_unkept: 0,
            weakened: vec![],
            labels: Default::default(),
            pod: None,
            as_declared: true,
        };
        Snapshot {
            appliance: "demo".into(),
            hostname: "demo".into(),
            state: MachineState::Running,
            ready: true,
            uptime_ms: 12_345,
            pid1_rss_bytes: 2_500_000,
            features: vec![],
            network: report::Network {
                uplink: Some("eth0".into()),
                addresses: vec!["10.0.2.15/24".into()],
                state: NetworkState::Up,
                detail: String::new(),
            },
            data: report::Data { state: DataState::None, detail: String::new(), bytes: 0 },
            boot: None,
            previous: None,
            kept_logs: report::KeptLogs { state: KeptState::None, detail: String::new() },
            containers: vec![
                container("web", ContainerState::Running, "", Some(11_000)),
                container(
                    "a-very-long-container-name",
                    ContainerState::Backoff,
                    "exited with status 1; starts again in 0.3 s",
                    None,
                ),
            ],
            notes: vec![],
            last_event: 0,
        }
    }

    #[test]
    fn is_aligned_and_fits() {
        let text = render(&snapshot());
        let expected = "\
demo is running, all containers are as declared (12 s up, PID 1 uses 2.3 MiB)
  CONTAINER        STATE    RESTARTS  UPTIME   MEMORY  DETAIL
  web              running         2    11 s  3.1 MiB
  a-very-long-con… backoff         2       -  3.1 MiB
      exited with status 1; starts again in 0.3 s
  network: eth0 10.0.2.15/24
";
        assert_eq!(text, expected);
        assert!(text.lines().skip(1).all(|l| l.chars().count() <= WIDTH));
    }

    #[test]
    fn every_state_shows_its_detail() {
        use {DataState as D, NetworkState as N};
        for state in [N::Up, N::Configuring, N::Failed] {
            let mut snapshot = snapshot();
            snapshot.network = report::Network { state, detail: "so it is".into(), ..snapshot.network };
            assert!(render(&snapshot).lines().any(|l| l.starts_with("  network: ") && l.ends_with(": so it is")));
        }
        for state in [D::Mounted, D::Readonly, D::Tmpfs, D::Absent] {
            let mut snapshot = snapshot();
            snapshot.data = report::Data { state, detail: "so it is".into(), bytes: 0 };
            assert!(render(&snapshot).lines().any(|l| l.starts_with("  data: ") && l.ends_with(": so it is")));
        }
    }

    #[test]
    fn weak_spots_are_shown() {
        let mut snapshot = snapshot();
        snapshot.containers[0].weakened = vec!["userns_mode = \"host\"".into()];
        snapshot.containers[0].log_dropped = 5000;
        let text = render(&snapshot);
        assert!(text.contains("isolation weakened: userns_mode = \"host\"\n"));
        assert!(text.contains("4.8 KiB of its output were thrown away"));
    }

    #[test]
    fn numbers_for_people() {
        let durations: Vec<_> = [0, 1234, 59_999, 119_999, 7_199_999, 90_000_000, 400_000_000].map(duration).into();
        assert_eq!(durations, ["0 ms", "1.2 s", "59 s", "119 s", "119 min", "25h00m", "4d15h"]);
        let sizes: Vec<_> = [0, 1023, 1024, 1536, 104_857_600, 5 << 30].map(size).into();
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 MiB", "5.0 GiB"]);
    }

    #[test]
    fn of_a_great_many_those_are_shown_that_need_somebody() {
        let mut snapshot = snapshot();
        snapshot.notes = vec!["the last line".into()];
        let one = snapshot.containers[0].clone();
        let many = |as_declared, count: usize| vec![Container { as_declared, ..one.clone() }; count];
        snapshot.containers = [many(true, 500), many(false, 1), many(true, 500)].concat();
        let text = render(&snapshot);
        assert_eq!(text.matches(&one.name).count(), 1, "{text}");
        assert!(
            text.contains("  1000 containers as declared: ") && text.ends_with("  note: the last line\n"),
            "{text}"
        );
        // However many they are, a console has room for it.
        snapshot.containers = many(false, 1000);
        let text = render(&snapshot);
        let mut queue = crate::console::queue::Queue::default();
        (0..2_000).for_each(|_| queue.push_foreign("web | a line that nobody has read yet\n"));
        text.lines().for_each(|line| queue.push_own(&format!("garboard: {line}\n")));
        let mut shown = Vec::new();
        while !queue.is_empty() {
            let part = queue.front().to_vec();
            queue.consume(part.len());
            shown.extend(part);
        }
        assert!(shown.ends_with(b"garboard:   note: the last line\n"), "{}", String::from_utf8_lossy(&shown));
        assert!(text.contains("  0 containers as declared, "), "{text}");
        // Control: a few are all shown.
        snapshot.containers = many(true, 100);
        assert_eq!(render(&snapshot).matches(&one.name).count(), 100);
    }
}
