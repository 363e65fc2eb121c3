//! Stopping one container: asked, killed at the deadline, killed again, and then left.

use garboard_runtime::plan::OnFailure;

use super::Action;
use super::state::State;
use super::unit::{Phase, Purpose, Reason};
use super::watch::Watch;

impl State {
    /// Begins to stop a container that has a child. One that is stopping already only learns what for.
    pub(super) fn stop(&mut self, index: usize, purpose: Purpose, now: u64, actions: &mut Vec<Action>) {
        let Some((unit, rules)) = self.units.get(index).zip(self.rules.get(index)) else { return };
        let grace = match unit.phase {
            Phase::Running { .. } | Phase::Starting { executed: true, .. } => rules.stop_grace_ms,
            // Its program doesn't run yet, so there is nobody to ask.
            Phase::Starting { executed: false, .. } => 0,
            Phase::Stopping { .. } => return self.redirect(index, purpose),
            _ => return,
        };
        if grace == 0 {
            return self.kill(index, purpose, 0, now, actions);
        }
        let deadline = now.saturating_add(grace);
        let (latest, stable_ms) = (deadline.saturating_add(self.policy.stop_extension_ms), self.policy.stable_ms);
        self.change(index, |u| {
            u.forgive(Some(purpose), stable_ms, now);
            u.phase = Phase::Stopping { purpose, deadline, latest, kills: 0 };
        });
        actions.push(Action::Stop(index));
    }

    /// Changes what a stop is for: the last word counts.
    pub(super) fn redirect(&mut self, index: usize, to: Purpose) {
        let Some(Phase::Stopping { purpose, deadline, latest, kills }) = self.units.get(index).map(|u| u.phase) else {
            return;
        };
        if purpose != to {
            self.change(index, |u| u.phase = Phase::Stopping { purpose: to, deadline, latest, kills });
        }
    }

    /// Kills a container that has a child and was killed `kills` times before.
    pub(super) fn kill(&mut self, index: usize, purpose: Purpose, kills: u8, now: u64, actions: &mut Vec<Action>) {
        let deadline = now.saturating_add(self.policy.kill_retry_ms);
        let stable_ms = self.policy.stable_ms;
        self.change(index, |u| {
            u.forgive(Some(purpose), stable_ms, now);
            u.phase = Phase::Stopping { purpose, deadline, latest: deadline, kills: kills.saturating_add(1) };
        });
        actions.push(Action::Kill(index));
    }

    /// The deadline of a stopping container has passed.
    pub(super) fn overdue(&mut self, index: usize, purpose: Purpose, kills: u8, now: u64, actions: &mut Vec<Action>) {
        if kills < self.policy.kill_attempts {
            return self.kill(index, purpose, kills, now, actions);
        }
        let forever = self.rules.get(index).is_some_and(|r| r.supervision.on_failure == OnFailure::Restart);
        let ending = self.common.goal.is_some();
        // Whoever wanted it stopped wants that whether it can be killed or not.
        let end = match purpose {
            Purpose::Asked => (Phase::Exited, Reason::Asked),
            _ => (Phase::Failed, Reason::Unkillable),
        };
        self.change(index, |u| {
            (u.phase, u.reason) = end;
            (u.lingers, u.fault, u.watch) = (true, None, Watch::default());
        });
        match purpose {
            Purpose::Shutdown | Purpose::Asked => {}
            _ if ending => {}
            Purpose::Pod(_) => self.after_failure(index, now, actions),
            // It is started again when it has ended after all.
            _ if forever => {
                self.change(index, |u| u.phase = Phase::Waiting);
            }
            _ => self.given_up(index, now, actions),
        }
        self.settle_waiting(now, actions);
        self.continue_shutdown(now, actions);
    }

    /// The container asks for `ms` from now to start or to stop in.
    pub(super) fn extend(&mut self, index: usize, ms: u64, now: u64) {
        if !self.notifies(index) {
            return;
        }
        let asked = now.saturating_add(ms);
        if let Some((_, unit)) = self.running(index) {
            let watch = &unit.watch;
            let longer = watch.leaving.map(|latest| asked.min(latest)).filter(|by| Some(*by) > watch.alive_by);
            if longer.is_some() {
                self.change(index, |u| u.watch.alive_by = longer);
            }
            return;
        }
        let phase = match self.units.get(index).map(|u| u.phase) {
            Some(Phase::Starting { deadline, executed }) if asked > deadline => {
                Phase::Starting { deadline: asked, executed }
            }
            // A stop always ends, whatever the container says.
            Some(Phase::Stopping { purpose, deadline, latest, kills: 0 }) if asked.min(latest) > deadline => {
                Phase::Stopping { purpose, deadline: asked.min(latest), latest, kills: 0 }
            }
            _ => return,
        };
        self.change(index, |u| u.phase = phase);
    }
}
