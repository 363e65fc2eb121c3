//! What the next incarnation of PID 1 has to know: the records of the [`crate::store::Store`].

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::memory::Kills;
use super::signals::CrashPoint;
use super::view::Announced;
use super::words::Words;
use super::{Options, Supervisor, pods};
use crate::boot::{Feature, Trace};
use crate::console::access::Attempts;
use crate::console::session::Session;
use crate::crash::History;
use crate::status::subscription::Subscription;
use crate::store::{self, Store};
use crate::supervise;
use crate::sys::fd::number;
use crate::work::report;
use crate::worker::{Kind, Worker};

/// What seldom changes and may be large.
pub(super) const CONTEXT: usize = store::LARGE;
/// [`History`]: read first, so that a state that can't be resumed is not resumed for ever.
pub(super) const HISTORY: usize = 1;
/// [`CommonRecord`].
pub(super) const COMMON: usize = 2;
/// Who asks containers how they are: a [`WorkerRecord`] each. They are many, and have a record of their own.
pub(super) const ASKING: usize = 3;
/// The first container's [`UnitRecord`].
pub(super) const FIRST_UNIT: usize = 4;

/// What seldom changes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) options: Options,
    pub(super) features: Vec<Feature>,
    pub(super) trace: Trace,
    pub(super) notes: Vec<String>,
    pub(super) network: report::Network,
    pub(super) data: report::Data,
    pub(super) words: Words,
    pub(super) kept_logs: report::KeptLogs,
}

/// What is not one container's. Descriptors by number, -1: none.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CommonRecord {
    pub(super) common: supervise::Common,
    pub(super) rings: i32,
    pub(super) cgroup: i32,
    pub(super) console: i32,
    pub(super) port: i32,
    pub(super) watchdog: i32,
    /// What is told on that port; of its events, those up to which all were written.
    pub(super) subscription: Subscription,
    pub(super) journal: i32,
    pub(super) vsock: i32,
    pub(super) memory: i32,
    pub(super) keep_progress: i32,
    pub(super) keep_socket: i32,
    pub(super) workers: Vec<WorkerRecord>,
    pub(super) due: BTreeMap<Kind, u64>,
    pub(super) announced: Announced,
    /// When the console's line is next looked for.
    pub(super) line_at: Option<u64>,
    /// How much the kernel printed before the dashboard was opened.
    pub(super) kernel_level: Option<u32>,
    /// Since when it leaves its errors to us.
    pub(super) kernel_left: Option<u64>,
    /// Those of its messages before this one were read.
    pub(super) kernel_next: u64,
    /// How often the passphrase was wrong.
    pub(super) attempts: Attempts,
}

/// A worker that is at work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WorkerRecord {
    pub(super) kind: Kind,
    pub(super) pid: i32,
    pub(super) pidfd: i32,
    pub(super) output: i32,
    pub(super) deadline: Option<u64>,
    pub(super) reported: bool,
}

/// One container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnitRecord {
    pub(super) unit: supervise::Unit,
    pub(super) pid: i32,
    pub(super) output: i32,
    pub(super) report: i32,
    /// The socket on which it reads the status.
    pub(super) status: i32,
    pub(super) filled: bool,
    pub(super) heard: bool,
    pub(super) out_of_memory: bool,
    pub(super) kills: Kills,
    pub(super) asked_to_stop: bool,
    pub(super) degraded: String,
    pub(super) notify: i32,
    pub(super) says: String,
    /// Of its pod, if it is the pod's first.
    pub(super) shared: Descriptors,
}

/// User, network, ipc and uts namespace of a pod.
pub(super) type Descriptors = [i32; 4];

impl Supervisor {
    /// Writes every record that changed, all or none: of what one event has changed, the next incarnation must not find a part.
    pub(super) fn persist(&mut self) {
        let (mut changed, common_changed) = self.state.take_changed();
        self.announced.changed |= !changed.is_empty();
        changed.append(&mut self.dirty);
        changed.sort_unstable();
        changed.dedup();
        self.look_for_nonsense(&changed);
        for index in &changed {
            if let Some(record) = self.unit_record(*index) {
                save(&mut self.store, FIRST_UNIT.saturating_add(*index), &record);
            }
        }
        if !changed.is_empty() {
            self.crash_if_asked(CrashPoint::Keeping);
        }
        if common_changed || std::mem::take(&mut self.common_dirty) {
            let (record, asking) = (self.common_record(), self.asking_record());
            save(&mut self.store, COMMON, &record);
            save(&mut self.store, ASKING, &asking);
        }
        if std::mem::take(&mut self.context_changed) {
            let context = Context {
                options: self.options.clone(),
                features: self.features.clone(),
                trace: self.trace.clone(),
                notes: self.notes.clone(),
                network: self.network.clone(),
                data: self.data.clone(),
                words: self.words.clone(),
                kept_logs: self.kept_logs.clone(),
            };
            save(&mut self.store, CONTEXT, &context);
        }
        commit(&mut self.store);
        // Not before: what led to an event and isn't kept happens to the next incarnation again.
        self.journal.commit();
    }

