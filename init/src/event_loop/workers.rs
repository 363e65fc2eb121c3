//! Workers: starting them, taking their results, holding them to their deadlines.

use std::ffi::OsStr;

use super::Supervisor;
use super::containers::LONGEST_REASON;
use super::signals::CrashPoint;
use super::sources::Source;
use crate::boot::{features, machine, modules};
use crate::clock::now_ms;
use crate::shutdown::{self, Patience};
use crate::supervise::{Action, DataPhase, Event, Exit, Fault, Goal};
use crate::work::report::{self, DataState, NetworkState};
use crate::worker::{self, Kind, Worker};

/// The first worker is not held back longer, in milliseconds.
const HOLD_MS: u64 = 1000;
/// Nor longer than this once a container's program was executed.
pub(super) const HOLD_EXECUTED_MS: u64 = 250;
/// A worker that could not be started, for want of memory or processes, is tried again after so many.
const SPAWN_AGAIN_MS: u64 = 500;
/// After an interface came or went, so many milliseconds pass before the uplink is looked at: others may follow.
const SETTLE_MS: u64 = 1_000;
/// On the way down the last worker waits no longer for the end of the others, which were killed.
const GONE_MS: u64 = 5_000;

impl Supervisor {
    /// Decides when the first worker is started. A container that can start without any has the machine to itself until its
    /// first line, or for a moment if it has nothing to say: that line is what somebody waits for.
    pub(super) fn hold_work(&mut self) {
        if !self.options.workers {
            self.devices_ready();
            self.tell(Event::DevicesReady);
            self.tell(Event::DataReady);
            return;
        }
        let starting = self.actions.iter().any(|action| matches!(action, Action::Launch(_)));
        self.start_at(Kind::Modules, if starting { now_ms().saturating_add(HOLD_MS) } else { 0 });
    }

    /// A container's program runs, or has said something: the first worker is started `delay` milliseconds from now.
    pub(super) fn hasten_work(&mut self, delay: u64) {
        if let Some(at) = self.due.get(&Kind::Modules).copied() {
            self.start_at(Kind::Modules, at.min(now_ms().saturating_add(delay)));
        }
    }

    /// Starts a worker at a time in milliseconds since boot; also the next incarnation does.
    pub(super) fn start_at(&mut self, kind: Kind, at: u64) {
        self.due.insert(kind, at);
        self.common_dirty = true;
    }

    /// Starts a worker now. On the way down only the one that is left to do. A worker that can't be started is tried again.
    pub(super) fn start_worker(&mut self, kind: Kind, arguments: &[&OsStr]) {
        if kind != Kind::Stop && self.state.common().goal.is_some() {
            return;
        }
        let now = now_ms();
        match Worker::spawn(kind, arguments, now) {
            Ok(worker) => self.add_worker(worker),
            Err(e) => self.not_started(kind, &format!("start the {} worker: {e}", kind.word())),
        }
    }

    /// Takes in a worker that was started.
    pub(super) fn add_worker(&mut self, worker: Worker) {
        if let Some(output) = &worker.output {
            self.sources.add_readable(output, Source::Worker(worker.pid));
        }
        self.workers.push(worker);
        self.common_dirty = true;
    }

    /// How many workers of such kinds there are.
    pub(super) fn at_work(&self, is_such: impl Fn(Kind) -> bool) -> usize {
        self.workers.iter().filter(|worker| is_such(worker.kind)).count()
    }

    /// An interface came or went. The uplink is configured again, unless its worker is at work and sees for itself: an interface that
    /// comes again has forgotten its addresses.
    pub(super) fn look_at_network(&mut self) {
        let settled = matches!(self.network.state, NetworkState::Up | NetworkState::Failed);
        if settled && self.at_work(|kind| kind == Kind::Network) == 0 && self.state.common().goal.is_none() {
            let at = now_ms().saturating_add(SETTLE_MS);
            self.start_at(Kind::Network, self.due.get(&Kind::Network).map_or(at, |due| at.min(*due)));
        }
    }

    fn not_started(&mut self, kind: Kind, why: &str) {
        if let Kind::Volumes(index) = kind {
            self.launch_failed(index, Fault { text: why.to_owned(), transient: true });
            return;
        }
        let text = format!("{why}; it is tried again");
        if !self.notes.contains(&text) {
            self.note(text);
        }
        self.start_at(kind, now_ms().saturating_add(SPAWN_AGAIN_MS));
    }

    /// Reads a piece of a worker's results.
    pub(super) fn take_worker_output(&mut self, pid: i32) {
        let Some(place) = self.workers.iter().position(|w| w.pid == pid) else { return };
        let Some(worker) = self.workers.get_mut(place) else { return };
        let kind = worker.kind;
        if kind == Kind::Launch {
            return self.hear_launcher(pid);
        }
        let mut lines = Vec::new();
        let more = worker.read(&mut self.buffer, |line| lines.push(line.to_vec()));
        if !more && let Some(output) = worker.output.take() {
            self.sources.remove(&output);
            self.common_dirty = true;
        }
        if lines.is_empty() {
            return;
        }
        self.crash_if_asked(CrashPoint::Read);
        for line in lines {
            let reported = self.result(kind, &line);
            if let Some(worker) = self.workers.iter_mut().find(|worker| reported && worker.pid == pid) {
                worker.reported = true;
                self.common_dirty = true;
            }
        }
        // The pipe has it no more.
        self.persist();
    }

