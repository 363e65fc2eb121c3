//! What happens becomes events: each once, in order, with the reason in words.

use super::Supervisor;
use crate::clock::now_ms;
use crate::events::Kind;
use crate::supervise::{Event, Exit, Phase, Reason};

/// Whose run ended by an event: the container's index, and how, if it ran.
pub(super) type Ended = Option<(usize, Option<Exit>)>;

/// What an event says of an end.
pub(super) fn ended_by(event: &Event) -> Ended {
    match event {
        Event::Exited(index, exit) => Some((*index, Some(*exit))),
        Event::LaunchFailed(index, _) => Some((*index, None)),
        _ => None,
    }
}

impl Supervisor {
    /// Notes that something happened, to a container or to the machine. It is numbered, kept and told when the state that it led
    /// to is kept, at the end of the present turn at the latest.
    pub(super) fn record(&mut self, kind: Kind, container: Option<usize>, text: &str) {
        let name = container.and_then(|index| self.plan.containers.get(index)).map(|c| c.name.as_str());
        self.journal.add(kind, name, text, now_ms());
    }

    /// Notes what an event has changed: the end that it was about first, then what followed from it.
    pub(super) fn record_changes(&mut self, ended: Ended) {
        let (changed, common) = self.state.take_changed();
        self.common_dirty |= common;
        if changed.is_empty() {
            return;
        }
        self.announced.changed = true;
        if let Some((index, exit)) = ended.filter(|(index, _)| changed.contains(index)) {
            self.record_end(index, exit);
        }
        for index in &changed {
            self.record_phase(*index);
        }
        self.dirty.extend(changed);
    }

    fn record_end(&mut self, index: usize, exit: Option<Exit>) {
        let Some(unit) = self.state.units().get(index) else { return };
        let (phase, launch) = (unit.phase, matches!(unit.reason, Reason::Launch(_)));
        let text = self.how_it_ended(index, exit);
        let why = match unit.reason {
            Reason::GaveUp => format!("given up after {} restarts", unit.restarts),
            _ => "given up: its declaration doesn't have it started again".to_owned(),
        };
        if exit.is_some() && self.units.get(index).is_some_and(|unit| unit.out_of_memory) {
            self.record(Kind::OutOfMemory, Some(index), "the kernel killed one of its processes for want of memory");
        }
        self.record(if launch { Kind::LaunchFailed } else { Kind::Exited }, Some(index), &text);
        if phase == Phase::Failed {
            self.record(Kind::Failed, Some(index), &why);
        }
        self.see(index, phase);
    }

    fn record_phase(&mut self, index: usize) {
        let Some((unit, own)) = self.state.units().get(index).zip(self.units.get(index)) else { return };
        let (before, phase) = (own.seen, unit.phase);
        if before == Some(phase) {
            return;
        }
        match phase {
            Phase::Running { .. } if !matches!(before, Some(Phase::Running { .. })) => {
                let text = match unit.restarts {
                    0 => "its program runs".to_owned(),
                    n => format!("its program runs, started again for the {n}. time"),
                };
                self.record(Kind::Started, Some(index), &text);
                if !self.plan.containers.get(index).is_some_and(|c| c.supervision.notify) {
                    self.record(Kind::Ready, Some(index), "counts as started at once");
                }
            }
            Phase::Stopping { kills: 0, .. } => {
                self.record(Kind::Stopping, Some(index), "asked to stop, as the machine stops")
            }
            Phase::Stopping { kills: 1, .. } => {
                let asked = matches!(before, Some(Phase::Stopping { .. }));
                let text = if asked {
                    "killed: it was asked to stop, and didn't in time"
                } else {
                    "killed, as the machine stops"
                };
                self.record(Kind::Stopping, Some(index), text);
            }
            Phase::Failed => {
                let text = self.detail(index, unit, now_ms());
                self.record(Kind::Failed, Some(index), &format!("given up: {text}"));
            }
            _ => {}
        }
        self.see(index, phase);
    }

    fn see(&mut self, index: usize, phase: Phase) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.seen = Some(phase);
        }
    }
}