    fn unit_record(&self, index: usize) -> Option<UnitRecord> {
        let unit = self.units.get(index)?;
        Some(UnitRecord {
            unit: self.state.units().get(index)?.clone(),
            pid: unit.pid,
            output: number(unit.output.as_ref()),
            report: number(self.reports.get(&index)),
            status: u32::try_from(index).map_or(-1, |index| self.listener(index)),
            filled: unit.filled,
            heard: unit.heard,
            out_of_memory: unit.out_of_memory,
            kills: unit.kills.clone(),
            asked_to_stop: unit.asked_to_stop,
            degraded: unit.degraded.clone(),
            notify: number(unit.notify.as_ref()),
            says: unit.says.clone(),
            shared: pods::descriptors(unit.shared.as_ref()),
        })
    }

    fn asking_record(&self) -> Vec<WorkerRecord> {
        self.workers.iter().filter(|w| matches!(w.kind, Kind::Health { .. })).map(WorkerRecord::of).collect()
    }

    fn listener(&self, number_of: u32) -> i32 {
        number(self.listeners.get(&number_of).map(|listener| &listener.fd))
    }

    fn common_record(&self) -> CommonRecord {
        let lasting = self.ports.lasting();
        let mut subscription = lasting.map(|entry| entry.subscription.clone()).unwrap_or_default();
        subscription.events = lasting.and_then(|entry| entry.told);
        CommonRecord {
            common: self.state.common().clone(),
            rings: number(Some(&self.rings)),
            cgroup: number(self.cgroup.as_ref()),
            console: number(self.console.fd().as_ref()),
            watchdog: number(self.watchdog.as_ref().map(|watchdog| &watchdog.device)),
            port: number(lasting.map(|entry| &entry.port)),
            subscription,
            journal: number(Some(&self.journal)),
            vsock: self.listener(super::ports::VSOCK),
            memory: number(self.memory.inotify.as_ref()),
            keep_progress: number(self.keeper.progress.as_ref()),
            keep_socket: number(self.keeper.socket.as_ref()),
            // What the next incarnation needs launched it orders anew.
            workers: self
                .workers
                .iter()
                .filter(|w| !matches!(w.kind, Kind::Launch | Kind::Health { .. }))
                .map(WorkerRecord::of)
                .collect(),
            due: self.due.clone(),
            announced: self.announced.clone(),
            line_at: self.line_at,
            kernel_level: self.kernel_level,
            kernel_left: self.kernel_left,
            kernel_next: self.kernel_next,
            attempts: self.session.as_ref().map(Session::attempted).unwrap_or_default(),
        }
    }
}

impl WorkerRecord {
    fn of(worker: &Worker) -> Self {
        Self {
            kind: worker.kind,
            pid: worker.pid,
            pidfd: number(worker.pidfd.as_ref()),
            output: number(worker.output.as_ref()),
            deadline: worker.deadline,
            reported: worker.reported,
        }
    }
}

/// What was saved counts from here on.
pub(super) fn commit(store: &mut Store) {
    if let Err(e) = store.commit() {
        log::error!("keep what has changed: {e}");
    }
}

/// Writes one record, which counts from the next [`commit`] on. A record that doesn't fit is a fault of ours: the log says so, and the
/// older one stays.
pub(super) fn save(store: &mut Store, record: usize, value: &impl Serialize) {
    let result =
        postcard::to_stdvec(value).map_err(std::io::Error::other).and_then(|bytes| store.write(record, &bytes));
    if let Err(e) = result {
        log::error!("keep record {record}: {e}");
    }
}

/// Reads one record; `None` when there is none that is whole.
pub(super) fn load<T: DeserializeOwned>(store: &Store, record: usize) -> Option<T> {
    postcard::from_bytes(&store.read(record)?).ok()
}

/// Room for so many containers.
pub(super) fn records(containers: usize) -> usize {
    FIRST_UNIT.saturating_add(containers)
}

