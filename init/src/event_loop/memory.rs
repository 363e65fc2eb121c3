//! Processes that the kernel has killed for want of memory: heard of as it happens, whichever of a container's they were.
//!
//! The kernel counts them in `memory.events` of a cgroup, with those of the cgroups beneath it, and tells a watch when that file has
//! changed. So one watch, on the directory in which the containers' cgroups are, is enough for all of them: a launch does nothing for it, and
//! no count of watches limits it. When the number there has risen, the containers' own say whose they were.
//!
//! That file changes as well whenever a container's memory reaches its limit and some is reclaimed, without end for one whose cache fills
//! it. So what is heard is looked at a moment later, and not again for a while, however often it is said.

use std::os::fd::{AsRawFd, OwnedFd};

use garboard_runtime::cgroup::{self, MemoryEvents};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::sources::Source;
use crate::clock::now_ms;
use crate::events::Kind;

/// Where one process of a container is killed others often are at the same time: they are looked for so many milliseconds later.
const SETTLE_MS: u64 = 100;
/// Between two looks.
const EVERY_MS: u64 = 1_000;
/// Between two events of one container's, but for the one at its end.
const TELL_EVERY_MS: u64 = 10_000;
/// A container that ends so long after one of its processes was killed may have ended of that: a process that is killed with a lot of
/// memory needs a while to be gone, and a reaper or a shell to tell of it.
const RECENT_MS: u64 = 10_000;

/// What PID 1 has to hear of them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Where the kernel says that something was counted; `None`: it doesn't count, or can't say so.
    pub(super) inotify: Option<OwnedFd>,
    /// The directory of the counts, for tests; `None`: it is that of the cgroups.
    directory: Option<OwnedFd>,
    /// All that were killed until the last look.
    known: u64,
    looked_at: u64,
    /// Something was counted: when to look.
    look_at: Option<u64>,
    /// When the next event is due that came too soon after another.
    tell_at: Option<u64>,
}

impl Watch {
    /// When there is something to do.
    pub(super) fn due(&self) -> Option<u64> {
        [self.look_at, self.tell_at].into_iter().flatten().min()
    }
}

/// What was killed of one container.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kills {
    /// In this run, of which the cgroup is another one than the last run's.
    run: u64,
    /// What that had counted when it was last read: kills, and kills of all at once.
    read: (u64, u64),
    /// Since boot.
    pub(super) total: u64,
    /// Those of which events have told.
    told: u64,
    /// When some of this run were last seen.
    seen_at: Option<u64>,
    /// When an event last told of some.
    told_at: Option<u64>,
}

impl Kills {
    /// A run begins.
    pub(super) fn begin(&mut self) {
        (self.run, self.read, self.seen_at) = (0, (0, 0), None);
    }

    /// Its cgroup has counted so many. True: more than were known.
    ///
    /// Who makes the kernel kill all of a group (`memory.oom.group`) is killed with the others once more, and counted twice, unless it was
    /// gone by then (`oom_kill_process` in the kernel's `mm/oom_kill.c`).
    fn count(&mut self, counted: MemoryEvents, now: u64) -> bool {
        let more = counted.oom_kill.saturating_sub(self.read.0);
        if more == 0 {
            return false;
        }
        let more = more.saturating_sub(counted.oom_group_kill.saturating_sub(self.read.1)).max(1);
        self.read = (counted.oom_kill, counted.oom_group_kill);
        self.run = self.run.saturating_add(more);
        self.total = self.total.saturating_add(more);
        self.seen_at = Some(now);
        true
    }

    /// Whether an end at `now` may be for want of memory: not because of what was killed long before it.
    pub(super) fn are_recent(&self, now: u64) -> bool {
        self.seen_at.is_some_and(|at| now.saturating_sub(at) <= RECENT_MS)
    }

    /// What was killed in this run, if anything was.
    pub(super) fn in_words(&self) -> Option<String> {
        match self.run {
            0 => None,
            1 => Some("one of its processes was killed for want of memory".to_owned()),
            n => Some(format!("{n} of its processes were killed for want of memory")),
        }
    }

