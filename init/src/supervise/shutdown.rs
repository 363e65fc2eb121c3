//! Stopping everything: dependents first, a pod as one, each with its grace, each with an end.

use std::collections::BTreeSet;

use super::Action;
use super::state::{Goal, State};
use super::unit::{Phase, Purpose, Reason};

impl State {
    /// Begins to stop everything, perhaps because a container was given up. A second call changes nothing: what has begun is
    /// carried out.
    pub(super) fn begin_shutdown(&mut self, goal: Goal, because: Option<usize>, now: u64, actions: &mut Vec<Action>) {
        if self.common.goal.is_some() {
            return;
        }
        let common = self.change_common();
        (common.goal, common.because) = (Some(goal), because);
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
        let wanted = self.wanted();
        let pods: BTreeSet<usize> = self
            .active()
            .filter(|index| wanted.get(*index).is_some_and(|by| by.outside))
            .filter_map(|index| self.pod(index))
            .collect();
        // From the last to the first, so that the order of the signals is the reverse of the plan's.
        for index in (0..self.units.len()).rev() {
            let free = match self.pod(index) {
                Some(pod) => !pods.contains(&pod),
                None => wanted.get(index).is_none_or(|by| !by.outside),
            };
            if free {
                self.stop_if_up(index, now, actions);
            }
        }
        // Pods that depend on each other would wait for ever: then each container goes by itself.
        if !self.active().any(|index| self.stopping(index)) {
            for (index, by) in wanted.into_iter().enumerate().rev() {
                if !by.outside && !by.inside {
                    self.stop_if_up(index, now, actions);
                }
            }
        }
        if self.active().next().is_none() {
            self.change_common().finished = true;
            actions.push(Action::Finish(goal));
        }
    }

    fn stop_if_up(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        if !self.stopping(index) {
            self.stop(index, Purpose::Shutdown, now, actions);
        }
    }

    fn stopping(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(|u| matches!(u.phase, Phase::Stopping { .. }))
    }

    fn active(&self) -> impl Iterator<Item = usize> {
        self.units.iter().enumerate().filter(|(_, u)| u.phase.active()).map(|(index, _)| index)
    }

    /// By whom each container is still depended on.
    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = vec![Wanted::default(); self.units.len()];
        for index in self.active() {
            for need in self.rules.get(index).iter().flat_map(|rules| &rules.needs) {
                let together = self.same_pod(index, need.on);
                if let Some(by) = wanted.get_mut(need.on) {
                    by.inside |= together;
                    by.outside |= !together;
                }
            }
        }
        wanted
    }
}

/// By whom a container is still depended on.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// By a member of its pod.
    inside: bool,
    /// By anybody else.
    outside: bool,
}
