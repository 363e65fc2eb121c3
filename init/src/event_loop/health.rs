//! Asking containers whether they work, when the automaton wants to know: each question is a worker of its own, a few at a time.

use std::ffi::OsStr;
use std::process::Stdio;

use super::Supervisor;
use crate::clock::now_ms;
use crate::supervise::Event;
use crate::work::report;
use crate::worker::{Kind, Worker};

/// So many questions are asked at once: each is a process, and all that fall due together must not starve what they ask about.
const AT_ONCE: usize = 6;
/// And so many processes there may be, with those that were killed and can't end yet: a disk may hold them.
pub(super) const ALIVE: usize = 8;
/// A worker that holds its own time badly is killed so many milliseconds after it.
const GRACE_MS: u64 = 2_000;

impl Supervisor {
    /// The automaton wants to know how a container is.
    pub(super) fn probe(&mut self, index: usize) {
        self.questions.push_back((index, self.state.run(index)));
        self.ask();
    }

    /// Asks what waits, as far as there is room. A question that can't be asked, for want of memory or processes, is not held
    /// against the container.
    fn ask(&mut self) {
        while !self.asks_many() {
            let Some((index, run)) = self.questions.pop_front() else { return };
            if let Err(error) = self.ask_about(index, run) {
                log::warn!("ask {} how it is: {error}", self.name(index));
                self.tell(Event::ProbeLost(index, run));
            }
        }
    }

    fn asks_many(&self) -> bool {
        let questions = || self.workers.iter().filter(|worker| matches!(worker.kind, Kind::Health { .. }));
        questions().filter(|worker| worker.deadline.is_some()).count() >= AT_ONCE || questions().count() >= ALIVE
    }

    /// Time is up for a question's worker, which has been killed. When that ends is another matter.
    pub(super) fn probe_late(&mut self, index: usize, run: u32) {
        self.unanswered(index, run);
        self.ask();
    }

    fn unanswered(&mut self, index: usize, run: u32) {
        self.tell(Event::Probed(index, run, Err("no answer in time".to_owned())));
    }

    /// A question about a run that is over is nobody's any more, nor is any once the machine is stopping.
    fn ask_about(&mut self, index: usize, run: u32) -> std::io::Result<()> {
        let asks = run == self.state.run(index) && self.state.common().goal.is_none();
        let unit = self.units.get(index).filter(|_| asks);
        let Some((container, unit)) = self.plan.containers.get(index).zip(unit) else { return Ok(()) };
        // One that was killed for being late is still there: another one would come no further, and take another's place.
        let stuck =
            |worker: &Worker| worker.kind == Kind::Health { container: index, run } && worker.deadline.is_none();
        if self.workers.iter().any(stuck) {
            self.unanswered(index, run);
            return Ok(());
        }
        let (Some(health), Some(pidfd)) = (&container.supervision.health, unit.open()?) else { return Ok(()) };
        let now = now_ms();
        let (number, pid, plan) = (index.to_string(), unit.pid.to_string(), self.options.plan.clone());
        let arguments = [OsStr::new(&number), OsStr::new(&pid), plan.as_os_str()];
        let stdin = Stdio::from(pidfd);
        let mut worker = Worker::spawn_with(Kind::Health { container: index, run }, &arguments, stdin, now)?;
        worker.deadline = Some(now.saturating_add(health.timeout_ms).saturating_add(GRACE_MS));
        self.add_worker(worker);
        Ok(())
    }

    /// The answer.
    pub(super) fn probed(&mut self, index: usize, run: u32, answer: report::Health) {
        // In one line: a container could make another one look like ours.
        let detail =
            answer.detail.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let answer = if answer.well { Ok(()) } else { Err(detail) };
        self.tell(Event::Probed(index, run, answer));
    }

    /// A worker ended. One that has answered, or was killed for being late, is not heard a second time, as the container may have been
    /// asked again since; any other way to end without an answer is not the container's fault.
    pub(super) fn probe_ended(&mut self, index: usize, run: u32, worker: &Worker) {
        if !worker.reported {
            self.tell(Event::ProbeLost(index, run));
        }
        self.ask();
    }

    /// Questions that the incarnation before had not asked yet are lost with it.
    pub(super) fn miss_questions(&mut self) {
        for index in 0..self.units.len() {
            let run = self.state.run(index);
            // One that has answered asks nothing more.
            let asks = |worker: &Worker| worker.kind == Kind::Health { container: index, run } && !worker.reported;
            let asked = self.workers.iter().any(asks);
            if self.state.probing(index) && !asked {
                self.tell(Event::ProbeLost(index, run));
            }
        }
    }

    /// Nobody asks a container that has ended.
    pub(super) fn forget_questions(&mut self, index: usize) {
        self.questions.retain(|(about, _)| *about != index);
        let about_it = |kind: Kind| matches!(kind, Kind::Health { container, .. } if container == index);
        self.workers.iter().filter(|worker| about_it(worker.kind)).for_each(Worker::kill);
    }
}
