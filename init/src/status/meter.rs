//! How much work of PID 1 is done for those who may only read: what one takes beyond its share, it waits for.

use std::collections::BTreeMap;

use super::Rights;

/// Length of the window in which work is measured, in milliseconds.
const WINDOW_MS: u64 = 100;
/// Processor time in one window that answers to those who may only read take, in microseconds; each container has a share of its
/// own. Even a container that does nothing but ask leaves PID 1 nineteen parts in twenty.
const WINDOW_WORK_US: u64 = 5_000;

/// What one kind of asker owes for work that was done.
#[derive(Debug, Default)]
struct Work {
    /// When the present window began.
    since: u64,
    /// An answer that was dear is paid for by as many windows as it takes.
    us: u64,
}

/// The measure of all of them.
#[derive(Debug)]
pub struct Meter {
    work: BTreeMap<Rights, Work>,
    /// Work is measured. Without it, only for tests, whoever asks most has most of PID 1.
    pub measured: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { work: BTreeMap::new(), measured: true }
    }
}

impl Meter {
    /// Whether who has these rights has made as much work as it may, for now.
    pub fn throttled(&mut self, rights: Rights, now: u64) -> bool {
        if rights == Rights::Full || !self.measured {
            return false;
        }
        let work = self.work.entry(rights).or_default();
        let windows = now.saturating_sub(work.since).checked_div(WINDOW_MS).unwrap_or(0);
        work.since = work.since.saturating_add(windows.saturating_mul(WINDOW_MS));
        work.us = work.us.saturating_sub(windows.saturating_mul(WINDOW_WORK_US));
        work.us >= WINDOW_WORK_US
    }

    /// Notes work that was done for it, in microseconds of processor time.
    pub fn count(&mut self, rights: Rights, us: u64) {
        let work = self.work.entry(rights).or_default();
        work.us = work.us.saturating_add(us);
    }

    /// Notes so much that it may make no more work in the present window.
    pub fn exhaust(&mut self, rights: Rights) {
        self.count(rights, WINDOW_WORK_US);
    }

    /// When one of these who have made too much work may make some again; `None`: there is none.
    pub fn due(&self, waiting: impl Iterator<Item = Rights>) -> Option<u64> {
        let ends = waiting.filter_map(|rights| {
            let work = self.work.get(&rights)?;
            let windows = work.us.checked_div(WINDOW_WORK_US).filter(|windows| *windows > 0)?;
            Some(work.since.saturating_add(windows.saturating_mul(WINDOW_MS)))
        });
        ends.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Rights = Rights::Container(0);

    #[test]
    fn dear_answers_are_paid_for_by_as_many_windows_as_they_take() {
        let mut meter = Meter::default();
        // For a minute, whatever an answer costs.
        for cost in [1_000, 5_000, 9_000, 40_000] {
            let (mut now, end, mut used) = (100_000, 160_000, 0);
            meter.throttled(ASKER, now);
            while now < end {
                if meter.throttled(ASKER, now) {
                    let due = meter.due([ASKER].into_iter()).unwrap();
                    assert!(due > now && meter.throttled(ASKER, due - 1) && !meter.throttled(ASKER, due));
                    now = due;
                } else {
                    meter.count(ASKER, cost);
                    used += cost;
                    now += 1;
                }
            }
            assert!(used <= 60_000 * 1000 / 20 + cost + WINDOW_WORK_US, "{used} µs with answers of {cost}");
            meter = Meter::default();
        }
    }

    #[test]
    fn each_has_a_share_of_its_own_and_the_machine_s_port_what_it_wants() {
        let mut meter = Meter::default();
        assert!(!meter.throttled(ASKER, 5_000));
        meter.exhaust(ASKER);
        assert!(meter.throttled(ASKER, 5_001) && !meter.throttled(Rights::Container(1), 5_001));
        meter.count(Rights::Full, 1 << 40);
        assert!(!meter.throttled(Rights::Full, 5_001));
        meter.measured = false;
        assert!(!meter.throttled(ASKER, 5_001));
    }
}
