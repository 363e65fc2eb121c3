//! How much memory and processor time a container uses, as its cgroup says. To look is to read two files: for a thousand containers that takes
//! tens of milliseconds, in which an end would wait for what follows from it. So a look is good for a while, however often somebody asks.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use garboard_runtime::cgroup;

/// A reading is shown for so many milliseconds.
pub(super) const FRESH_MS: u64 = 1_000;

/// What one look has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Bytes charged to the container; 0 without the memory controller.
    pub(super) memory: u64,
    /// Processor time that it has used since it was launched, in microseconds.
    pub(super) cpu: u64,
}

impl Reading {
    /// Looks at the container of this name.
    pub(super) fn take(parent: &OwnedFd, name: &str) -> Self {
        let Ok(group) = cgroup::open(parent, name) else { return Self::default() };
        Self { memory: cgroup::memory_current(&group).unwrap_or(0), cpu: cgroup::cpu_usage(&group).unwrap_or(0) }
    }
}

/// The last look: of which process, when, and what it has found.
#[derive(Debug, Default)]
pub(super) struct Readings(Cell<(i32, u64, Reading)>);

impl Readings {
    /// What was found no longer than `fresh` milliseconds before `now`, or is found by `look`. A container whose first process is another one
    /// was never looked at.
    pub(super) fn get(&self, pid: i32, now: u64, fresh: u64, look: impl FnOnce() -> Reading) -> Reading {
        let (of, at, reading) = self.0.get();
        if of == pid && now.saturating_sub(at) < fresh {
            return reading;
        }
        let reading = look();
        self.0.set((pid, now, reading));
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_good_for_a_while_and_for_one_run() {
        let (readings, looks) = (Readings::default(), Cell::new(0));
        let get = |pid, now, fresh| {
            let reading = readings.get(pid, now, fresh, || {
                looks.set(looks.get() + 1);
                Reading { memory: looks.get(), cpu: 0 }
            });
            reading.memory
        };
        assert_eq!([get(7, 5_000, FRESH_MS), get(7, 5_999, FRESH_MS), get(7, 6_000, FRESH_MS)], [1, 1, 2]);
        assert_eq!(get(8, 6_001, FRESH_MS), 3, "another run");
        assert_eq!(get(8, 6_001, 0), 4, "who wants to know how it is now");
    }
}
