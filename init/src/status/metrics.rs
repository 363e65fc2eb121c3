//! A snapshot as numbers, in Prometheus' text exposition format (version 0.0.4).

use std::fmt::Write;

use crate::snapshot::{Container, ContainerState, Health, Snapshot};
use crate::work::report::{DataState, NetworkState};

/// Every state, so that each container has one series per state and one of them is 1.
const STATES: [ContainerState; 7] = [
    ContainerState::Waiting,
    ContainerState::Starting,
    ContainerState::Running,
    ContainerState::Backoff,
    ContainerState::Stopping,
    ContainerState::Exited,
    ContainerState::Failed,
];

/// The text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = Text(String::new());
    text.family("garboard_info", "gauge", "The appliance; always 1.");
    let labels = [("appliance", snapshot.appliance.as_str()), ("hostname", snapshot.hostname.as_str())];
    text.sample("garboard_info", &labels, 1);
    text.single("garboard_ready", "gauge", "Every container is as declared.", u64::from(snapshot.ready));
    text.family("garboard_uptime_seconds", "gauge", "Time since the kernel started.");
    text.sample("garboard_uptime_seconds", &[], seconds(snapshot.uptime_ms, 1000));
    text.single("garboard_pid1_resident_memory_bytes", "gauge", "Resident memory of PID 1.", snapshot.pid1_rss_bytes);
    text.single("garboard_events_total", "counter", "Events since boot.", snapshot.last_event);
    let up = u64::from(snapshot.network.state == NetworkState::Up);
    text.single("garboard_network_up", "gauge", "The uplink has an address.", up);
    let mounted = u64::from(snapshot.data.state == DataState::Mounted);
    text.single("garboard_data_mounted", "gauge", "The data filesystem is mounted and can be written to.", mounted);
    text.single("garboard_data_size_bytes", "gauge", "Size of the data filesystem.", snapshot.data.bytes);
    boots(&mut text, snapshot);
    containers(&mut text, &snapshot.containers);
    text.0
}

/// What is not known has no series.
fn boots(text: &mut Text, snapshot: &Snapshot) {
    if let Some(boot) = snapshot.boot {
        text.single(
            "garboard_boots_total",
            "counter",
            "Boots that the data filesystem knows of, this one included.",
            boot,
        );
    }
    if let Some(previous) = &snapshot.previous {
        text.family("garboard_previous_boot_info", "gauge", "How the boot before ended; always 1.");
        text.sample("garboard_previous_boot_info", &[("cause", previous.cause.text())], 1);
    }
}

fn containers(text: &mut Text, all: &[Container]) {
    text.family("garboard_container_info", "gauge", "A container; always 1.");
    for c in all {
        // A label that is empty is none.
        let pod = c.pod.as_deref().unwrap_or_default();
        text.sample("garboard_container_info", &[("container", &c.name), ("image", &c.image), ("pod", pod)], 1);
    }
    text.family("garboard_container_state", "gauge", "1 for the state that the container is in, 0 for the others.");
    for c in all {
        for state in STATES {
            let labels = [("container", c.name.as_str()), ("state", state.text())];
            text.sample("garboard_container_state", &labels, u64::from(c.state == state));
        }
    }
    let mut each = |name: &str, kind, help, value: &dyn Fn(&Container) -> Option<String>| {
        text.family(name, kind, help);
        for c in all {
            if let Some(value) = value(c) {
                text.sample(name, &[("container", &c.name)], value);
            }
        }
    };
    each("garboard_container_as_declared", "gauge", "The container is as its declaration wants it.", &|c| {
        Some(u8::from(c.as_declared).to_string())
    });
    each("garboard_container_healthy", "gauge", "Its health check passes; only of those that have one.", &|c| {
        (c.health != Health::None).then(|| u8::from(c.health == Health::Healthy).to_string())
    });
    each("garboard_container_restarts_total", "counter", "How often it was started again.", &|c| {
        Some(c.restarts.to_string())
    });
    each("garboard_container_uptime_seconds", "gauge", "Time since its program was executed.", &|c| {
        c.uptime_ms.map(|ms| seconds(ms, 1000))
    });
    each("garboard_container_memory_bytes", "gauge", "Memory charged to it.", &|c| Some(c.memory_bytes.to_string()));
    each("garboard_container_cpu_seconds_total", "counter", "Processor time since it was launched.", &|c| {
        Some(seconds(c.cpu_us, 1_000_000))
    });
    let help = "Its processes that the kernel killed for want of memory.";
    each("garboard_container_oom_kills_total", "counter", help, &|c| Some(c.oom_kills.to_string()));
    each("garboard_container_log_dropped_bytes_total", "counter", "Output that was thrown away unseen.", &|c| {
        Some(c.log_dropped.to_string())
    });
    each("garboard_container_log_unkept_bytes_total", "counter", "Its log that was to be kept and is lost.", &|c| {
        Some(c.log_unkept.to_string())
    });
}

