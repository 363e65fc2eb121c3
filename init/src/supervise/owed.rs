//! What was asked for and may not have been done: the process that was to do it is another one now.

use super::Action;
use super::state::State;
use super::unit::Phase;

impl State {
    /// Every stop that is under way, and the end: left out, a container would be killed that was never asked to stop. Launches and
    /// questions are not among them, as more is to be known of each: [`State::wants_launch`], [`State::probing`].
    pub fn owed(&self) -> Vec<Action> {
        let stop = |(index, unit): (usize, &super::Unit)| match unit.phase {
            Phase::Stopping { kills: 0, .. } => Some(Action::Stop(index)),
            Phase::Stopping { .. } => Some(Action::Kill(index)),
            _ => None,
        };
        let end = self.common.goal.filter(|_| self.common.finished).map(Action::Finish);
        // In the order of the signals in a shutdown.
        self.units.iter().enumerate().rev().filter_map(stop).chain(end).collect()
    }
}
