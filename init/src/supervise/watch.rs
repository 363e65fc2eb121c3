//! Whether a running container works: its watchdog and its health check.

use garboard_runtime::plan::HealthCheck;
use serde::{Deserialize, Serialize};

use super::state::State;
use super::unit::{Phase, Purpose, Reason};
use super::{Action, short};

/// What its check says of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// There is no check, or it doesn't run.
    #[default]
    None,
    /// No answer counted yet.
    Starting,
    /// Its last answers were good.
    Healthy,
    /// Too many answers in a row were bad.
    Unhealthy,
}

/// How one run is watched. Times in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// What its check says.
    pub health: Health,
    /// Bad answers in a row.
    pub bad: u32,
    /// When it is next asked; `None`: not before it has answered.
    pub probe_at: Option<u64>,
    /// It was asked and has not answered.
    pub probing: bool,
    /// It must say that it is alive this often; `None`: it need not.
    pub watchdog_ms: Option<u64>,
    /// When it must next have done so.
    pub alive_by: Option<u64>,
    /// It was given time since it last has, as nobody listened.
    pub spared: bool,
    /// When its check's last answer was good.
    pub well_at: Option<u64>,
    /// When it last said that it is alive.
    pub alive_at: Option<u64>,
    /// It said that it is about to end: it isn't watched any more, but has until `alive_by` for that, which it can't move beyond this.
    pub leaving: Option<u64>,
}

impl Watch {
    /// At its launch.
    pub(super) fn new(watchdog_ms: Option<u64>) -> Self {
        Self { watchdog_ms: watchdog_ms.filter(|ms| *ms > 0), ..Self::default() }
    }

    /// It runs from now on.
    pub(super) fn begin(&mut self, check: Option<&HealthCheck>, now: u64) {
        self.alive_by = self.watchdog_ms.map(|ms| now.saturating_add(ms));
        if let Some(check) = check {
            self.health = Health::Starting;
            self.ask_again(check, now, now);
        }
    }

    /// When anything of it is due.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.alive_by.into_iter().chain(self.probe_at).min()
    }

    fn ask_again(&mut self, check: &HealthCheck, since: u64, now: u64) {
        let interval = if self.early(check, since, now) { check.start_interval_ms } else { check.interval_ms };
        self.probe_at = Some(now.saturating_add(interval));
    }

    /// It may still be starting up: it was never well, and its time for that is not over.
    fn early(&self, check: &HealthCheck, since: u64, now: u64) -> bool {
        self.health == Health::Starting && now.saturating_sub(since) < check.start_period_ms
    }

    /// Takes an answer; whether it has made the container unhealthy, which it was not before.
    fn answered(&mut self, check: &HealthCheck, good: bool, since: u64, now: u64) -> bool {
        if good {
            (self.health, self.bad, self.well_at) = (Health::Healthy, 0, Some(now));
            return false;
        }
        if self.early(check, since, now) {
            return false;
        }
        self.bad = self.bad.saturating_add(1);
        let worse = self.bad >= check.retries && self.health != Health::Unhealthy;
        if worse {
            self.health = Health::Unhealthy;
        }
        worse
    }
}

impl State {
    /// An answer to [`Action::Probe`] of this run; `None`: there will be none.
    pub(super) fn probed(
        &mut self,
        index: usize,
        run: u32,
        answer: Option<Result<(), String>>,
        now: u64,
        actions: &mut Vec<Action>,
    ) {
        let Some((since, unit)) = self.running(index) else { return };
        if !unit.watch.probing || unit.run != run {
            return;
        }
        let Some(check) = self.rules.get(index).and_then(|r| r.supervision.health.clone()) else { return };
        let worse = self.change(index, |unit| {
            unit.watch.probing = false;
            let worse = match &answer {
                Some(answer) => unit.watch.answered(&check, answer.is_ok(), since, now),
                None => false,
            };
            unit.watch.ask_again(&check, since, now);
            match (unit.watch.health, answer) {
                (Health::Unhealthy, Some(Err(text))) => unit.reason = Reason::Unhealthy(short(text)),
                (Health::Healthy, _) => unit.reason = Reason::None,
                _ => {}
            }
            worse
        });
        if worse == Some(true) && check.restart && self.common.goal.is_none() {
            self.change(index, |unit| {
                if let Reason::Unhealthy(text) = std::mem::take(&mut unit.reason) {
                    unit.fault = Some((text, false));
                }
            });
            self.stop(index, Purpose::Unhealthy, now, actions);
        }
        // One that is well may be what others wait for.
        self.settle_waiting(now, actions);
    }

