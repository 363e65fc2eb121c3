//! Launches that wait for their turn.
//!
//! A child that sets a container up keeps a processor busy until it executes the program. More of them at once than there are
//! processors would only make the first one wait for the last, so the rest queue. One that hangs doesn't hold up the others. Where a
//! crowd waits, the last one counts: then there are twice as many, as now and then a child waits for the kernel.

use std::collections::VecDeque;

/// A launch waits no longer than this for those before it, in milliseconds.
const PATIENCE_MS: u64 = 500;

/// So many are a crowd, for each processor.
const CROWD: usize = 8;

/// The queue.
#[derive(Debug)]
pub(super) struct Launches {
    waiting: VecDeque<usize>,
    /// Children that may set themselves up at the same time.
    at_once: usize,
    /// When the next one is launched in any case.
    overdue_at: u64,
}

impl Launches {
    /// For this machine: one child for each processor that PID 1 may use.
    pub(super) fn new() -> Self {
        let processors = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        Self::of(usize::try_from(processors).unwrap_or(1))
    }

    fn of(at_once: usize) -> Self {
        Self { waiting: VecDeque::new(), at_once: at_once.max(1), overdue_at: 0 }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// So many wait that the last one counts, not the first.
    pub(super) fn is_crowd(&self) -> bool {
        self.waiting.len() > self.at_once.saturating_mul(CROWD)
    }

    /// Children that may set themselves up at the same time then.
    pub(super) fn at_once_in_a_crowd(&self) -> usize {
        self.at_once.saturating_mul(2)
    }

    /// Puts a container at the end.
    pub(super) fn push(&mut self, index: usize) {
        self.waiting.push_back(index);
    }

    /// The container whose turn it is at `now`, while `setting_up` children haven't executed their programs yet.
    pub(super) fn next(&mut self, setting_up: usize, now: u64) -> Option<usize> {
        let at_once = if self.is_crowd() { self.at_once_in_a_crowd() } else { self.at_once };
        if setting_up >= at_once && now < self.overdue_at {
            return None;
        }
        let index = self.waiting.pop_front()?;
        self.overdue_at = now.saturating_add(PATIENCE_MS);
        Some(index)
    }

    /// When the next one is due whatever becomes of those before it; `None`: none waits.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.overdue_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(at_once: usize, waiting: usize) -> Launches {
        let mut launches = Launches::of(at_once);
        (0..waiting).for_each(|index| launches.push(index));
        launches
    }

    #[test]
    fn no_more_at_once_than_processors() {
        let mut launches = queue(2, 4);
        assert_eq!([0, 1, 2].map(|setting_up| launches.next(setting_up, 10)), [Some(0), Some(1), None]);
        assert_eq!(launches.next(1, 11), Some(2));
        assert_eq!(launches.next(2, 12), None);
    }

    #[test]
    fn twice_as_many_while_a_crowd_waits() {
        let mut launches = queue(2, 2 * CROWD + 2);
        assert_eq!([0, 1, 2].map(|setting_up| launches.next(setting_up, 10)), [Some(0), Some(1), None]);
        let mut launches = queue(2, 2 * CROWD + 3);
        assert_eq!([2, 3, 4].map(|setting_up| launches.next(setting_up, 10)), [Some(0), Some(1), None]);
    }

    #[test]
    fn one_that_hangs_holds_nobody_up_for_long() {
        let mut launches = queue(1, 3);
        assert_eq!(launches.next(0, 0), Some(0));
        assert_eq!(launches.due(), Some(PATIENCE_MS));
        assert_eq!(launches.next(1, PATIENCE_MS - 1), None);
        assert_eq!(launches.next(1, PATIENCE_MS), Some(1));
        assert_eq!(launches.next(2, PATIENCE_MS), None);
        assert_eq!(launches.next(2, 2 * PATIENCE_MS), Some(2));
        assert_eq!(launches.due(), None);
    }

    #[test]
    fn the_first_waits_for_nobody() {
        assert_eq!(queue(0, 1).next(0, 0), Some(0));
        assert_eq!(queue(1, 0).next(0, 0), None);
    }
}
