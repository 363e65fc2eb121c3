//! What follows when a container has ended: the restart policy, and giving up.

use garboard_runtime::plan::{OnFailure, Restart};

use super::Action;
use super::state::{Goal, State};
use super::unit::{Exit, Phase, Purpose, Reason, Unit};
use super::watch::Watch;

impl State {
    /// A container's child ended.
    pub(super) fn exited(&mut self, index: usize, exit: Exit, now: u64, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get(index) else { return };
        if unit.phase.active() {
            self.ended(index, Some(exit), now, actions);
        } else if unit.lingers {
            // What could not be killed is gone after all, and may be what its next start waited for.
            self.change(index, |u| (u.lingers, u.exit) = (false, Some(exit)));
            self.settle_waiting(now, actions);
        }
    }

    /// A container's child ended (`exit`), or none was made.
    pub(super) fn ended(&mut self, index: usize, exit: Option<Exit>, now: u64, actions: &mut Vec<Action>) {
        let stable_ms = self.policy.stable_ms;
        let Some(rules) = self.rules.get(index) else { return };
        let (restart, forever) = (rules.restart, rules.supervision.on_failure == OnFailure::Restart);
        let ending = self.common.goal.is_some();
        let next = self.change(index, |unit| {
            unit.forgive(None, stable_ms, now);
            unit.exit = exit.or(unit.exit);
            let next = next(unit, restart, ending);
            unit.watch = Watch::default();
            next
        });
        match next {
            Some(Next::Again) => self.back_off(index, false, now),
            Some(Next::GiveUp) if forever => self.back_off(index, true, now),
            Some(Next::GiveUp) => {
                self.change(index, |u| u.phase = Phase::Failed);
                self.given_up(index, now, actions);
            }
            Some(Next::WithPod) => {
                self.change(index, |u| u.phase = Phase::Failed);
                self.after_failure(index, now, actions);
            }
            Some(Next::Rest) => {
                self.change(index, |u| u.phase = Phase::Exited);
            }
            Some(Next::Anew) => {
                self.change(index, |u| {
                    u.anew();
                    u.passed = true;
                });
            }
            None => {}
        }
        self.settle_waiting(now, actions);
        self.continue_shutdown(now, actions);
    }

    fn back_off(&mut self, index: usize, longest: bool, now: u64) {
        let random = self.random();
        let policy = self.policy;
        self.change(index, |u| {
            u.streak = u.streak.saturating_add(1);
            let streak = if longest { u32::MAX } else { u.streak };
            u.phase = Phase::Backoff { until: now.saturating_add(policy.delay(streak, random)) };
        });
    }

    /// How often a container was started again in vain, if it was given up because its restart policy has no attempt left. Failures
    /// in a row are what that counts: a run that was long enough, and a person's wish, begin anew.
    pub fn attempts_used(&self, index: usize) -> Option<u32> {
        let (unit, rules) = (self.units.get(index)?, self.rules.get(index)?);
        let Restart::OnFailure(Some(limit)) = rules.restart else { return None };
        // One that is never given up has failed more often, too, and may go down with its pod.
        let by_itself = unit.phase == Phase::Failed && !matches!(unit.reason, Reason::Pod(_));
        (by_itself && unit.failures > limit).then_some(limit)
    }

    /// A container is [`Phase::Failed`] from now on, by itself.
    pub(super) fn given_up(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        self.take_pod_down(index, now, actions);
        self.after_failure(index, now, actions);
    }

    /// A container that was given up may be one that the machine is nothing without.
    pub(super) fn after_failure(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let goal = match self.rules.get(index).map(|r| r.supervision.on_failure) {
            Some(OnFailure::Reboot) => Goal::Reboot,
            Some(OnFailure::PowerOff) => Goal::PowerOff,
            Some(OnFailure::Ignore | OnFailure::Restart) | None => return,
        };
        self.begin_shutdown(goal, Some(index), now, actions);
    }
}

/// What follows an end.
enum Next {
    /// It is started again after a delay.
    Again,
    /// It is launched as soon as those of its pod can be.
    Anew,
    /// It is not wanted any more.
    Rest,
    /// It is wanted, and not started again.
    GiveUp,
    /// It was taken down because one of its pod was given up.
    WithPod,
}

/// Applies what it was stopped for, else the restart policy, to a unit that has just ended, and notes the reason.
fn next(unit: &mut Unit, restart: Restart, ending: bool) -> Next {
    let purpose = match unit.phase {
        Phase::Stopping { purpose, .. } => Some(purpose),
        _ => None,
    };
    let fault = unit.fault.take().or_else(|| early(unit.phase));
    // One that was stopped did not complete, whatever it said last.
    let success = purpose.is_none() && fault.is_none() && unit.exit.is_some_and(Exit::success);
    unit.completed |= success;
    let transient = fault.as_ref().is_some_and(|(_, transient)| *transient);
    unit.reason = match (purpose, fault) {
        (Some(Purpose::Asked), _) => Reason::Asked,
        (Some(Purpose::Pod(member)), _) => Reason::Pod(member),
        (Some(Purpose::Watchdog), _) if unit.watch.leaving.is_some() => Reason::Lingered,
        (Some(Purpose::Watchdog), _) => Reason::Watchdog,
        (Some(Purpose::Unhealthy), Some((text, _))) => Reason::Unhealthy(text),
        (_, Some((text, _))) => Reason::Launch(text),
        (_, None) => Reason::Ended,
    };
    match purpose {
        _ if ending => return Next::Rest,
        Some(Purpose::Shutdown | Purpose::Asked) => return Next::Rest,
        Some(Purpose::Restart) => return Next::Anew,
        Some(Purpose::Pod(_)) => return Next::WithPod,
        Some(Purpose::Unhealthy | Purpose::Watchdog | Purpose::Late) | None => {}
    }
    match restart {
        _ if transient => Next::Again,
        Restart::Always | Restart::UnlessStopped => Next::Again,
        Restart::No | Restart::OnFailure(_) if success => Next::Rest,
        Restart::No => Next::GiveUp,
        Restart::OnFailure(limit) => {
            unit.failures = unit.failures.saturating_add(1);
            if limit.is_some_and(|limit| unit.failures > limit) { Next::GiveUp } else { Next::Again }
        }
    }
}

/// What is to be said of one that ended before it had started.
fn early(phase: Phase) -> Option<(String, bool)> {
    let text = match phase {
        Phase::Starting { executed: false, .. } => "it ended before its program was executed",
        Phase::Starting { executed: true, .. } => "it ended before it said that it is ready",
        _ => return None,
    };
    Some((text.to_owned(), false))
}
