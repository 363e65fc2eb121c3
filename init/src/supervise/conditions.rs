//! Which waiting containers may start, and which never can.

use garboard_runtime::plan::{Condition, OnFailure};

use super::state::{DataPhase, State};
use super::unit::{Phase, Reason};
use super::watch::Health;
use super::{Action, Need};

/// What a waiting container's conditions come to.
enum Answer {
    Hold,
    NotYet,
    Never(Reason),
}

/// Which conditions are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Everywhere,
    OutsideThePod,
}

impl State {
    /// Starts or fails every waiting container whose time has come.
    pub(super) fn settle_waiting(&mut self, now: u64, actions: &mut Vec<Action>) {
        // Containers stand after those they depend on, so one pass in order also carries a failure on to dependents of
        // dependents. Only a pod that goes down with one of its members may concern those that were passed already.
        while self.pass(now, actions) {}
    }

    /// One pass; whether another one is needed.
    fn pass(&mut self, now: u64, actions: &mut Vec<Action>) -> bool {
        if !self.common.begun || self.common.goal.is_some() {
            return false;
        }
        let held = self.held_pods();
        let mut again = false;
        for index in 0..self.units.len() {
            if self.units.get(index).is_none_or(|u| u.phase != Phase::Waiting) {
                continue;
            }
            let pod = self.pod(index);
            match self.conditions(index, Where::Everywhere) {
                Answer::Hold if pod.is_none_or(|pod| !held.contains(&pod)) => {
                    self.change(index, |u| (u.phase, u.passed) = (Phase::Launching, true));
                    actions.push(Action::Launch(index));
                }
                Answer::Hold | Answer::NotYet => {}
                // It is never given up: a person may bring what it waits for.
                Answer::Never(_) if self.rules.get(index).is_some_and(never_given_up) => {}
                Answer::Never(reason) => {
                    self.change(index, |u| (u.phase, u.reason) = (Phase::Failed, reason));
                    self.given_up(index, now, actions);
                    if self.common.goal.is_some() {
                        return false;
                    }
                    again |= pod.is_some();
                }
            }
        }
        again
    }

    /// Whether nothing outside of its pod keeps a waiting container from being launched.
    pub(super) fn may_come_in(&self, index: usize) -> bool {
        matches!(self.conditions(index, Where::OutsideThePod), Answer::Hold)
    }

    fn conditions(&self, index: usize, looked_at: Where) -> Answer {
        let Some((unit, rules)) = self.units.get(index).zip(self.rules.get(index)) else { return Answer::NotYet };
        let mut all = !unit.lingers;
        for (place, need) in rules.needs.iter().enumerate() {
            let skipped = match self.same_pod(index, need.on) {
                true => looked_at == Where::OutsideThePod,
                false => unit.passed,
            };
            if skipped {
                continue;
            }
            match self.condition(need) {
                Some(true) => {}
                Some(false) => return Answer::Never(Reason::Need(place)),
                None => all = false,
            }
        }
        match (&self.common.data, rules.needs_data && !unit.passed) {
            (DataPhase::Unavailable(why), true) => Answer::Never(Reason::Data(why.clone())),
            (DataPhase::Pending, true) => Answer::NotYet,
            (DataPhase::Pending, _) if rules.needs_record && !unit.passed => Answer::NotYet,
            _ if rules.needs_devices && !unit.passed && !self.common.devices => Answer::NotYet,
            _ if all => Answer::Hold,
            _ => Answer::NotYet,
        }
    }

    /// Whether one condition holds; `None`: not yet.
    fn condition(&self, need: &Need) -> Option<bool> {
        let on = self.units.get(need.on)?;
        let asked = on.phase == Phase::Exited && on.reason == Reason::Asked;
        if self.met(need) {
            Some(true)
        } else if on.phase.last() && !asked {
            Some(false)
        } else {
            // What a person stopped, a person may start.
            None
        }
    }

    /// Whether one condition holds at this moment.
    pub fn met(&self, need: &Need) -> bool {
        self.units.get(need.on).is_some_and(|on| match need.condition {
            Condition::Started => on.started,
            Condition::Healthy => {
                let well = matches!(on.watch.health, Health::None | Health::Healthy);
                well && matches!(on.phase, Phase::Running { .. })
            }
            Condition::Completed => on.completed,
        })
    }
}

fn never_given_up(rules: &super::Rules) -> bool {
    rules.supervision.on_failure == OnFailure::Restart
}
