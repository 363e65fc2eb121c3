//! Stopping everything: dependents first, each with its grace, each with an end.

use super::Action;
use super::state::{Goal, Phase, Reason, State};

impl State {
    /// Begins to stop everything. A second call changes nothing: what has begun is carried out.
    pub(super) fn begin_shutdown(&mut self, goal: Goal, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        self.change_common().goal = Some(goal);
        for index in 0..self.units.len() {
            if self.units.get(index).is_some_and(|u| !u.phase.active() && !u.phase.last()) {
                self.change(index, |u| (u.phase, u.reason) = (Phase::Exited, Reason::Shutdown));
            }
        }
        self.continue_shutdown(now, actions);
    }

    /// Stops whatever no active container depends on any more; finishes when nothing is left.
    pub(super) fn continue_shutdown(&mut self, now: u64, actions: &mut Vec<Action>) {
        let Some(goal) = self.common.goal else { return };
        if self.common.finished {
            return;
        }
        let mut wanted = vec![false; self.units.len()];
        let active = self.units.iter().zip(&self.rules).filter(|(u, _)| u.phase.active());
        for need in active.flat_map(|(_, rules)| &rules.needs) {
            if let Some(flag) = wanted.get_mut(need.on) {
                *flag = true;
            }
        }
        // From the last to the first, so that the order of the signals is the reverse of the plan's.
        for (index, wanted) in wanted.into_iter().enumerate().rev() {
            if !wanted {
                self.stop(index, now, actions);
            }
        }
        if !self.units.iter().any(|u| u.phase.active()) {
            self.change_common().finished = true;
            actions.push(Action::Finish(goal));
        }
    }

    fn stop(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let Some((unit, rules)) = self.units.get(index).zip(self.rules.get(index)) else { return };
        let grace = match unit.phase {
            Phase::Running { .. } => rules.stop_grace_ms,
            // Its program doesn't run yet, so there is nobody to ask.
            Phase::Starting { .. } => 0,
            _ => return,
        };
        if grace == 0 {
            self.kill(index, 0, now, actions);
        } else {
            let deadline = now.saturating_add(grace);
            self.change(index, |u| u.phase = Phase::Stopping { deadline, kills: 0 });
            actions.push(Action::Stop(index));
        }
    }

    /// The deadline of a stopping container has passed.
    pub(super) fn overdue(&mut self, index: usize, kills: u8, now: u64, actions: &mut Vec<Action>) {
        if kills < self.policy.kill_attempts {
            self.kill(index, kills, now, actions);
        } else {
            self.change(index, |u| (u.phase, u.reason) = (Phase::Failed, Reason::Unkillable));
            self.continue_shutdown(now, actions);
        }
    }

    fn kill(&mut self, index: usize, kills: u8, now: u64, actions: &mut Vec<Action>) {
        let deadline = now.saturating_add(self.policy.kill_retry_ms);
        self.change(index, |u| u.phase = Phase::Stopping { deadline, kills: kills.saturating_add(1) });
        actions.push(Action::Kill(index));
    }
}
