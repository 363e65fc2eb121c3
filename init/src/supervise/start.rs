//! From a launch until the container runs.

use super::state::State;
use super::unit::{Phase, Purpose, Reason, Unit};
use super::watch::Watch;
use super::{Action, Fault, short};

impl State {
    /// The container says itself how it is.
    pub(super) fn notifies(&self, index: usize) -> bool {
        self.rules.get(index).is_some_and(|r| r.supervision.notify)
    }

    /// The container, if it runs, and since when.
    pub(super) fn running(&self, index: usize) -> Option<(u64, &Unit)> {
        let unit = self.units.get(index)?;
        let Phase::Running { since } = unit.phase else { return None };
        Some((since, unit))
    }

    pub(super) fn launched(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let Some((unit, rules)) = self.units.get(index).zip(self.rules.get(index)) else { return };
        if unit.phase == Phase::Launching {
            let deadline = now.saturating_add(rules.supervision.start_timeout_ms);
            let watch = Watch::new(rules.supervision.watchdog_ms);
            self.change(index, |u| {
                u.phase = Phase::Starting { deadline, executed: false };
                u.run = u.run.wrapping_add(1);
                (u.fault, u.watch) = (None, watch);
            });
        } else if !unit.phase.active() {
            // Nobody wants it any more.
            actions.push(Action::Kill(index));
        }
    }

    pub(super) fn executed(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get(index).filter(|u| u.fault.is_none()) else { return };
        let Phase::Starting { deadline, executed: false } = unit.phase else { return };
        if self.notifies(index) {
            self.change(index, |u| u.phase = Phase::Starting { deadline, executed: true });
        } else {
            self.runs(index, now, actions);
        }
    }

    /// It says that it is ready. That may be heard before the report that it was executed, which it proves.
    pub(super) fn ready_said(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let starting = |u: &&Unit| matches!(u.phase, Phase::Starting { .. }) && u.fault.is_none();
        if self.notifies(index) && self.units.get(index).filter(starting).is_some() {
            self.runs(index, now, actions);
        }
    }

    fn runs(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        let Some(check) = self.rules.get(index).map(|r| r.supervision.health.clone()) else { return };
        self.change(index, |u| {
            u.phase = Phase::Running { since: now };
            u.reason = Reason::None;
            u.started = true;
            u.watch.begin(check.as_ref(), now);
        });
        self.settle_waiting(now, actions);
    }

    pub(super) fn setup_failed(&mut self, index: usize, fault: Fault) {
        let setting_up = |u: &&Unit| matches!(u.phase, Phase::Starting { executed: false, .. }) && u.fault.is_none();
        if self.units.get(index).filter(setting_up).is_some() {
            self.change(index, |u| u.fault = Some((short(fault.text), fault.transient)));
        }
    }

    /// It has not started in time.
    pub(super) fn late(&mut self, index: usize, executed: bool, now: u64, actions: &mut Vec<Action>) {
        let timeout_ms = self.rules.get(index).map_or(0, |r| r.supervision.start_timeout_ms);
        let seconds = timeout_ms.checked_div(1000).unwrap_or(0);
        let text = if executed {
            format!("said not that it is ready within {seconds} s")
        } else {
            format!("its program was not executed within {seconds} s")
        };
        self.change(index, |u| {
            u.fault.get_or_insert((text, false));
        });
        self.kill(index, Purpose::Late, 0, now, actions);
    }
}
