//! Asking containers whether they work, when the automaton wants to know: each question is a worker of its own, a few at a time.

use std::ffi::OsStr;
use std::process::Stdio;

use super::Supervisor;
use crate::clock::now_ms;
use crate::supervise::Event;
use crate::work::report;
use crate::worker::{Kind, Worker};

/// So many questions are asked at once: each is a process, and all that fall due together must not starve what they ask about.
pub(super) const AT_ONCE: usize = 8;
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
        self.at_work(|kind| matches!(kind, Kind::Health { .. })) >= AT_ONCE
    }

    /// A question about a run that is over is nobody's any more, nor is any once the machine is stopping.
    fn ask_about(&mut self, index: usize, run: u32) -> std::io::Result<()> {
        let asks = run == self.state.run(index) && self.state.common().goal.is_none();
        let unit = self.units.get(index).filter(|_| asks);
        let Some((container, unit)) = self.plan.containers.get(index).zip(unit) else { return Ok(()) };
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

    /// A worker ended. One that has answered is not heard a second time, as the container may have been asked again since; one that has
    /// not held its time was killed for it, and any other way to end without an answer is not the container's fault.
    pub(super) fn probe_ended(&mut self, index: usize, run: u32, worker: &Worker) {
        if let Some(event) = left_unsaid(index, run, worker) {
            self.tell(event);
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

/// What the end of a worker says that it has not said itself.
fn left_unsaid(index: usize, run: u32, worker: &Worker) -> Option<Event> {
    // It has none any more when it was killed for it.
    let late = worker.deadline.is_none();
    (!worker.reported).then(|| match late {
        true => Event::Probed(index, run, Err("no answer in time".to_owned())),
        false => Event::ProbeLost(index, run),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_not_answered_is_spoken_for_and_only_the_late_are_blamed() {
        let said = |reported, deadline| {
            let kind = Kind::Health { container: 2, run: 7 };
            let mut worker = Worker::adopt(kind, 1, None, None, deadline);
            worker.reported = reported;
            left_unsaid(2, 7, &worker)
        };
        assert_eq!([said(true, Some(9)), said(true, None)], [None, None]);
        assert_eq!(said(false, Some(9)), Some(Event::ProbeLost(2, 7)));
        assert_eq!(said(false, None), Some(Event::Probed(2, 7, Err("no answer in time".to_owned()))));
    }
}
