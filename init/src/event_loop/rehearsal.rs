//! What is kept for the next incarnation of PID 1 is read once in good time, as that would read it.
//!
//! A state that can't be read back, or says something else than what is, shows while the machine has boots to come and people who read
//! warnings, instead of in the crash that it is for. And whatever has been executed once is at hand: a crash that comes is over sooner.

use std::io;
use std::ops::Range;

use super::Supervisor;
use super::persist::{
    ASKING, COMMON, CONTEXT, CommonRecord, Context, FIRST_UNIT, UnitRecord, WorkerRecord, load, records,
};
use super::resume::children;
use crate::supervise::State;

/// Containers in one turn of the loop, which takes less than a millisecond.
const PER_TURN: usize = 32;

impl Supervisor {
    /// Goes on with the rehearsal, once everything has settled and is kept. True: there is more to do.
    pub(super) fn rehearse(&mut self) -> bool {
        let Some(begin) = self.rehearsed.filter(|_| self.announced.settled()) else { return false };
        let count = self.units.len();
        let end = begin.saturating_add(PER_TURN).min(count);
        match self.read_back(begin..end) {
            Ok(true) => self.rehearsed = (end < count).then_some(end),
            Ok(false) => self.end_rehearsal("it says something else"),
            Err(e) => self.end_rehearsal(&e.to_string()),
        }
        self.rehearsed.is_some()
    }

    fn end_rehearsal(&mut self, why: &str) {
        self.rehearsed = None;
        self.note(format!(
            "what PID 1 keeps of its state can't be read back ({why}): after a crash it could not go on"
        ));
    }

    /// Whether what these containers and all together were is read from their records, as [`Supervisor::resume`] reads it.
    fn read_back(&self, units: Range<usize>) -> io::Result<bool> {
        let kept = self.store.reopened(records(self.units.len()))?;
        let read = |index: usize| load::<UnitRecord>(&kept, FIRST_UNIT.saturating_add(index));
        let found: Option<Vec<_>> = units.clone().map(read).collect();
        let asking = load::<Vec<WorkerRecord>>(&kept, ASKING);
        // It is large, and read with the first.
        let whole = units.start != 0 || load::<Context>(&kept, CONTEXT).is_some();
        if units.start == 0 {
            // Only asked for, as the next incarnation will.
            children();
        }
        let rules = self.state.rules().get(units.clone());
        let (Some(common), Some(_), Some(found), Some(rules)) =
            (load::<CommonRecord>(&kept, COMMON), asking, found, rules)
        else {
            return Ok(false);
        };
        let pids = found.iter().map(|record| record.pid);
        let same = self.units.get(units.clone()).is_some_and(|units| units.iter().map(|unit| unit.pid).eq(pids));
        let memories = found.into_iter().map(|record| record.unit).collect();
        let state = State::resume(rules.to_vec(), self.options.policy, memories, common.common);
        Ok(whole
            && same
            && self.state.units().get(units) == Some(state.units())
            && self.state.common() == state.common())
    }
}