    /// When an event may tell of those of which none has.
    fn due(&self) -> Option<u64> {
        (self.total > self.told).then(|| self.told_at.map_or(0, |at| at.saturating_add(TELL_EVERY_MS)))
    }

    /// What that event says.
    fn tell(&mut self, now: u64) -> Option<String> {
        let some = self.total.saturating_sub(std::mem::replace(&mut self.told, self.total));
        let many = match some {
            0 => return None,
            1 => "one".to_owned(),
            n => n.to_string(),
        };
        self.told_at = Some(now);
        Some(format!("the kernel killed {many} of its processes for want of memory"))
    }
}

impl Supervisor {
    /// Begins to listen, and looks for what was killed before. Without the memory controller there is nothing to hear.
    pub(super) fn watch_memory(&mut self) {
        if let Some(path) = &self.options.memory_counts {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.memory.directory = rustix::fs::open(path, flags, Mode::empty()).ok();
        }
        // The process before had one: by now there may be none to have, as containers' count with those of the machine's root.
        let kept = self.memory.inotify.take().map(Ok);
        match kept.or_else(|| self.memory_counts().map(watch)) {
            Some(Ok(inotify)) => {
                self.sources.add_readable(&inotify, Source::Memory);
                self.memory.inotify = Some(inotify);
                self.common_dirty = true;
            }
            None | Some(Err(Errno::NOENT)) => return,
            Some(Err(e)) => {
                let lost = "of processes killed for want of memory only a container's end tells";
                self.note(format!("watch the cgroups' memory: {e}: {lost}"));
            }
        }
        let now = now_ms();
        self.look_for_kills(now);
        self.tell_kills(now);
    }

    /// Something was counted. Until it is looked at, nothing more is listened to.
    pub(super) fn hear_of_memory(&mut self) {
        if let Some(inotify) = &self.memory.inotify {
            self.sources.remove(inotify);
        }
        let again = self.memory.looked_at.saturating_add(EVERY_MS);
        self.memory.look_at = Some(now_ms().saturating_add(SETTLE_MS).max(again));
    }

    /// Looks, and tells, when it is time to.
    pub(super) fn check_memory(&mut self, now: u64) {
        if self.memory.due().is_none_or(|due| now < due) {
            return;
        }
        if self.memory.look_at.is_some_and(|at| at <= now) {
            self.memory.look_at = None;
            self.memory.looked_at = now;
            if let Some(inotify) = &self.memory.inotify {
                // Before the counts are read: what comes after that is heard.
                let _ = rustix::io::read(inotify, &mut self.buffer[..]);
                self.sources.add_readable(inotify, Source::Memory);
            }
            self.look_for_kills(now);
        }
        self.tell_kills(now);
    }

    /// Reads how many were killed in all, and whose they were if there are more than before.
    fn look_for_kills(&mut self, now: u64) {
        let Some(all) = self.memory_counts().and_then(cgroup::memory_events).map(|events| events.oom_kill) else {
            return;
        };
        if std::mem::replace(&mut self.memory.known, all) != all {
            for index in 0..self.units.len() {
                self.count_kills(index, now);
            }
        }
    }

    /// Reads how many were killed of a container that runs.
    pub(super) fn count_kills(&mut self, index: usize, now: u64) {
        if self.units.get(index).is_none_or(|unit| unit.pid == 0) {
            return;
        }
        let group = self.memory_counts().and_then(|parent| cgroup::open(parent, self.name(index)).ok());
        let Some(events) = group.and_then(cgroup::memory_events) else { return };
        if self.units.get_mut(index).is_some_and(|unit| unit.kills.count(events, now)) {
            self.dirty.push(index);
        }
    }

