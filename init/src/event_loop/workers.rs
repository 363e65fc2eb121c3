//! Workers: starting them, taking their results, holding them to their deadlines.

use std::ffi::OsStr;

use super::Supervisor;
use super::containers::LONGEST_REASON;
use super::sources::Source;
use crate::boot::features;
use crate::clock::now_ms;
use crate::supervise::{Event, Exit, Fault, Goal};
use crate::work::report::{self, DataState, NetworkState};
use crate::worker::{Kind, Worker};

/// The first worker is not held back longer, in milliseconds.
const HOLD_MS: u64 = 1000;
/// Nor longer than this once a container's program was executed.
pub(super) const HOLD_EXECUTED_MS: u64 = 250;
/// The network worker is started again after so many milliseconds if it fails.
const NETWORK_AGAIN_MS: u64 = 10_000;

impl Supervisor {
    /// Decides when the first worker is started. A container that can start without any has the machine to itself until its
    /// first line, or for a moment if it has nothing to say: that line is what somebody waits for.
    pub(super) fn hold_work(&mut self) {
        if !self.options.workers {
            self.tell(Event::DevicesReady);
            self.tell(Event::DataReady);
            return;
        }
        let starting = !self.pids.is_empty();
        self.work_at = Some(if starting { now_ms().saturating_add(HOLD_MS) } else { 0 });
        self.common_dirty = true;
    }

    /// A container's program runs, or has said something: the first worker is started `delay` milliseconds from now.
    pub(super) fn hasten_work(&mut self, delay: u64) {
        if let Some(at) = self.work_at {
            self.work_at = Some(at.min(now_ms().saturating_add(delay)));
            self.common_dirty = true;
        }
    }

    pub(super) fn start_worker(&mut self, kind: Kind, arguments: &[&OsStr]) {
        let now = now_ms();
        match Worker::spawn(kind, arguments, now) {
            Ok(worker) => {
                if let Some(output) = &worker.output {
                    self.sources.add_readable(output, Source::Worker(worker.pid));
                }
                self.workers.push(worker);
                self.common_dirty = true;
            }
            Err(e) => self.work_failed(kind, &format!("start its worker: {e}")),
        }
    }

    /// Reads a piece of a worker's results.
    pub(super) fn take_worker_output(&mut self, pid: i32) {
        let Some(place) = self.workers.iter().position(|w| w.pid == pid) else { return };
        let Some(worker) = self.workers.get_mut(place) else { return };
        let kind = worker.kind;
        let mut lines = Vec::new();
        let more = worker.read(&mut self.buffer, |line| lines.push(line.to_vec()));
        if !more && let Some(output) = worker.output.take() {
            self.sources.remove(&output);
            self.common_dirty = true;
        }
        for line in lines {
            self.result(kind, &line);
        }
    }

    fn result(&mut self, kind: Kind, line: &[u8]) {
        let fault = match kind {
            Kind::Modules => serde_json::from_slice(line).map(|r: report::Modules| {
                for fault in r.failed {
                    self.note(fault);
                }
                for name in r.absent {
                    features::withdraw(&mut self.features, &name);
                }
            }),
            Kind::Data => serde_json::from_slice(line).map(|r| self.data_settled(r)),
            Kind::Network => serde_json::from_slice(line).map(|r: report::Network| {
                if r.state == NetworkState::Up && r != self.network {
                    let uplink = r.uplink.as_deref().unwrap_or("?");
                    self.console.say(&format!("network: {uplink} has {}", r.addresses.join(", ")));
                }
                self.network = r;
            }),
            Kind::Fill(index) => serde_json::from_slice(line).map(|r| self.fill_failed(index, r)),
            Kind::Stop => Ok(()),
        }
        .err();
        self.context_changed = true;
        if let Some(fault) = fault {
            log::warn!("{} worker: not a result: {fault}", kind.word());
        }
    }

    fn data_settled(&mut self, data: report::Data) {
        let why = data.detail.chars().take(LONGEST_REASON.saturating_div(4)).collect::<String>();
        self.data = data;
        self.watch_data(now_ms());
        if self.data.state != DataState::Absent {
            self.tell(Event::DataReady);
        } else {
            self.tell(Event::DataUnavailable(why.clone()));
            if self.plan.data.as_ref().is_some_and(|d| d.required) {
                self.note(format!("the data filesystem is required and absent: {why}"));
                self.shut_down(self.options.stop, "the declaration requires its data filesystem");
            }
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
        if let Kind::Fill(index) = worker.kind {
            self.fill_ended(index, exit);
        } else if !exit.success() {
            self.work_failed(worker.kind, &format!("its worker {}", super::view::ending(exit)));
        }
        match worker.kind {
            Kind::Modules => {
                self.tell(Event::DevicesReady);
                if self.plan.data.is_some() {
                    self.start_worker(Kind::Data, &[]);
                } else {
                    self.tell(Event::DataReady);
                }
                self.start_worker(Kind::Network, &[]);
                self.look_for_port();
            }
            Kind::Stop => self.outcome = self.state.common().goal,
            Kind::Data | Kind::Network | Kind::Fill(_) => {}
        }
    }

    /// What it means that a worker did not do its work.
    fn work_failed(&mut self, kind: Kind, why: &str) {
        match kind {
            Kind::Modules => self.note(format!("modules: {why}")),
            // One that reported first and failed afterwards has settled the matter.
            Kind::Data if self.state.common().data == crate::supervise::DataPhase::Pending => {
                self.data_settled(report::Data { state: DataState::Absent, detail: why.to_owned(), bytes: 0 });
            }
            Kind::Data => {}
            Kind::Network => {
                self.network.state = NetworkState::Failed;
                self.network.detail = why.to_owned();
                if self.state.common().goal.is_none() {
                    self.network_again = Some(now_ms().saturating_add(NETWORK_AGAIN_MS));
                }
            }
            // It could not be started, likely for want of memory or processes.
            Kind::Fill(index) => {
                let text = format!("fill its volumes: {why}");
                self.launch_failed(index, Fault { text, transient: true });
            }
            Kind::Stop => self.outcome = self.state.common().goal,
        }
        self.context_changed = true;
    }

    /// Kills workers that take too long; starts the network's again when it is time.
    pub(super) fn check_workers(&mut self, now: u64) {
        for worker in &mut self.workers {
            if worker.deadline.is_some_and(|at| now >= at) {
                worker.deadline = None;
                worker.kill();
                if worker.kind == Kind::Stop {
                    // A disk that doesn't answer must not keep the machine up; nor may a worker that can't even be killed.
                    self.outcome = self.state.common().goal;
                }
            }
        }
        if self.work_at.is_some_and(|at| now >= at) {
            self.work_at = None;
            self.common_dirty = true;
            self.start_worker(Kind::Modules, &[]);
        }
        if self.network_again.is_some_and(|at| now >= at) {
            self.network_again = None;
            self.start_worker(Kind::Network, &[]);
        }
    }

    /// Every container has ended.
    pub(super) fn finish(&mut self, goal: Goal) {
        self.network_again = None;
        self.work_at = None;
        for worker in &self.workers {
            worker.kill();
        }
        if self.options.workers {
            self.start_worker(Kind::Stop, &[]);
        } else {
            self.outcome = Some(goal);
        }
    }
}
