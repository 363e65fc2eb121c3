//! What each event does.

use garboard_runtime::plan::Restart;

use super::state::{DataPhase, Exit, Phase, Reason, State, Unit};
use super::{Action, Event, Fault};

impl State {
    /// Takes one event at the time `now` (milliseconds of `CLOCK_BOOTTIME`) and answers with what to do, in order. An event that
    /// can't concern a container in its present phase changes nothing.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begin => {
                self.change_common().begun = true;
                self.settle_waiting(&mut actions);
            }
            Event::DataReady => {
                self.change_common().data = DataPhase::Ready;
                self.settle_waiting(&mut actions);
            }
            Event::DevicesReady => {
                self.change_common().devices = true;
                self.settle_waiting(&mut actions);
            }
            Event::DataUnavailable(why) => {
                if self.common.data == DataPhase::Pending {
                    self.change_common().data = DataPhase::Unavailable(why);
                    self.settle_waiting(&mut actions);
                }
            }
            Event::Launched(index) => self.launched(index, now, &mut actions),
            Event::LaunchFailed(index, fault) => {
                if self.wants_launch(index) {
                    self.change(index, |u| u.fault = Some((fault.text, fault.transient)));
                    self.ended(index, None, now, &mut actions);
                }
            }
            Event::Executed(index) => self.executed(index, now, &mut actions),
            Event::SetupFailed(index, fault) => self.setup_failed(index, fault),
            Event::Exited(index, exit) => {
                if self.units.get(index).is_some_and(|u| u.phase.active()) {
                    self.ended(index, Some(exit), now, &mut actions);
                }
            }
            Event::Tick => self.tick(now, &mut actions),
            Event::Shutdown(goal) => self.begin_shutdown(goal, now, &mut actions),
        }
        actions
    }

    fn launched(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.wants_launch(index) {
            let deadline = now.saturating_add(self.policy.start_timeout_ms);
            self.change(index, |u| {
                u.phase = Phase::Starting { deadline };
                u.fault = None;
            });
        } else if self.units.get(index).is_some_and(|u| !u.phase.active()) {
            // Nobody wants it any more.
            actions.push(Action::Kill(index));
        }
    }

    fn executed(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.units.get(index).is_some_and(|u| matches!(u.phase, Phase::Starting { .. }) && u.fault.is_none()) {
            self.change(index, |u| {
                u.phase = Phase::Running { since: now };
                u.reason = Reason::None;
                u.started = true;
            });
            self.settle_waiting(actions);
        }
    }

    fn setup_failed(&mut self, index: usize, fault: Fault) {
        if self.units.get(index).is_some_and(|u| matches!(u.phase, Phase::Starting { .. }) && u.fault.is_none()) {
            self.change(index, |u| u.fault = Some((fault.text, fault.transient)));
        }
    }

    /// A container's child ended (`exit`), or none was made.
    fn ended(&mut self, index: usize, exit: Option<Exit>, now: u64, actions: &mut Vec<Action>) {
        let stable_ms = self.policy.stable_ms;
        let Some(restart) = self.rules.get(index).map(|r| r.restart) else { return };
        let stopping = self.common.goal.is_some();
        let next = self.change(index, |unit| {
            if let Phase::Running { since } = unit.phase
                && now.saturating_sub(since) >= stable_ms
            {
                (unit.streak, unit.failures) = (0, 0);
            }
            if matches!(unit.phase, Phase::Starting { .. }) && unit.fault.is_none() {
                unit.fault = Some(("it ended before its program was executed".to_owned(), false));
            }
            unit.exit = exit.or(unit.exit);
            next(unit, restart, stopping)
        });
        match next {
            Some(Next::Again) => self.back_off(index, now),
            Some(Next::Rest(phase)) => {
                self.change(index, |u| u.phase = phase);
            }
            None => {}
        }
        self.settle_waiting(actions);
        self.continue_shutdown(now, actions);
    }

    fn back_off(&mut self, index: usize, now: u64) {
        let random = self.random();
        let policy = self.policy;
        self.change(index, |u| {
            u.streak = u.streak.saturating_add(1);
            u.phase = Phase::Backoff { until: now.saturating_add(policy.delay(u.streak, random)) };
        });
    }

    fn tick(&mut self, now: u64, actions: &mut Vec<Action>) {
        for index in 0..self.units.len() {
            let Some(phase) = self.units.get(index).map(|u| u.phase) else { continue };
            match phase {
                Phase::Backoff { until } if now >= until => {
                    self.change(index, |u| {
                        u.phase = Phase::Launching;
                        u.restarts = u.restarts.saturating_add(1);
                    });
                    actions.push(Action::Launch(index));
                }
                Phase::Starting { deadline } if now >= deadline => {
                    let seconds = self.policy.start_timeout_ms.checked_div(1000).unwrap_or(0);
                    let again = now.saturating_add(self.policy.kill_retry_ms);
                    self.change(index, |u| {
                        let text = format!("its program was not executed within {seconds} s");
                        u.fault.get_or_insert((text, false));
                        u.phase = Phase::Starting { deadline: again };
                    });
                    actions.push(Action::Kill(index));
                }
                Phase::Stopping { deadline, kills } if now >= deadline => self.overdue(index, kills, now, actions),
                _ => {}
            }
        }
    }
}

/// What follows an end.
enum Next {
    Again,
    Rest(Phase),
}

/// Applies the restart policy to a unit that has just ended, and notes the reason.
fn next(unit: &mut Unit, restart: Restart, stopping: bool) -> Next {
    let fault = unit.fault.take();
    let success = fault.is_none() && unit.exit.is_some_and(Exit::success);
    unit.completed |= success;
    let transient = fault.as_ref().is_some_and(|(_, transient)| *transient);
    unit.reason = match fault {
        Some((text, _)) => Reason::Launch(text),
        None => Reason::Ended,
    };
    if stopping {
        return Next::Rest(Phase::Exited);
    }
    if transient {
        return Next::Again;
    }
    match restart {
        Restart::Always | Restart::UnlessStopped => Next::Again,
        Restart::No | Restart::OnFailure(_) if success => Next::Rest(Phase::Exited),
        Restart::No => Next::Rest(Phase::Failed),
        Restart::OnFailure(limit) => {
            unit.failures = unit.failures.saturating_add(1);
            if limit.is_some_and(|limit| unit.failures > limit) {
                if unit.reason == Reason::Ended {
                    unit.reason = Reason::GaveUp;
                }
                Next::Rest(Phase::Failed)
            } else {
                Next::Again
            }
        }
    }
}