    /// It says that it is alive.
    pub(super) fn alive(&mut self, index: usize, now: u64) {
        if !self.notifies(index) {
            return;
        }
        let Some((_, unit)) = self.running(index).filter(|(_, unit)| unit.watch.leaving.is_none()) else { return };
        let by = unit.watch.watchdog_ms.map(|ms| now.saturating_add(ms));
        // In the moment in which it has said how often it will, nothing else of that is new.
        let said = (by, false, by.map(|_| now).or(unit.watch.alive_at));
        if said != (unit.watch.alive_by, unit.watch.spared, unit.watch.alive_at) {
            self.change(index, |u| (u.watch.alive_by, u.watch.spared, u.watch.alive_at) = said);
        }
    }

    /// It can't say anything for a while. That is made good once: one that keeps talking and never says that it is alive isn't.
    pub(super) fn unheard(&mut self, index: usize, ms: u64) {
        let Some((_, unit)) = self.running(index) else { return };
        if let Some(by) = unit.watch.alive_by.filter(|_| ms > 0 && !unit.watch.spared) {
            self.change(index, |u| (u.watch.alive_by, u.watch.spared) = (Some(by.saturating_add(ms)), true));
        }
    }

    /// It says how often it will say that it is alive; 0: not at all.
    pub(super) fn watchdog_set(&mut self, index: usize, ms: u64, now: u64) {
        if !self.notifies(index) {
            return;
        }
        let Some(unit) = self.units.get(index).filter(|unit| unit.watch.leaving.is_none()) else { return };
        let watchdog_ms = Some(ms).filter(|ms| *ms > 0);
        let alive_by = match unit.phase {
            Phase::Running { .. } => watchdog_ms.map(|ms| now.saturating_add(ms)),
            Phase::Starting { .. } => None,
            _ => return,
        };
        if (watchdog_ms, alive_by) != (unit.watch.watchdog_ms, unit.watch.alive_by) {
            self.change(index, |u| (u.watch.watchdog_ms, u.watch.alive_by) = (watchdog_ms, alive_by));
        }
    }

    /// It says that it is about to end by itself: it needs nobody's signal, and what it does until then is its own affair. It has as much time
    /// for that as when it is asked to stop. Who has none there is watched as before.
    pub(super) fn leaving(&mut self, index: usize, now: u64) {
        let grace = self.rules.get(index).map_or(0, |rules| rules.stop_grace_ms);
        let running = self.running(index).filter(|(_, unit)| unit.watch.leaving.is_none());
        if !self.notifies(index) || running.is_none() || grace == 0 {
            return;
        }
        let by = now.saturating_add(grace);
        let latest = by.saturating_add(self.policy.stop_extension_ms);
        self.change(index, |u| {
            let watch = &mut u.watch;
            (watch.alive_at, watch.alive_by, watch.leaving) = (Some(now), Some(by), Some(latest));
            (watch.watchdog_ms, watch.probe_at, watch.probing) = (None, None, false);
        });
    }

    /// It says itself that it doesn't work.
    pub(super) fn watchdog_trigger(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.notifies(index) && self.running(index).is_some() && self.common.goal.is_none() {
            self.kill(index, Purpose::Watchdog, 0, now, actions);
        }
    }

    /// Something of a running container's watch is due. Once the machine is stopping nothing is: each is stopped when nobody depends on it
    /// any more, and not before.
    pub(super) fn look(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        let Some((_, unit)) = self.running(index) else { return };
        if unit.watch.alive_by.is_some_and(|by| now >= by) {
            self.kill(index, Purpose::Watchdog, 0, now, actions);
        } else if unit.watch.probe_at.is_some_and(|at| now >= at) {
            self.change(index, |u| (u.watch.probe_at, u.watch.probing) = (None, true));
            actions.push(Action::Probe(index));
        }
    }
}
