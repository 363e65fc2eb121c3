//! Containers that start and stop together.

use std::collections::{BTreeMap, BTreeSet};

use super::state::State;
use super::unit::{Phase, Purpose, Reason};
use super::{Action, Rules};

/// The members of each pod, in the plan's order.
pub(super) fn members(rules: &[Rules]) -> BTreeMap<usize, Vec<usize>> {
    let mut pods = BTreeMap::<usize, Vec<usize>>::new();
    for (index, pod) in rules.iter().enumerate().filter_map(|(index, r)| Some((index, r.pod?))) {
        pods.entry(pod).or_default().push(index);
    }
    pods
}

impl State {
    pub(super) fn pod(&self, index: usize) -> Option<usize> {
        self.rules.get(index).and_then(|r| r.pod)
    }

    pub(super) fn same_pod(&self, one: usize, other: usize) -> bool {
        self.pod(one).is_some_and(|pod| self.pod(other) == Some(pod))
    }

    /// Whether they start and stop together.
    pub fn are_together(&self, one: usize, other: usize) -> bool {
        one == other || self.same_pod(one, other)
    }

    /// The container and those of its pod, in the plan's order.
    pub(super) fn together(&self, index: usize) -> Vec<usize> {
        let pod = self.pod(index).and_then(|pod| self.pods.get(&pod));
        pod.cloned().unwrap_or_else(|| vec![index])
    }

    /// Pods no member of which may be launched yet: what another one waits for outside of the pod has not come, or another one
    /// has yet to end before all are started anew.
    pub(super) fn held_pods(&self) -> BTreeSet<usize> {
        if self.pods.is_empty() {
            return BTreeSet::new();
        }
        let holds = |index: &usize| match self.units.get(*index).map(|u| u.phase) {
            Some(Phase::Waiting) => !self.may_come_in(*index),
            Some(Phase::Stopping { purpose: Purpose::Restart, .. }) => true,
            _ => false,
        };
        (0..self.units.len()).filter(holds).filter_map(|index| self.pod(index)).collect()
    }

    /// A container was given up: so are those of its pod, as far as they didn't rest already.
    pub(super) fn take_pod_down(&mut self, index: usize, now: u64, actions: &mut Vec<Action>) {
        for other in self.together(index).into_iter().rev().filter(|other| *other != index) {
            // It may begin with any of them.
            if self.common.goal.is_some() {
                return;
            }
            match self.units.get(other).map(|u| u.phase) {
                Some(Phase::Starting { .. } | Phase::Running { .. }) => {
                    self.stop(other, Purpose::Pod(index), now, actions);
                }
                // What a person asked for, or another member's end, stands.
                Some(Phase::Stopping { purpose: Purpose::Asked | Purpose::Pod(_), .. }) => {}
                Some(Phase::Stopping { .. }) => self.redirect(other, Purpose::Pod(index)),
                Some(Phase::Waiting | Phase::Launching | Phase::Backoff { .. }) => {
                    self.change(other, |u| (u.phase, u.reason, u.fault) = (Phase::Failed, Reason::Pod(index), None));
                    self.after_failure(other, now, actions);
                }
                Some(Phase::Exited | Phase::Failed) | None => {}
            }
        }
    }
}
