//! How everything is, for people and programs.

use super::Supervisor;
use super::readings::{FRESH_MS, Reading};
use crate::clock::now_ms;
use crate::console::table;
use crate::snapshot::{Container, ContainerState, Health, MachineState, Snapshot};
use crate::supervise::{self, Phase, Unit};
use serde::{Deserialize, Serialize};

/// The table is printed so long after a change, in milliseconds: changes come together.
const DEBOUNCE_MS: u64 = 500;
/// The first table comes after so long even if not everything has started.
const PATIENCE_MS: u64 = 10_000;
/// Between two tables, unless readiness changed.
const TABLE_EVERY_MS: u64 = 30_000;

/// What the console was told.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announced {
    /// Everything is as declared.
    ready: bool,
    /// Everything has settled at least once.
    settled: bool,
    /// A container's phase changed.
    pub(super) changed: bool,
    /// When the first change was.
    begun: Option<u64>,
    /// When the table is next printed.
    due: Option<u64>,
    /// When it was last printed.
    last: Option<u64>,
}

impl Announced {
    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }
}

impl Supervisor {
    /// Prints the table when it is time to.
    pub(super) fn announce(&mut self, now: u64) {
        let before = self.announced.clone();
        self.announce_changes(now);
        if self.announced != before {
            // What was said is not said again after a crash.
            self.common_dirty = true;
            self.persist();
        }
    }

    fn announce_changes(&mut self, now: u64) {
        let ready = self.state.ready(now);
        if !self.announced.settled {
            let moving = |u: &Unit| matches!(u.phase, Phase::Waiting | Phase::Launching | Phase::Starting { .. });
            self.announced.settled = !self.state.units().iter().any(moving);
            if self.announced.settled {
                // The trace is whole now.
                self.context_changed = true;
                self.announced.due = Some(now.saturating_add(DEBOUNCE_MS));
                if self.options.print_trace {
                    self.print_trace();
                }
            }
        }
        if std::mem::take(&mut self.announced.changed) && self.announced.due.is_none() {
            let begun = *self.announced.begun.get_or_insert(now);
            let earliest = match self.announced.last {
                Some(last) => last.saturating_add(TABLE_EVERY_MS),
                // Not between the first lines of containers that are only just starting.
                None if self.announced.settled => 0,
                None => begun.saturating_add(PATIENCE_MS),
            };
            self.announced.due = Some(now.saturating_add(DEBOUNCE_MS).max(earliest));
        }
        if ready != self.announced.ready {
            self.announced.ready = ready;
            // A container that just failed has said so itself; the table follows if that lasts.
            if ready {
                self.announced.due = Some(now);
            }
        }
        if self.announced.due.is_some_and(|due| due <= now) {
            self.announced.due = None;
            if self.plan.console.status && self.state.common().goal.is_none() {
                self.announced.last = Some(now);
                let table = table::render(&self.snapshot());
                self.console.say_lines(&table);
            }
        }
    }

    /// Prints how the boot went: when each step was reached and how long it took, in milliseconds.
    fn print_trace(&mut self) {
        let mut before = None;
        let mut text = String::from("boot trace, in milliseconds since the kernel started:\n");
        for step in self.trace.steps() {
            let took = step.at_us.saturating_sub(before.unwrap_or(step.at_us));
            text.push_str(&format!("  {} {} {}\n", millis(step.at_us), millis(took), step.name));
            before = Some(step.at_us);
        }
        self.console.say_lines(&text);
    }

    /// Everything at this moment; what containers use, a second ago at the most.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot_with(FRESH_MS)
    }

    /// The same; what containers use, no longer ago than so many milliseconds.
    pub(super) fn snapshot_with(&self, fresh: u64) -> Snapshot {
        let now = now_ms();
        let state = match self.state.common().goal {
            Some(_) => MachineState::Stopping,
            None if self.announced.settled => MachineState::Running,
            None => MachineState::Booting,
        };
        Snapshot {
            appliance: self.plan.appliance.clone(),
            hostname: self.plan.hostname.clone(),
            state,
            ready: self.state.ready(now),
            uptime_ms: now,
            pid1_rss_bytes: resident_bytes(),
            features: self.features.clone(),
            network: self.network.clone(),
            data: self.data_now(),
            boot: self.words.boot,
            previous: self.words.previous.clone(),
            kept_logs: self.kept_logs.clone(),
            containers: (0..self.units.len()).filter_map(|i| self.container(i, now, fresh)).collect(),
            notes: self.notes.clone(),
            last_event: self.journal.last(),
        }
    }

    fn container(&self, index: usize, now: u64, fresh: u64) -> Option<Container> {
        let declared = self.plan.containers.get(index)?;
        let unit = self.units.get(index)?;
        let memory = self.state.units().get(index)?;
        let (state, uptime_ms) = match memory.phase {
            Phase::Waiting => (ContainerState::Waiting, None),
            Phase::Launching | Phase::Starting { .. } => (ContainerState::Starting, None),
            Phase::Running { since } => (ContainerState::Running, Some(now.saturating_sub(since))),
            Phase::Backoff { .. } => (ContainerState::Backoff, None),
            Phase::Stopping { .. } => (ContainerState::Stopping, None),
            Phase::Exited => (ContainerState::Exited, None),
            Phase::Failed => (ContainerState::Failed, None),
        };
        // Of one that has ended, why says enough.
        let killed = matches!(state, ContainerState::Running).then(|| unit.kills.in_words()).flatten();
        let degraded = (!unit.degraded.is_empty()).then(|| format!("without {}", unit.degraded));
        let detail = [Some(self.detail(index, memory, now)), killed, degraded].into_iter().flatten();
        let detail = detail.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let parent = self.cgroup.as_ref().filter(|_| unit.pid != 0);
        let look = |parent| unit.readings.get(unit.pid, now, fresh, || Reading::take(parent, &declared.name));
        let used = parent.map(look).unwrap_or_default();
        Some(Container {
            name: declared.name.clone(),
            image: declared.image.clone(),
            state,
            health: match memory.watch.health {
                supervise::Health::None => Health::None,
                supervise::Health::Starting => Health::Starting,
                supervise::Health::Healthy => Health::Healthy,
                supervise::Health::Unhealthy => Health::Unhealthy,
            },
            pid: (unit.pid != 0).then_some(unit.pid),
            restarts: memory.restarts,
            exit: memory.exit,
            detail,
            uptime_ms,
            memory_bytes: used.memory,
            cpu_us: used.cpu,
            oom_kills: unit.kills.total,
            says: unit.says.clone(),
            log_dropped: self.rings.dropped(index),
            log_unkept: self.unkept(index),
            weakened: declared.weakened.clone(),
            labels: declared.labels.iter().cloned().collect(),
            pod: declared
                .pod
                .and_then(|pod| self.plan.pods.get(usize::try_from(pod).ok()?))
                .map(|pod| pod.name.clone()),
            as_declared: self.state.as_declared(index, now),
        })
    }
}

/// Microseconds as milliseconds with three decimals.
fn millis(us: u64) -> String {
    let (whole, rest) = (us.checked_div(1000).unwrap_or(0), us.checked_rem(1000).unwrap_or(0));
    format!("{whole:>6}.{rest:03}")
}

/// PID 1's own resident memory: the second field of `/proc/self/statm`, in pages.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|f| f.parse().ok()).unwrap_or(0);
    pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096))
}
