//! What can't be, whatever happened. The simulator holds every step against it, and PID 1 what it is about to keep.

use super::State;
use super::unit::Phase;

impl State {
    /// What is wrong with a container as it is remembered, having a `child` or none; `None`: nothing.
    pub fn unsound(&self, index: usize, child: bool) -> Option<&'static str> {
        let unit = self.units.get(index)?;
        let there = unit.phase.active() || unit.lingers;
        let comes = matches!(unit.phase, Phase::Launching | Phase::Backoff { .. });
        if child && !there {
            Some("has a process and counts as having none")
        } else if there && !child {
            Some("has no process and counts as having one")
        } else if unit.lingers && (unit.phase.active() || comes) {
            Some("is started beside a process of it that could not be killed")
        } else if !unit.passed && (unit.phase.active() || comes) {
            Some("is started before its conditions hold")
        } else if self.common.goal.is_some() && !unit.phase.active() && !unit.phase.last() {
            Some("is to be started while the machine stops")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use garboard_runtime::plan::Restart;

    use super::super::tests::rules;
    use super::super::{Goal, Policy, Purpose, Unit};
    use super::*;

    #[test]
    fn each_is_found_and_nothing_else() {
        let running = Phase::Running { since: 1 };
        let stopping = Phase::Stopping { purpose: Purpose::Asked, deadline: 9, latest: 9, kills: 3 };
        let cases = [
            // phase, conditions held, one that could not be killed, the machine stops, child
            (running, true, false, false, true, None),
            (stopping, true, false, true, true, None),
            (Phase::Launching, true, false, false, false, None),
            (Phase::Failed, true, true, false, true, None),
            (Phase::Waiting, false, true, false, true, None),
            (Phase::Exited, true, false, true, false, None),
            (Phase::Exited, true, false, false, true, Some("has a process and counts as having none")),
            (Phase::Backoff { until: 9 }, true, false, false, true, Some("has a process and counts as having none")),
            (running, true, false, false, false, Some("has no process and counts as having one")),
            (
                Phase::Launching,
                true,
                true,
                false,
                true,
                Some("is started beside a process of it that could not be killed"),
            ),
            (Phase::Launching, false, false, false, false, Some("is started before its conditions hold")),
            (Phase::Launching, true, false, true, false, Some("is to be started while the machine stops")),
            (Phase::Waiting, false, false, true, false, Some("is to be started while the machine stops")),
        ];
        let rules = rules(Restart::Always, &[]);
        for (phase, passed, lingers, stops, child, wrong) in cases {
            let unit = Unit { phase, passed, lingers, ..Unit::new() };
            let new = State::new(vec![rules.clone()], Policy::default(), 1);
            let mut common = new.common().clone();
            common.goal = stops.then_some(Goal::Reboot);
            let state = State::resume(new.rules().to_vec(), Policy::default(), vec![unit.clone()], common);
            assert_eq!(state.unsound(0, child), wrong, "{unit:?}");
        }
    }
}
