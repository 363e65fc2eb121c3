//! What is about to be kept is looked at first: where it can't be, PID 1 has gone wrong, and goes on from what it kept before, as after a
//! panic.

use super::Supervisor;
use crate::sys::crash;

impl Supervisor {
    /// Looks at containers that have changed. Nothing of the batch in which one is as it can't be was written yet.
    pub(super) fn look_for_nonsense(&self, changed: &[usize]) {
        let found = changed.iter().find_map(|index| Some((*index, self.nonsense(*index)?)));
        if let Some((index, what)) = found {
            crash::restart(format!("invariant broken: {} {what}", self.name(index)).as_bytes());
        }
    }

    fn nonsense(&self, index: usize) -> Option<&'static str> {
        let pid = self.units.get(index)?.pid;
        if pid != 0 && self.pids.get(&pid) != Some(&index) {
            return Some("has a process whose end would be another's, or nobody's");
        }
        self.state.unsound(index, pid != 0)
    }
}