    /// Takes a line; whether it is a result.
    fn result(&mut self, kind: Kind, line: &[u8]) -> bool {
        let fault = match kind {
            Kind::Modules => serde_json::from_slice(line).map(|r: report::Modules| {
                for fault in r.failed {
                    self.note(fault);
                }
                for name in r.absent {
                    features::withdraw(&mut self.features, &name);
                }
            }),
            Kind::Data => serde_json::from_slice(line).map(|r: report::Mounted| {
                self.data_settled(r.data, r.stopped);
                if let Some(fault) = r.fault {
                    self.not_known(&fault);
                }
            }),
            Kind::Stopped => serde_json::from_slice(line).map(|r: report::Stopped| self.not_kept(&r.fault)),
            Kind::Network => serde_json::from_slice(line).map(|r: report::Network| {
                if r.state == NetworkState::Up && r != self.network {
                    let uplink = r.uplink.as_deref().unwrap_or("?");
                    self.console.say(&format!("network: {uplink} has {}", r.addresses.join(", ")));
                }
                self.network = r;
            }),
            Kind::Volumes(index) => serde_json::from_slice(line).map(|r| self.take_volumes(index, r)),
            Kind::Health { container, run } => serde_json::from_slice(line).map(|r| self.probed(container, run, r)),
            Kind::Passphrase => {
                serde_json::from_slice(line).map(|r: report::Passphrase| self.passphrase(Some(r.right)))
            }
            Kind::Shell => serde_json::from_slice(line).map(|r: report::Shell| self.shell_reported(r.fault)),
            Kind::Words => serde_json::from_slice(line).map(|r| self.take_words(r)),
            Kind::Keep => serde_json::from_slice(line).map(|r| self.keeper_reported(r)),
            Kind::Previous(ticket) => serde_json::from_slice(line).map(|r| self.take_previous(ticket, r)),
            // Its answers are no lines.
            Kind::Launch | Kind::Stop => Ok(()),
        }
        .err();
        // What changes often is no part of it.
        self.context_changed |= !matches!(kind, Kind::Health { .. } | Kind::Previous(_));
        if let Some(fault) = &fault {
            log::warn!("{} worker: not a result: {fault}", kind.word());
        }
        fault.is_none()
    }

    fn data_settled(&mut self, data: report::Data, stopped: Vec<usize>) {
        let why = data.detail.chars().take(LONGEST_REASON.saturating_div(4)).collect::<String>();
        self.data = data;
        self.context_changed = true;
        self.watch_data(now_ms());
        // Before anything is started that waited for this.
        self.keep_stopped(stopped);
        self.start_words();
        self.start_keeper();
        if self.data.state != DataState::Absent {
            self.tell(Event::DataReady);
            return;
        }
        self.tell(Event::DataUnavailable(why.clone()));
        // On the way down its worker is killed: that says nothing of the disk.
        if self.state.common().goal.is_none() && self.plan.data.as_ref().is_some_and(|d| d.required) {
            self.note(format!("the data filesystem is required and absent: {why}"));
            self.shut_down(self.options.stop, "the declaration requires its data filesystem");
        }
    }

    /// A child ended that is no container's: a worker, or a stranger left to us.
    pub(super) fn worker_ended(&mut self, pid: i32, exit: Exit) {
        let Some(place) = self.workers.iter().position(|w| w.pid == pid) else { return };
        // What it said last.
        for _ in 0..16 {
            if self.workers.get(place).is_none_or(|w| w.output.is_none()) {
                break;
            }
            self.take_worker_output(pid);
        }
        let worker = self.workers.swap_remove(place);
        if let Some(output) = &worker.output {
            self.sources.remove(output);
        }
        self.common_dirty = true;
        // On the way down nothing is begun; but who waits for an answer, or for the line, still gets it.
        let is_awaited =
            matches!(worker.kind, Kind::Stop | Kind::Previous(_) | Kind::Passphrase | Kind::Shell | Kind::Launch);
        if is_awaited || self.state.common().goal.is_none() {
            self.work_ended(&worker, exit);
        }
        if self.workers.is_empty() && self.due.contains_key(&Kind::Stop) {
            self.start_at(Kind::Stop, 0);
        }
        self.context_changed |= !matches!(worker.kind, Kind::Health { .. } | Kind::Previous(_) | Kind::Launch);
    }