/// The history of crashes in a state that is about to be resumed.
pub(super) fn history(store: &Store) -> History {
    load(store, HISTORY).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::containers::LONGEST_REASON;
    use crate::event_loop::{health, previous, volumes};
    use crate::status::subscription;
    use crate::supervise::{Reason, Unit};

    /// As many workers as there can be, each with the largest numbers that the kernel gives, a hundred years after the boot, and a
    /// subscription to as many logs.
    #[test]
    fn the_longest_common_record_fits() {
        let (pid, n, container, run) = (1 << 22, 1 << 20, 1 << 20, u32::MAX);
        let late = 100 * 366 * 24 * 3_600_000;
        let ms = Some(late);
        let (open, read) = (2 * volumes::AT_ONCE, previous::MOST_IN_ALL);
        let mut kinds = vec![Kind::Volumes(container); open];
        kinds.extend([Kind::Previous(u32::MAX)].repeat(read));
        let singles = [
            Kind::Modules,
            Kind::Data,
            Kind::Network,
            Kind::Passphrase,
            Kind::Shell,
            Kind::Words,
            Kind::Keep,
            Kind::Stopped,
            Kind::Stop,
        ];
        kinds.extend(singles);
        // One that was killed may still be there when its successor is.
        kinds.extend([Kind::Passphrase, Kind::Shell]);
        let worker = |kind| WorkerRecord { kind, pid, pidfd: n, output: n, deadline: ms, reported: true };
        let common = supervise::Common {
            begun: true,
            data: supervise::DataPhase::Unavailable("\u{fffd}".repeat(LONGEST_REASON / 4)),
            devices: true,
            goal: Some(supervise::Goal::Reboot),
            because: Some(container),
            finished: true,
            seed: u64::MAX,
        };
        let logs = vec![u32::MAX; subscription::MOST_LOGS];
        let record = CommonRecord {
            common,
            rings: n,
            cgroup: n,
            console: n,
            port: n,
            watchdog: n,
            subscription: Subscription { events: ms, all_logs: true, logs },
            journal: n,
            vsock: n,
            memory: n,
            keep_progress: n,
            keep_socket: n,
            workers: kinds.into_iter().map(worker).collect(),
            due: singles.map(|kind| (kind, late)).into(),
            announced: Announced::default(),
            line_at: ms,
            kernel_level: Some(u32::MAX),
            kernel_left: ms,
            kernel_next: u64::MAX,
            attempts: Attempts::default(),
        };
        let mut store = Store::create(records(0)).unwrap();
        let bytes = postcard::to_stdvec(&record).unwrap();
        store.write(COMMON, &bytes).unwrap();
        let asking: Vec<_> = [Kind::Health { container, run }; health::ALIVE].into_iter().map(worker).collect();
        store.write(ASKING, &postcard::to_stdvec(&asking).unwrap()).unwrap();
    }

    #[test]
    fn the_longest_record_fits() {
        let text = "x".repeat(LONGEST_REASON);
        let unit = Unit {
            reason: Reason::Launch(text.clone()),
            fault: Some((text, true)),
            restarts: u32::MAX,
            streak: u32::MAX,
            failures: u32::MAX,
            phase: supervise::Phase::Stopping {
                purpose: supervise::Purpose::Pod(usize::MAX),
                deadline: u64::MAX,
                latest: u64::MAX,
                kills: 255,
            },
            run: u32::MAX,
            watch: supervise::Watch {
                health: supervise::Health::Unhealthy,
                bad: u32::MAX,
                probe_at: Some(u64::MAX),
                probing: true,
                spared: true,
                well_at: Some(u64::MAX),
                alive_at: Some(u64::MAX),
                leaving: Some(u64::MAX),
                watchdog_ms: Some(u64::MAX),
                alive_by: Some(u64::MAX),
            },
            exit: Some(supervise::Exit::Code(i32::MIN)),
            ..Unit::new()
        };
        let n = i32::MIN;
        let degraded = "y".repeat(200);
        let record = UnitRecord {
            unit,
            pid: n,
            output: n,
            report: n,
            status: n,
            filled: true,
            heard: true,
            out_of_memory: true,
            kills: Kills::longest(),
            asked_to_stop: true,
            degraded,
            notify: n,
            says: "z".repeat(120),
            shared: [n; 4],
        };
        let mut store = Store::create(records(1)).unwrap();
        let bytes = postcard::to_stdvec(&record).unwrap();
        store.write(FIRST_UNIT, &bytes).unwrap();
        let again: UnitRecord = load(&store, FIRST_UNIT).unwrap();
        assert_eq!(again.unit, record.unit);
    }
}
