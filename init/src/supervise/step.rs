//! What each event does.

use super::state::{DataPhase, State};
use super::unit::Phase;
use super::{Action, Event, short};

impl State {
    /// Takes one event at the time `now` (milliseconds of `CLOCK_BOOTTIME`) and answers with what to do, in order. An event that
    /// can't concern a container in its present phase changes nothing.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let to = &mut actions;
        match event {
            Event::Begin => {
                if !self.common.begun {
                    self.change_common().begun = true;
                }
                self.settle_waiting(now, to);
            }
            Event::DataReady => {
                if self.common.data != DataPhase::Ready {
                    self.change_common().data = DataPhase::Ready;
                }
                self.settle_waiting(now, to);
            }
            Event::DevicesReady => {
                if !self.common.devices {
                    self.change_common().devices = true;
                }
                self.settle_waiting(now, to);
            }
            Event::DataUnavailable(why) => {
                if self.common.data == DataPhase::Pending {
                    self.change_common().data = DataPhase::Unavailable(short(why));
                    self.settle_waiting(now, to);
                }
            }
            Event::Launched(index) => self.launched(index, now, to),
            Event::LaunchFailed(index, fault) => {
                if self.wants_launch(index) {
                    self.change(index, |u| u.fault = Some((short(fault.text), fault.transient)));
                    self.ended(index, None, now, to);
                }
            }
            Event::Executed(index) => self.executed(index, now, to),
            Event::SetupFailed(index, fault) => self.setup_failed(index, fault),
            Event::Ready(index) => self.ready_said(index, now, to),
            Event::ExtendTimeout(index, ms) => self.extend(index, ms, now),
            Event::Alive(index) => self.alive(index, now),
            Event::Unheard(index, ms) => self.unheard(index, ms),
            Event::WatchdogSet(index, ms) => self.watchdog_set(index, ms, now),
            Event::WatchdogTrigger(index) => self.watchdog_trigger(index, now, to),
            Event::Leaving(index) => self.leaving(index, now),
            Event::Probed(index, run, answer) => self.probed(index, run, Some(answer), now, to),
            Event::ProbeLost(index, run) => self.probed(index, run, None, now, to),
            Event::Exited(index, exit) => self.exited(index, exit, now, to),
            Event::StopAsked(index) => self.stop_asked(index, now, to),
            Event::StartAsked(index) => self.start_asked(index, now, to),
            Event::RestartAsked(index) => self.restart_asked(index, now, to),
            Event::Tick => self.tick(now, to),
            Event::Shutdown(goal) => self.begin_shutdown(goal, None, now, to),
        }
        actions
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
                Phase::Starting { deadline, executed } if now >= deadline => self.late(index, executed, now, actions),
                Phase::Stopping { purpose, deadline, kills, .. } if now >= deadline => {
                    self.overdue(index, purpose, kills, now, actions);
                }
                Phase::Running { .. } => self.look(index, now, actions),
                _ => {}
            }
        }
    }
}
