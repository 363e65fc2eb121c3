//! The worker that keeps logs: started when the data filesystem is there, told when there is something to keep, started again when
//! it failed, and ended before the filesystem goes.
//!
//! It reads the rings itself, so that nothing waits here for a disk, and nothing is lost while it is away but what the rings have
//! no room for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};

use super::Supervisor;
use super::containers::LONGEST_REASON;
use crate::clock::now_ms;
use crate::kept::progress::Progress;
use crate::kept::socket;
use crate::supervise::Exit;
use crate::work::report::{self, DataState, KeptLogs, KeptState};
use crate::worker::{Kind, Worker};

/// It is started again after so many milliseconds, twice as many after each further failure,
const FIRST_AGAIN_MS: u64 = 500;
/// but no more than this.
const LAST_AGAIN_MS: u64 = 60_000;
/// One that has worked for so long has not failed before.
const STEADY_MS: u64 = 120_000;
/// On the way down it has so long to write what is left: most of it is in the page cache after some milliseconds.
const LAST_WORDS_MS: u64 = 3_000;

/// What PID 1 has of it.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// How far it got; the next one goes on from there.
    pub(super) progress: Option<Progress>,
    /// Where it is told. Closed, it ends.
    pub(super) socket: Option<OwnedFd>,
    /// Failures in a row.
    failures: u32,
    /// When it was started last.
    since: u64,
}

impl Keeper {
    /// Has the worker look.
    pub(super) fn look(&self) {
        if let Some(socket) = &self.socket {
            socket::look(socket);
        }
    }
}

impl Supervisor {
    /// Logs of this plan are kept.
    pub(super) fn keeps_logs(&self) -> bool {
        self.plan.containers.iter().any(|container| container.kept_log.is_some())
    }

    /// How logs are kept before anything is known of the data filesystem.
    pub(super) fn kept_at_first(plan: &garboard_runtime::plan::Plan) -> KeptLogs {
        let any = plan.containers.iter().any(|container| container.kept_log.is_some());
        let state = if any { KeptState::Waiting } else { KeptState::None };
        KeptLogs { state, detail: String::new() }
    }

    /// Starts the worker, if logs are to be kept and can be.
    pub(super) fn start_keeper(&mut self) {
        if !self.keeps_logs() || self.state.common().goal.is_some() || self.keeper.socket.is_some() {
            return;
        }
        let data = self.data_now();
        if data.state != DataState::Mounted {
            let separator = if data.detail.is_empty() { "" } else { ": " };
            let state = match data.state {
                DataState::Tmpfs => "in memory only",
                DataState::Readonly => "read-only",
                _ => "absent",
            };
            let detail = format!("the data filesystem is {state}{separator}{}", data.detail);
            self.keeper_is(KeptState::Absent, detail);
            return;
        }
        self.keeper.since = now_ms();
        match self.spawn_keeper() {
            Ok(worker) => {
                self.add_worker(worker);
                // Two must not be at work.
                self.persist();
            }
            Err(e) => {
                self.keeper_failed(format!("start its worker: {e}"));
                self.keep_again();
            }
        }
    }

    fn spawn_keeper(&mut self) -> io::Result<Worker> {
        if self.keeper.progress.is_none() {
            self.keeper.progress = Some(Progress::create(self.plan.containers.len())?);
        }
        let progress = self.keeper.progress.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // It may read the rings, and not write them.
        let path = format!("/proc/self/fd/{}", self.rings.as_fd().as_raw_fd());
        let rings = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let (ours, theirs) = socket::pair()?;
        socket::hand_over(&ours, [rings.as_fd(), progress.as_fd()])?;
        let arguments = [self.options.data.as_os_str(), self.options.plan.as_os_str()];
        let worker = Worker::spawn_with(Kind::Keep, &arguments, Stdio::from(theirs), now_ms())?;
        self.keeper.socket = Some(ours);
        Ok(worker)
    }

    /// It is at work, or says why it can't.
    pub(super) fn keeper_reported(&mut self, report: report::Keep) {
        match report.fault {
            Some(fault) => self.keeper_failed(fault),
            None => self.keeper_is(KeptState::Kept, String::new()),
        }
    }

    /// It has ended, which it does by itself only when it can't go on.
    pub(super) fn keeper_ended(&mut self, exit: Exit) {
        self.keeper.socket = None;
        if self.kept_logs.state != KeptState::Failed {
            self.keeper_failed(format!("its worker {}", super::telling::ending(exit)));
        }
        self.keep_again();
    }

    fn keep_again(&mut self) {
        let now = now_ms();
        if now.saturating_sub(self.keeper.since) >= STEADY_MS {
            self.keeper.failures = 0;
        }
        let delay = FIRST_AGAIN_MS.saturating_mul(1 << self.keeper.failures.min(16)).min(LAST_AGAIN_MS);
        self.keeper.failures = self.keeper.failures.saturating_add(1);
        self.start_at(Kind::Keep, now.saturating_add(delay));
    }

    fn keeper_failed(&mut self, mut detail: String) {
        detail.truncate(detail.floor_char_boundary(LONGEST_REASON));
        self.keeper_is(KeptState::Failed, detail);
    }

    /// What is said once is not said again as long as it only comes and goes.
    fn keeper_is(&mut self, state: KeptState, detail: String) {
        let text = format!("logs are not kept: {detail}");
        if state != KeptState::Kept && !self.notes.contains(&text) {
            self.note(text);
        }
        self.kept_logs = KeptLogs { state, detail };
        self.context_changed = true;
    }

    /// Nothing more will be printed: it writes what there is and ends. One that has failed gets its last chance.
    pub(super) fn end_keeper(&mut self, now: u64) {
        let at_work = self.workers.iter().any(|worker| worker.kind == Kind::Keep);
        if !at_work
            && self.keeps_logs()
            && self.data_now().state == DataState::Mounted
            && let Ok(worker) = self.spawn_keeper()
        {
            self.add_worker(worker);
        }
        self.keeper.socket = None;
        self.common_dirty = true;
        for worker in self.workers.iter_mut().filter(|worker| worker.kind == Kind::Keep) {
            worker.deadline = Some(now.saturating_add(LAST_WORDS_MS));
        }
    }

    /// Bytes of a container's log that were to be kept, and are lost.
    pub(super) fn unkept(&self, index: usize) -> u64 {
        let kept = self.plan.containers.get(index).is_some_and(|container| container.kept_log.is_some());
        if !kept {
            return 0;
        }
        let place = self.keeper.progress.as_ref().map(|progress| progress.load(index).place).unwrap_or_default();
        place.missed.saturating_add(self.rings.overwritten(index, place.read))
    }
}
