//! Which waiting containers may start, and which never can.

use garboard_runtime::plan::Condition;

use super::state::{DataPhase, Phase, Reason, State};
use super::{Action, Need};

/// What a waiting container's conditions come to.
enum Answer {
    Hold,
    NotYet,
    Never(Reason),
}

impl State {
    /// Starts or fails every waiting container whose time has come. Containers stand after those they depend on, so one pass
    /// in order also carries a failure on to dependents of dependents.
    pub(super) fn settle_waiting(&mut self, actions: &mut Vec<Action>) {
        if !self.common.begun || self.common.goal.is_some() {
            return;
        }
        for index in 0..self.units.len() {
            if self.units.get(index).is_none_or(|u| u.phase != Phase::Waiting) {
                continue;
            }
            match self.conditions(index) {
                Answer::Hold => {
                    self.change(index, |u| u.phase = Phase::Launching);
                    actions.push(Action::Launch(index));
                }
                Answer::NotYet => {}
                Answer::Never(reason) => {
                    self.change(index, |u| (u.phase, u.reason) = (Phase::Failed, reason));
                }
            }
        }
    }

    fn conditions(&self, index: usize) -> Answer {
        let Some(rules) = self.rules.get(index) else { return Answer::NotYet };
        let mut all = true;
        for (place, need) in rules.needs.iter().enumerate() {
            match self.condition(need) {
                Some(true) => {}
                Some(false) => return Answer::Never(Reason::Need(place)),
                None => all = false,
            }
        }
        match (&self.common.data, rules.needs_data) {
            (DataPhase::Unavailable(why), true) => Answer::Never(Reason::Data(why.clone())),
            (DataPhase::Pending, true) => Answer::NotYet,
            _ if rules.needs_devices && !self.common.devices => Answer::NotYet,
            _ if all => Answer::Hold,
            _ => Answer::NotYet,
        }
    }

    /// Whether one condition holds; `None`: not yet.
    fn condition(&self, need: &Need) -> Option<bool> {
        let on = self.units.get(need.on)?;
        let met = match need.condition {
            Condition::Started => on.started,
            Condition::Healthy => matches!(on.phase, Phase::Running { .. }),
            Condition::Completed => on.completed,
        };
        if met {
            Some(true)
        } else if on.phase.last() {
            Some(false)
        } else {
            None
        }
    }
}
