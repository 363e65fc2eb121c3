//! How a supervisor goes on as the next incarnation of one that crashed.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::persist::{CommonRecord, Context, UnitRecord, WorkerRecord};
use super::setup::rules;
use super::sources::Source;
use super::{Supervisor, persist, pods, signals};
use crate::boot;
use crate::clock::{now_ms, now_us};
use crate::console::Console;
use crate::crash::{self, History};
use crate::events::Kind;
use crate::kept::progress::Progress;
use crate::logs::{Journal, Rings};
use crate::status::Port;
use crate::store::{self, Store};
use crate::supervise::{Action, Event, Fault, State};
use crate::sys::fd::Inherited;
use crate::sys::signal::SignalFd;
use crate::worker::{self, Worker};

/// A worker that nobody knows is given so many milliseconds to be gone, and no more: a disk may hold it up.
const STRANGER_MS: u64 = 100;

/// Why a crashed supervisor can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumeError {
    /// What it left can't be used.
    State(String),
    /// It crashed twice within a minute.
    Again(History),
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(why) => write!(f, "its state can't be resumed: {why}"),
            Self::Again(history) => {
                let History { count, before, .. } = history;
                write!(f, "crash number {count} came within a minute of the one before ({before})")
            }
        }
    }
}

impl std::error::Error for ResumeError {}

/// For how long nobody supervised, where it is known since when.
fn away(since: &str) -> String {
    let since = since.parse::<u64>().ok().filter(|since| *since > 0);
    let us = since.and_then(|since| now_us().checked_sub(since)).map(|us| us.checked_div(100).unwrap_or(0));
    us.map_or_else(String::new, |tenths| {
        let (ms, rest) = (tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0));
        format!("; back after {ms}.{rest} ms")
    })
}

