//! What a person has stopped stays stopped over a boot, where `unless-stopped` says so and a data filesystem keeps it.
//!
//! The `data` worker reads the record when it has mounted the filesystem; containers whose policy it is wait for that. A worker
//! writes it anew whenever it is no longer true. How the machine's end stops containers is nobody's wish, and not kept.

use std::ffi::OsStr;

use garboard_runtime::plan::Restart;

use super::Supervisor;
use crate::clock::now_ms;
use crate::events::Kind as EventKind;
use crate::supervise::{DataPhase, Event, Phase, Purpose, Reason};
use crate::work::report::DataState;
use crate::worker::{Kind, Worker};

/// What is kept, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// It may have changed.
    look: bool,
    /// The containers that a person has stopped, by index; `None`: nobody has looked yet.
    now: Option<Vec<usize>>,
    /// As a worker was last told to write it, or as it was read; `None`: not known, after a crash.
    told: Option<Vec<usize>>,
    /// Whom a person wants to run, while it isn't known who was stopped in an earlier boot.
    wanted: Vec<usize>,
}

impl Supervisor {
    /// Stops what a person had stopped in an earlier boot.
    pub(super) fn keep_stopped(&mut self, mut indices: Vec<usize>) {
        indices.retain(|index| self.stays_stopped(*index));
        let wanted = std::mem::take(&mut self.stops.wanted);
        for index in &indices {
            // The last word counts, and this boot's is the later one.
            if wanted.iter().any(|wanted| self.state.are_together(*wanted, *index)) {
                continue;
            }
            self.record(EventKind::Note, Some(*index), "not started: a person stopped it in an earlier boot");
            self.tell(Event::StopAsked(*index));
        }
        self.stops = Stops { look: true, now: Some(indices.clone()), told: Some(indices), wanted: Vec::new() };
    }

    /// A person at the machine wants a container to run, or to rest.
    pub(super) fn person_wants(&mut self, index: usize, runs: bool) {
        let (state, wanted) = (&self.state, &mut self.stops.wanted);
        wanted.retain(|other| !state.are_together(*other, index));
        if runs && state.common().data == DataPhase::Pending {
            wanted.push(index);
        }
        // At once: when the machine ends in the same moment, that is what stops containers.
        self.look_at_stops();
    }

    fn stays_stopped(&self, index: usize) -> bool {
        self.plan.containers.get(index).is_some_and(|c| c.restart == Restart::UnlessStopped)
    }

    /// Something has happened to these.
    pub(super) fn stops_may_have_changed(&mut self, changed: &[usize]) {
        self.stops.look |= changed.iter().any(|index| self.stays_stopped(*index));
    }

    /// Has the record written anew, if it is no longer true.
    pub(super) fn write_stops(&mut self) {
        if self.data.state != DataState::Mounted {
            return;
        }
        if self.stops.look {
            self.look_at_stops();
        }
        let at_work = self.workers.iter().any(|worker| worker.kind == Kind::Stopped);
        let Some(now) = self.stops.now.as_ref().filter(|_| !at_work && self.stops.told != self.stops.now) else {
            return;
        };
        let plan = self.options.plan.clone().into_os_string();
        let indices: Vec<String> = now.iter().map(usize::to_string).collect();
        let arguments: Vec<&OsStr> =
            std::iter::once(plan.as_os_str()).chain(indices.iter().map(|index| index.as_ref())).collect();
        // Also on the way down: what a person wanted just before is to be kept.
        match Worker::spawn(Kind::Stopped, &arguments, now_ms()) {
            Ok(worker) => self.add_worker(worker),
            Err(e) => self.not_kept(&format!("start the {} worker: {e}", Kind::Stopped.word())),
        }
        self.stops.told = self.stops.now.clone();
    }

    fn look_at_stops(&mut self) {
        self.stops.look = false;
        if self.state.common().goal.is_none() {
            let stopped = |index: &usize| self.stays_stopped(*index) && self.is_stopped(*index);
            self.stops.now = Some((0..self.units.len()).filter(stopped).collect());
        }
    }

    fn is_stopped(&self, index: usize) -> bool {
        let by_hand = |unit: &crate::supervise::Unit| match unit.phase {
            Phase::Stopping { purpose, .. } => purpose == Purpose::Asked,
            Phase::Exited => unit.reason == Reason::Asked,
            _ => false,
        };
        self.state.units().get(index).is_some_and(by_hand)
    }

    /// It is tried again when something changes.
    pub(super) fn not_kept(&mut self, why: &str) {
        self.note(format!(
            "which containers were stopped by hand is not kept, the next boot goes by what was kept before: {why}"
        ));
    }

    /// Nobody knows, so all of them start.
    pub(super) fn not_known(&mut self, why: &str) {
        self.note(format!("which containers were stopped by hand is not known, so they are started: {why}"));
    }
}
