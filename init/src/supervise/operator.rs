//! What a person at the machine wants of a container, and so of those in its pod.
//!
//! Once the machine is stopping, nobody is heard. Those that depend on the container are left alone.

use super::Action;
use super::state::State;
use super::unit::{Phase, Purpose, Reason};

impl State {
    /// It is to rest, whatever its restart policy says.
    pub(super) fn stop_asked(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        for member in self.together(index).into_iter().rev() {
            match self.units.get(member).map(|u| u.phase) {
                Some(Phase::Waiting | Phase::Launching | Phase::Backoff { .. }) => {
                    self.change(member, |u| (u.phase, u.reason, u.fault) = (Phase::Exited, Reason::Asked, None));
                }
                Some(_) => self.stop(member, Purpose::Asked, now, actions),
                None => {}
            }
        }
    }

    /// It is to run.
    pub(super) fn start_asked(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        for member in self.together(index) {
            self.want(member);
        }
        self.settle_waiting(now, actions);
    }

    /// It is to end and to run again.
    pub(super) fn restart_asked(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        for member in self.together(index).into_iter().rev() {
            self.stop(member, Purpose::Restart, now, actions);
            self.want(member);
        }
        self.settle_waiting(now, actions);
    }

    /// One that rests waits for its conditions from now on; one that is stopping starts when it has ended.
    fn want(&mut self, index: usize) {
        match self.units.get(index).map(|u| u.phase) {
            Some(Phase::Exited | Phase::Failed | Phase::Backoff { .. }) => {
                self.change(index, super::Unit::anew);
            }
            Some(Phase::Stopping { .. }) => self.redirect(index, Purpose::Restart),
            _ => {}
        }
    }
}