/// A time as a decimal number of seconds, without rounding.
fn seconds(amount: u64, per_second: u64) -> String {
    let (whole, rest) = (amount.checked_div(per_second).unwrap_or(0), amount.checked_rem(per_second).unwrap_or(0));
    let digits = if per_second == 1000 { 3 } else { 6 };
    format!("{whole}.{rest:0digits$}")
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::last_words::{Cause, Previous};
    use crate::snapshot::MachineState;
    use crate::work::report;

    fn snapshot() -> Snapshot {
        let container = |name: &str, state, health| Container {
            name: name.into(),
            image: "dir\\\"of\nimage".into(),
            state,
            health,
            pid: Some(7),
            restarts: 3,
            exit: None,
            detail: String::new(),
            uptime_ms: (state == ContainerState::Running).then_some(61_007),
            memory_bytes: 1 << 20,
            cpu_us: 1_000_001,
            oom_kills: 4,
            says: String::new(),
            log_dropped: 0,
            log_unkept: 0,
            weakened: vec![],
            labels: BTreeMap::new(),
            pod: (name == "web").then(|| "front".into()),
            as_declared: true,
        };
        Snapshot {
            appliance: "shop".into(),
            hostname: "shop".into(),
            state: MachineState::Running,
            ready: true,
            uptime_ms: 12_034,
            pid1_rss_bytes: 4096,
            features: vec![],
            network: report::Network::default(),
            data: report::Data { state: DataState::Mounted, detail: String::new(), bytes: 5 },
            boot: Some(8),
            previous: Some(Previous { cause: Cause::Panic, ..Previous::unknown("") }),
            kept_logs: report::KeptLogs { state: report::KeptState::None, detail: String::new() },
            containers: vec![
                container("web", ContainerState::Running, Health::Healthy),
                container("job", ContainerState::Exited, Health::None),
            ],
            notes: vec![],
            last_event: 17,
        }
    }

    /// One sample: name, labels, value. By the rules of the format.
    fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
        let name_end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(name_end);
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (label, after) = rest.split_once("=\"").unwrap();
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            c => panic!("\\{c}: {line}"),
                        }),
                        (_, c) => value.push(c),
                    }
                };
                labels.push((label.to_owned(), value));
                rest = &after[end + 1..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').unwrap();
        }
        (name.to_owned(), labels, rest.strip_prefix(' ').unwrap().parse().unwrap())
    }

    #[test]
    fn keeps_the_rules_of_the_format() {
        let text = render(&snapshot());
        assert!(text.ends_with('\n'));
        let (mut types, mut seen, mut family) = (BTreeMap::new(), BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap();
                assert!(!types.contains_key(name), "{name} in one piece");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(name == family && ["gauge", "counter"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, labels, _) = sample(line);
                assert_eq!(name, family, "samples stand below their family");
                assert!(seen.insert((name, labels)), "no series twice: {line}");
            }
        }
    }

    #[test]
    fn numbers_are_in_base_units() {
        let text = render(&snapshot());
        for line in [
            "garboard_uptime_seconds 12.034",
            "garboard_events_total 17",
            "garboard_data_mounted 1",
            "garboard_network_up 0",
            "garboard_boots_total 8",
            "garboard_previous_boot_info{cause=\"panic\"} 1",
            "garboard_container_state{container=\"web\",state=\"running\"} 1",
            "garboard_container_state{container=\"web\",state=\"failed\"} 0",
            "garboard_container_healthy{container=\"web\"} 1",
            "garboard_container_uptime_seconds{container=\"web\"} 61.007",
            "garboard_container_cpu_seconds_total{container=\"job\"} 1.000001",
            "garboard_container_oom_kills_total{container=\"job\"} 4",
            "garboard_container_info{container=\"job\",image=\"dir\\\\\\\"of\\nimage\",pod=\"\"} 1",
            "garboard_container_info{container=\"web\",image=\"dir\\\\\\\"of\\nimage\",pod=\"front\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let unknown = render(&Snapshot { boot: None, previous: None, ..snapshot() });
        assert!(!unknown.contains("boots_total") && !unknown.contains("previous"), "{unknown}");
        assert!(!text.contains("healthy{container=\"job\"}") && !text.contains("uptime_seconds{container=\"job\"}"));
    }
}