    /// What follows the end of a worker, whether it did its work or not.
    fn work_ended(&mut self, worker: &Worker, exit: Exit) {
        let kind = worker.kind;
        let how = format!("its worker {}", super::telling::ending(exit));
        match kind {
            Kind::Modules => {
                if !exit.success() {
                    self.note(format!("modules: {how}"));
                }
                if let Err(e) = modules::lock(&self.options.modules_lock) {
                    self.note(format!(
                        "modules can still be loaded: write {}: {e}",
                        self.options.modules_lock.display()
                    ));
                }
                for fault in machine::configure_late(&self.plan) {
                    self.note(fault);
                }
                self.devices_ready();
                self.tell(Event::DevicesReady);
                if self.plan.data.is_some() {
                    self.start_worker(Kind::Data, &[]);
                } else {
                    self.tell(Event::DataReady);
                    self.start_words();
                }
                self.start_worker(Kind::Network, &[]);
            }
            // One that reported first and failed afterwards has settled the matter.
            Kind::Data if self.state.common().data == DataPhase::Pending => {
                if exit.success() && worker.adopted {
                    // It has reported to the process before, which crashed of that or right then: another one looks.
                    self.start_worker(Kind::Data, &[]);
                    return;
                }
                let detail = if exit.success() { "its worker gave no report".to_owned() } else { how };
                self.data_settled(report::Data { state: DataState::Absent, detail, bytes: 0 }, Vec::new());
            }
            // An interface may come later, and what failed once may go well.
            Kind::Network if !exit.success() || self.network.state == NetworkState::Failed => {
                if !exit.success() {
                    self.network.state = NetworkState::Failed;
                    self.network.detail = how;
                }
                self.start_at(Kind::Network, now_ms().saturating_add(self.options.network_again_ms));
            }
            // It has said any other reason itself.
            Kind::Stopped if matches!(exit, Exit::Signal(_)) => self.not_kept(&how),
            Kind::Data | Kind::Network | Kind::Stopped => {}
            Kind::Volumes(index) => self.volumes_ended(index, worker, exit),
            Kind::Health { container, run } => self.probe_ended(container, run, worker),
            // One that has reported was listened to.
            Kind::Passphrase => self.passphrase(None),
            Kind::Shell => self.take_line_back(),
            Kind::Words => self.words_ended(exit),
            Kind::Launch => self.launcher_ended(worker.pid, exit),
            Kind::Keep => self.keeper_ended(exit),
            Kind::Previous(ticket) => self.previous_ended(ticket, exit),
            Kind::Stop => self.outcome = self.state.common().goal,
        }
    }

    /// Kills workers that take too long; starts those that are due.
    pub(super) fn check_workers(&mut self, now: u64) {
        let mut late = Vec::new();
        for worker in self.workers.iter_mut().filter(|worker| worker.deadline.is_some_and(|at| now >= at)) {
            worker.deadline = None;
            if let Kind::Health { container, run } = worker.kind {
                // What it has executed in the container would be there once more after each question.
                worker::kill_with_children(worker);
                if !std::mem::replace(&mut worker.reported, true) {
                    late.push((container, run));
                }
            } else {
                worker.kill();
            }
            self.common_dirty = true;
        }
        for (container, run) in late {
            self.probe_late(container, run);
        }
        let due: Vec<Kind> = self.due.iter().filter(|(_, at)| now >= **at).map(|(kind, _)| *kind).collect();
        for kind in due {
            self.due.remove(&kind);
            self.common_dirty = true;
            match kind {
                Kind::Words => self.start_words(),
                Kind::Stop => self.start_stop(),
                Kind::Keep => self.start_keeper(),
                _ => self.start_worker(kind, &[]),
            }
        }
        if self.patience.as_mut().is_some_and(|patience| patience.is_over(now, shutdown::unwritten)) {
            // A disk that doesn't answer must not keep the machine up; nor may a worker that can't even be killed.
            self.workers.iter().for_each(Worker::kill);
            self.outcome = self.state.common().goal;
        }
    }

    /// Every container has ended. What a worker mounts after the last one has looked would stay mounted, so that waits for the
    /// others' end.
    pub(super) fn finish(&mut self, goal: Goal) {
        if !self.options.workers {
            self.outcome = Some(goal);
            return;
        }
        let now = now_ms();
        self.patience = Some(Patience::begin(now));
        self.due.clear();
        // What is open can't be unmounted.
        self.units.iter_mut().for_each(|unit| unit.volumes = None);
        // But for the one that has the last words of the others to write.
        self.end_keeper(now);
        let (stopping, others) = self.workers.iter().partition::<Vec<_>, _>(|worker| worker.kind == Kind::Stop);
        // What a person wanted last is kept, if the disk answers.
        let spared = |worker: &&Worker| matches!(worker.kind, Kind::Keep | Kind::Stopped);
        others.iter().filter(|worker| !spared(worker)).for_each(|worker| worker.kill());
        if stopping.is_empty() {
            self.start_at(Kind::Stop, if others.is_empty() { 0 } else { now.saturating_add(GONE_MS) });
        }
    }
}