    /// Tells of what no event has told yet, of each container now and then only.
    fn tell_kills(&mut self, now: u64) {
        for index in 0..self.units.len() {
            if self.units.get(index).and_then(|unit| unit.kills.due()).is_some_and(|due| due <= now) {
                self.tell_kills_of(index, now);
            }
        }
        self.memory.tell_at = self.units.iter().filter_map(|unit| unit.kills.due()).min();
    }

    /// The same of one container, at once.
    pub(super) fn tell_kills_of(&mut self, index: usize, now: u64) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let Some(text) = unit.kills.tell(now) else { return };
        // Else the line about its end says so.
        if unit.pid != 0 || !unit.out_of_memory {
            self.console.say(&format!("{}: {text}", self.name(index)));
        }
        self.record(Kind::OutOfMemory, Some(index), &text);
        self.dirty.push(index);
        self.stir_dashboard();
    }

    /// The directory whose `memory.events` counts for all containers, and has theirs beneath it.
    fn memory_counts(&self) -> Option<&OwnedFd> {
        self.memory.directory.as_ref().or(self.cgroup.as_ref())
    }
}

/// What becomes readable when a count in the cgroup `directory`, or beneath it, has changed.
fn watch(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}/memory.events", directory.as_raw_fd());
    inotify::add_watch(&inotify, path, inotify::WatchFlags::MODIFY)?;
    Ok(inotify)
}

#[cfg(test)]
impl Kills {
    /// The one that takes most room when it is kept.
    pub(super) fn longest() -> Self {
        let most = u64::MAX;
        Self { run: most, read: (most, most), total: most, told: most, seen_at: Some(most), told_at: Some(most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(oom_kill: u64, oom_group_kill: u64) -> MemoryEvents {
        MemoryEvents { oom_kill, oom_group_kill, ..MemoryEvents::default() }
    }

    #[test]
    fn who_is_killed_with_all_others_counts_once() {
        let mut kills = Kills::default();
        // Two processes, of which the kernel has counted the first twice; one; one that was gone before its second time.
        for (counted, run) in [(of(3, 1), 2), (of(5, 2), 3), (of(6, 3), 4)] {
            assert!(kills.count(counted, 1_000));
            assert_eq!(kills.run, run);
        }
    }

    #[test]
    fn an_end_is_for_want_of_memory_if_something_was_killed_in_this_run_and_lately() {
        let mut kills = Kills::default();
        assert!(!kills.count(of(0, 0), 1_000) && !kills.are_recent(1_000));
        assert!(kills.count(of(2, 0), 1_000));
        assert!(kills.are_recent(1_000) && kills.are_recent(1_000 + RECENT_MS));
        // Read again, it is the same two.
        assert!(!kills.count(of(2, 0), 900_000) && !kills.are_recent(900_000));
        assert!(kills.count(of(3, 0), 900_000) && kills.are_recent(900_000));
        assert_eq!(kills.in_words().unwrap(), "3 of its processes were killed for want of memory");
        kills.begin();
        assert!(!kills.are_recent(900_000), "the run before is over");
        assert_eq!(kills.in_words(), None);
        assert!(!kills.count(of(0, 0), 900_001));
        assert!(kills.count(of(1, 0), 900_002), "its cgroup is another one and counts anew");
        assert_eq!(kills.total, 4);
    }

    #[test]
    fn each_is_told_of_once_and_no_flood_of_them_is_one_of_events() {
        let mut kills = Kills::default();
        assert_eq!((kills.due(), kills.tell(5)), (None, None));
        let mut told = Vec::new();
        for second in 0..35_u64 {
            let now = second * 1_000;
            kills.count(of(second * 10 + 1, 0), now);
            if kills.due().is_some_and(|due| due <= now) {
                told.extend(kills.tell(now));
            }
        }
        let text = |many: &str| format!("the kernel killed {many} of its processes for want of memory");
        assert_eq!(told, [text("one"), text("100"), text("100"), text("100")]);
        assert_eq!(kills.due(), Some(40_000), "the rest waits");
        assert_eq!(kills.tell(36_000), Some(text("40")), "but not for longer than the run");
        assert_eq!(kills.due(), None);
    }
}
