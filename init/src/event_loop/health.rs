//! Asking containers whether they work, when the automaton wants to know: each question is a worker of its own.
//!
//! A few begin at a time. One that is under way only waits, and holds up no other: who doesn't answer may take all of the time that its check
//! gives it, and others are asked meanwhile. There is an end to how many wait; those that were slow the last time leave room for the others.

use std::ffi::OsStr;
use std::process::Stdio;

use super::Supervisor;
use crate::clock::now_ms;
use crate::supervise::Event;
use crate::work::report;
use crate::worker::{Kind, Worker};

/// So many questions begin at once: each is a process, and all that fall due together must not starve what they ask about.
const AT_ONCE: usize = 6;
/// After so many milliseconds one that has no answer has begun: from then on it waits.
const BEGUN_MS: u64 = 1_000;
/// And so many processes there may be, with those that were killed and can't end yet: a disk may hold them. The record that keeps them has an end.
pub(super) const ALIVE: usize = 40;
/// A worker that holds its own time badly is killed so many milliseconds after it.
const GRACE_MS: u64 = 2_000;

/// Whether a question that is under way is one that waits.
fn waits(worker: &Worker, now: u64) -> bool {
    worker.deadline.is_none() || now.saturating_sub(worker.since) >= BEGUN_MS
}

/// Which of those that wait is asked next, while so many begin and so many are alive: the first, or the first of a container that was not slow,
/// when what is left is for these.
fn next(begin: usize, alive: usize, mut slow: impl Iterator<Item = bool>) -> Option<usize> {
    if begin >= AT_ONCE || alive >= ALIVE {
        return None;
    }
    let room = alive < ALIVE.saturating_sub(AT_ONCE);
    slow.position(|slow| room || !slow)
}

impl Supervisor {
    /// The automaton wants to know how a container is.
    pub(super) fn probe(&mut self, index: usize) {
        self.questions.push_back((index, self.state.run(index)));
        self.ask(now_ms());
    }

    /// Asks what waits, as far as there is room. A question that can't be asked, for want of memory or processes, is not held
    /// against the container.
    pub(super) fn ask(&mut self, now: u64) {
        while let Some(place) = self.next_question(now) {
            let Some((index, run)) = self.questions.remove(place) else { return };
            if let Err(error) = self.ask_about(index, run) {
                log::warn!("ask {} how it is: {error}", self.name(index));
                self.tell(Event::ProbeLost(index, run));
            }
        }
    }

    /// Where among those that wait the question is that can be asked now.
    fn next_question(&self, now: u64) -> Option<usize> {
        let begin = self.asking().filter(|worker| !waits(worker, now)).count();
        let slow = |index: usize| self.units.get(index).is_some_and(|unit| unit.slow);
        next(begin, self.asking().count(), self.questions.iter().map(|(index, _)| slow(*index)))
    }

    fn asking(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| matches!(worker.kind, Kind::Health { .. }))
    }

    /// When a question that waits can be asked, as another one has begun.
    pub(super) fn questions_due(&self, now: u64) -> Option<u64> {
        if self.questions.is_empty() {
            return None;
        }
        self.asking().filter(|worker| !waits(worker, now)).map(|worker| worker.since.saturating_add(BEGUN_MS)).min()
    }

    /// Time is up for a question's worker, which has been killed. When that ends is another matter.
    pub(super) fn probe_late(&mut self, index: usize, run: u32) {
        self.unanswered(index, run);
        self.note_pace(index, true);
        self.ask(now_ms());
    }

    fn note_pace(&mut self, index: usize, slow: bool) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.slow = slow;
        }
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
        let now = now_ms();
        if !worker.reported {
            self.tell(Event::ProbeLost(index, run));
        }
        // How long one has taken that the incarnation before has asked is not known.
        self.note_pace(index, !worker.adopted && waits(worker, now));
        self.ask(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_leave_room_for_others() {
        let of = |begin, alive, slow: &[bool]| next(begin, alive, slow.iter().copied());
        let full = ALIVE - AT_ONCE;
        assert_eq!(of(0, full - 1, &[true, false]), Some(0), "as long as there is room, in turn");
        assert_eq!(of(0, full, &[true, true, false]), Some(2));
        assert_eq!(of(0, full, &[true, true]), None);
        assert_eq!(of(AT_ONCE, AT_ONCE, &[false]), None, "too many begin");
        assert_eq!(of(0, ALIVE, &[false]), None);
    }
}