/// Everybody whose parent PID 1 is.
pub(super) fn children() -> Vec<i32> {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Supervisor {
    /// Goes on where the process before crashed with `reason`, at `since`. `state` is the descriptor of its state, from the command line;
    /// `inherited` is what [`Inherited::take_all`] found before anything else was opened. With an error come the machine's watchdog, if it
    /// is under way, and faults that lead nowhere any more.
    pub fn resume(
        mut inherited: Inherited,
        state: &str,
        since: &str,
        reason: &str,
    ) -> Result<Self, (ResumeError, Option<OwnedFd>)> {
        let mut watchdog = -1;
        let mut again = Self::resume_from(&mut inherited, state, reason, &mut watchdog).map_err(|error| {
            crate::sys::crash::disarm();
            (error, inherited.take(watchdog))
        })?;
        let text = format!("PID 1 crashed and goes on, nothing was lost: {reason}{}", away(since));
        again.record(Kind::Crash, None, &text);
        again.remember(text);
        Ok(again)
    }

    fn resume_from(
        inherited: &mut Inherited,
        state: &str,
        reason: &str,
        watchdog: &mut i32,
    ) -> Result<Self, ResumeError> {
        let fault = |what: &str| ResumeError::State(what.to_owned());
        let os = |what: &'static str| move |e: io::Error| ResumeError::State(format!("{what}: {e}"));
        // The signal of the fault is still blocked; the next one must get through.
        let signals = SignalFd::replace_mask(&signals::wanted()).map_err(os("signalfd"))?;
        let memory = state.parse().ok().and_then(|n| inherited.take(n)).ok_or_else(|| fault("no state descriptor"))?;
        let number = memory.as_raw_fd();
        let records = store::records_in(&memory).ok_or_else(|| fault("not a state"))?;
        let mut store = Store::adopt(memory, records).map_err(os("open it"))?;
        let common = persist::load::<CommonRecord>(&store, persist::COMMON);
        *watchdog = common.as_ref().map_or(-1, |common| common.watchdog);
        let mut history = persist::history(&store);
        let bearable = history.note(reason, now_ms());
        persist::save(&mut store, persist::HISTORY, &history);
        persist::commit(&mut store);
        crash::install().map_err(os("install handlers"))?;
        crate::sys::crash::arm(number);
        if !bearable {
            return Err(ResumeError::Again(history));
        }

        let context: Context = persist::load(&store, persist::CONTEXT).ok_or_else(|| fault("no context"))?;
        let mut common = common.ok_or_else(|| fault("no common record"))?;
        let asking: Option<Vec<WorkerRecord>> = persist::load(&store, persist::ASKING);
        common.workers.extend(asking.ok_or_else(|| fault("no record of questions"))?);
        let plan = boot::read_plan_at(&context.options.plan).map_err(|e| ResumeError::State(e.to_string()))?;
        let count = plan.containers.len();
        if persist::records(count) != records {
            return Err(fault("made for another plan"));
        }
        let unit = |i: usize| persist::load::<UnitRecord>(&store, persist::FIRST_UNIT.saturating_add(i));
        let units: Vec<Option<UnitRecord>> = (0..count).map(unit).collect();
        let memories = units.iter().map(|u| u.as_ref().map(|u| u.unit.clone()).unwrap_or_default()).collect();
        let state = State::resume(rules(&plan), context.options.policy, memories, common.common.clone());
        let rings = inherited.take(common.rings).ok_or_else(|| fault("no log rings"))?;
        let journal = inherited.take(common.journal).ok_or_else(|| fault("no events"))?;
        let rings = (Rings::adopt(rings, count, plan.log_budget), Journal::adopt(journal));
        let console = Console::adopt(inherited.take(common.console));
        let mut again = Self::assemble(plan, context, state, store, rings, console, signals).map_err(os("epoll"))?;
        again.cgroup = inherited.take(common.cgroup);
        again.stop_told = again.state.common().goal.is_some();
        again.listen(true);
        again.line_at = common.line_at;
        (again.kernel_level, again.kernel_left) = (common.kernel_level, common.kernel_left);
        again.kernel_next = common.kernel_next;
        again.let_kernel_speak();
        if let Some(session) = &mut again.session {
            *session.attempts() = common.attempts;
        }
        // Whichever of them the process before had done: it crashed on its last steps, or on its first. But there are programs that take
        // a second stop signal for impatience.
        let asked = |index: usize| units.get(index).and_then(Option::as_ref).is_some_and(|unit| unit.asked_to_stop);
        let owed = again.state.owed().into_iter().filter(|action| !matches!(action, Action::Stop(i) if asked(*i)));
        again.actions.extend(owed);
        // Workers first: a container that one works for isn't lost.
        again.adopt_workers(common, inherited);
        again.end_strangers(&units);
        again.end_console_workers();
        again.adopt_units(units, inherited);
        again.store.forget();
        again.rehearsed = None;
        again.miss_questions();
        again.watch_data(now_ms());
        again.stops_may_have_changed(&(0..count).collect::<Vec<_>>());
        again.watch_memory();
        Ok(again)
    }

    fn adopt_units(&mut self, records: Vec<Option<UnitRecord>>, inherited: &mut Inherited) {
        let mut lost = Vec::new();
        let opening: Vec<usize> = self.workers.iter().filter_map(|worker| worker.kind.container()).collect();
        let mut listeners = Vec::new();
        for (index, (unit, record)) in self.units.iter_mut().zip(records).enumerate() {
            let Some(record) = record else { continue };
            // One that is gone must not be taken for another that gets its number.
            let mut whole = true;
            let mut take = |number| {
                let taken = inherited.take(number);
                whole &= taken.is_some() || number < 0;
                taken
            };
            unit.seen = Some(record.unit.phase);
            unit.health = record.unit.watch.health;
            listeners.extend(take(record.status).map(|fd| (index, fd)));
            unit.filled = record.filled;
            unit.heard = record.heard;
            unit.out_of_memory = record.out_of_memory;
            unit.kills = record.kills;
            unit.asked_to_stop = record.asked_to_stop;
            unit.degraded = record.degraded;
            unit.says = record.says;
            unit.shared = pods::adopt(record.shared, &mut take);
            unit.notify = take(record.notify);
            if let Some(socket) = &unit.notify {
                self.sources.add_readable(socket, Source::Notify(index));
            }
            if record.pid != 0 {
                unit.pid = record.pid;
                unit.output = take(record.output);
                self.pids.insert(record.pid, index);
                if let Some(output) = &unit.output {
                    self.sources.add_readable(output, Source::Output(index));
                }
                if let Some(report) = take(record.report) {
                    self.sources.add_hang_up(&report, Source::Report(index));
                    self.reports.insert(index, report);
                }
            } else {
                // It may have ended right before the crash.
                self.left.insert(index);
                if self.state.wants_launch(index) && !opening.contains(&index) {
                    // One whose volumes were never whole has waited for that: no child was made of it.
                    let has_volumes = self.plan.containers.get(index).is_some_and(|c| c.launch.has_volumes());
                    let waits = has_volumes && !record.filled;
                    if waits { self.unopened.push_back(index) } else { lost.push(index) }
                }
            }
            // Else it is kept already, as it is.
            if !whole {
                self.dirty.push(index);
            }
        }
        for (index, fd) in listeners {
            self.use_listener(u32::try_from(index).unwrap_or(u32::MAX), fd);
        }
        self.open_more();
        for index in lost {
            // A child may have been made that nobody knows; its cgroup does.
            self.kill_cgroup(index);
            let text = "PID 1 crashed while launching it".to_owned();
            self.tell(Event::LaunchFailed(index, Fault { text, transient: true }));
        }
    }

    /// Ends workers that the process before had started and not kept: what they work at is begun once more, and they would be in its way.
    fn end_strangers(&self, units: &[Option<UnitRecord>]) {
        let workers = self.workers.iter().map(|worker| worker.pid);
        let known: BTreeSet<i32> = units.iter().flatten().map(|unit| unit.pid).chain(workers).collect();
        let strange = |pid: &i32| !known.contains(pid) && worker::is_one(*pid);
        for pid in children().into_iter().filter(strange) {
            log::warn!("process {pid} is a worker that nobody knows");
            worker::end(pid, STRANGER_MS);
        }
    }

    fn adopt_workers(&mut self, common: CommonRecord, inherited: &mut Inherited) {
        for w in common.workers {
            let mut worker =
                Worker::adopt(w.kind, w.pid, inherited.take(w.pidfd), inherited.take(w.output), w.deadline);
            worker.reported = w.reported;
            if let worker::Kind::Previous(ticket) = w.kind {
                self.previous.pass_over(ticket);
            }
            if let Some(output) = &worker.output {
                self.sources.add_readable(output, Source::Worker(worker.pid));
            }
            self.workers.push(worker);
        }
        self.due = common.due;
        self.keeper.progress = inherited.take(common.keep_progress).map(Progress::adopt);
        self.keeper.socket = inherited.take(common.keep_socket);
        // Who asked for what these read has not heard that PID 1 goes on.
        self.forget_previous(u32::MAX);
        self.announced = common.announced;
        if let Some((device, seconds)) = inherited.take(common.watchdog).zip(self.plan.watchdog_seconds) {
            self.use_watchdog(device, seconds);
        }
        if let Some(fd) = inherited.take(common.port) {
            let number = self.use_port(Port::adopt(fd));
            if let Some(entry) = self.ports.get_mut(number) {
                entry.told = common.subscription.events;
                entry.subscription = common.subscription;
            }
        }
        self.memory.inotify = inherited.take(common.memory);
        if let Some(fd) = inherited.take(common.vsock) {
            self.use_listener(super::ports::VSOCK, fd);
        }
        if self.state.common().devices {
            self.devices_ready();
        }
        self.hear_of_devices();
    }
}
