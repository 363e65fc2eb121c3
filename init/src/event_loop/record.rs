//! What happens becomes events: each once, in order, with the reason in words.

use super::Supervisor;
use crate::clock::now_ms;
use crate::escape::one_line;
use crate::events::Kind;
use crate::supervise::{Event, Exit, Health, Phase, Reason};

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

    /// Remembers something that a person should know; the newest few are kept and shown.
    pub(super) fn note(&mut self, text: String) {
        self.record(Kind::Note, None, &text);
        self.remember(text);
    }

    /// The same of what is an event of another kind.
    pub(super) fn remember(&mut self, text: String) {
        let text = one_line(&text);
        log::warn!("{text}");
        self.console.say(&text);
        if self.notes.len() >= 8 {
            self.notes.remove(0);
        }
        self.notes.push(text.chars().take(300).collect());
        self.context_changed = true;
    }

    /// Notes what an event has changed: the end that it was about first, then what followed from it.
    pub(super) fn record_changes(&mut self, ended: Ended) {
        let (changed, common) = self.state.take_changed();
        self.common_dirty |= common;
        if changed.is_empty() {
            return;
        }
        self.announced.changed = true;
        self.stops_may_have_changed(&changed);
        if let Some((index, exit)) = ended.filter(|(index, _)| changed.contains(index)) {
            self.record_end(index, exit);
        }
        for index in &changed {
            self.record_health(*index);
            self.record_phase(*index);
        }
        self.dirty.extend(changed);
        self.tell_of_stop();
    }

    /// Says why the machine stops, if it is for a container's sake: nobody has asked for it then.
    fn tell_of_stop(&mut self) {
        let common = self.state.common();
        if let (Some(goal), Some(index), false) = (common.goal, common.because, self.stop_told) {
            let why = format!("{} was given up, and its declaration wants that", self.name(index));
            self.say_stop(goal, &why);
        }
    }

    fn record_end(&mut self, index: usize, exit: Option<Exit>) {
        let Some(unit) = self.state.units().get(index) else { return };
        let (phase, launch) = (unit.phase, matches!(unit.reason, Reason::Launch(_)));
        let text = self.how_it_ended(index, exit);
        self.console.say(&format!("{} {text}", self.name(index)));
        let why = self.why_given_up(index);
        self.record(if launch { Kind::LaunchFailed } else { Kind::Exited }, Some(index), &text);
        if phase == Phase::Failed {
            self.record(Kind::Failed, Some(index), &why);
        }
        self.see(index, phase);
    }

    fn record_phase(&mut self, index: usize) {
        let Some((unit, own)) = self.state.units().get(index).zip(self.units.get(index)) else { return };
        let (before, phase, lingers) = (own.seen, unit.phase, unit.lingers);
        if before == Some(phase) {
            return;
        }
        let restarts = unit.restarts;
        let runs = |phase: Phase| matches!(phase, Phase::Running { .. } | Phase::Starting { executed: true, .. });
        if runs(phase) && !before.is_some_and(runs) {
            let text = match restarts {
                0 => "its program runs".to_owned(),
                n => format!("its program runs; restart number {n}"),
            };
            self.record(Kind::Started, Some(index), &text);
        }
        let says = self.plan.containers.get(index).is_some_and(|c| c.supervision.notify);
        match phase {
            // That any other has started says it all.
            Phase::Running { .. } if says && !matches!(before, Some(Phase::Running { .. })) => {
                self.record(Kind::Ready, Some(index), "it says that it is ready");
            }
            Phase::Stopping { purpose, kills, .. } => {
                let was = matches!(before, Some(Phase::Stopping { .. }));
                if let Some(text) = self.stopping(index, purpose, kills, was) {
                    self.record(Kind::Stopping, Some(index), &text);
                }
            }
            Phase::Failed => {
                let text =
                    self.state.units().get(index).map(|unit| self.detail(index, unit, now_ms())).unwrap_or_default();
                self.record(Kind::Failed, Some(index), &format!("given up: {text}"));
            }
            Phase::Exited if lingers => {
                self.record(Kind::Failed, Some(index), "it could not be killed, and is left as it is");
            }
            _ => {}
        }
        self.see(index, phase);
    }

    /// Notes that a container's check has found it otherwise than before.
    fn record_health(&mut self, index: usize) {
        let Some((unit, own)) = self.state.units().get(index).zip(self.units.get(index)) else { return };
        let (before, health) = (own.health, unit.watch.health);
        if before == health {
            return;
        }
        let text = match (health, &unit.reason) {
            (Health::Healthy, _) => Some("healthy".to_owned()),
            (Health::Unhealthy, Reason::Unhealthy(why)) => Some(format!("unhealthy: {why}")),
            (Health::Unhealthy, _) => Some("unhealthy".to_owned()),
            // A run begins, or is over.
            (Health::Starting | Health::None, _) => None,
        };
        if let Some(text) = text {
            self.record(Kind::Health, Some(index), &text);
            self.console.say(&format!("{} is {text}", self.name(index)));
        }
        if let Some(own) = self.units.get_mut(index) {
            own.health = health;
        }
    }

    fn see(&mut self, index: usize, phase: Phase) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.seen = Some(phase);
        }
    }
}
