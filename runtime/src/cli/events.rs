//! `events`: what a container uses, time and again, and when it ran out of memory; one line of JSON each, as runc has them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::args::{Flag, Name, Parsed, Reader};
use crate::container::error::During;
use crate::container::record::Status;
use crate::container::stats::{Stats, stats};
use crate::container::store::Store;
use crate::container::{Error, Result, cgroup};

/// It goes on until the container ends.
#[derive(Debug)]
pub(super) struct Events {
    interval: Duration,
    stats: bool,
    name: Name,
}

impl Events {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::value("", "interval", "TIME", "Time from one look to the next, such as 500ms, 5s or 1m [default: 5s]"),
        Flag::switch("", "stats", "Look once"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut events = Self { interval: Duration::from_secs(5), stats: false, name: Name::default() };
        while let Some(given) = reader.next()? {
            match given {
                "interval" => events.interval = reader.parsed(interval)?,
                "stats" => events.stats = true,
                "CONTAINER" => events.name = Name::last(reader)?,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(events)
    }
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Events) -> Result<u8> {
    let entry = store.find(&arguments.name.id)?;
    let id = entry.id();
    let record = entry.record()?;
    let (status, process) = entry.status(&record)?;
    let (Status::Created | Status::Running | Status::Paused, Some(process)) = (status, process) else {
        return Err(Error::new(format!("events of container {id}: container not running: it is {}", status.text())));
    };
    let group = cgroup::open(&record)?
        .ok_or_else(|| Error::new(format!("events of container {id}: it has no cgroup to read them from")))?;
    if arguments.stats {
        print(&Event { r#type: "stats", id, data: Some(stats(&group)) })?;
    } else {
        follow(id, group.as_fd(), process.as_fd(), arguments.interval)?;
    }
    Ok(0)
}

/// Tells of the cgroup until the process ends.
fn follow(id: &str, group: BorrowedFd<'_>, process: BorrowedFd<'_>, interval: Duration) -> Result<()> {
    let mut memory = Memory::watch(group)?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(process, memory.as_ref(), next)?;
        if memory.as_mut().is_some_and(Memory::ran_out) {
            print(&Event { r#type: "oom", id, data: None })?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print(&Event { r#type: "stats", id, data: Some(stats(group)) })?;
            next += interval;
        }
    }
}

/// Until it is time, something has happened to the memory, or the process has ended, which is what it returns.
fn wait(process: BorrowedFd<'_>, memory: Option<&Memory>, next: Instant) -> Result<bool> {
    let left = next.saturating_duration_since(Instant::now());
    // Seconds that don't fit are more than anybody waits.
    let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
    let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
    fds.extend(memory.map(|memory| PollFd::new(&memory.events, PollFlags::PRI)));
    match poll(&mut fds, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).during(|| "wait for the container"),
    }
    Ok(fds.first().is_some_and(|process| !process.revents().is_empty()))
}

/// `memory.events`, kept open: it can be polled once it has been read.
#[derive(Debug)]
struct Memory {
    events: OwnedFd,
    kills: u64,
}

impl Memory {
    /// `None`: nobody counts the memory.
    fn watch(group: BorrowedFd<'_>) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let events = match rustix::fs::openat(group, "memory.events", flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.during(|| "open memory.events")?,
        };
        let mut memory = Self { events, kills: 0 };
        memory.ran_out();
        Ok(Some(memory))
    }

    /// Whether somebody was killed for want of memory since it was asked last.
    fn ran_out(&mut self) -> bool {
        let mut buffer = [0_u8; 1024];
        // The cgroup may be gone with the container.
        let Ok(n) = rustix::io::pread(&self.events, &mut buffer, 0) else { return false };
        let text = String::from_utf8_lossy(buffer.get(..n).unwrap_or(&[])).into_owned();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
        std::mem::replace(&mut self.kills, kills) < kills
    }
}

fn print(event: &Event<'_>) -> Result<()> {
    let json = serde_json::to_string(event).map_err(|error| Error::new(format!("print an event: {error}")))?;
    super::print(&format!("{json}\n"))
}

/// As runc takes it, whole numbers only.
fn interval(text: &str) -> std::result::Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval > Duration::ZERO => Ok(interval),
        Ok(_) => Err("it must be above 0".to_owned()),
        Err(_) => Err(format!("{text:?} is no time such as 500ms, 5s or 1m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_time_above_zero() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0s", "-1s", "5", "x", "5 apples"] {
            assert!(interval(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn want_of_memory_is_told_once_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let group = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        assert!(Memory::watch(group.as_fd()).unwrap().is_none());
        std::fs::write(&file, "oom 4\noom_kill 2\noom_group_kill 9\n").unwrap();
        let mut memory = Memory::watch(group.as_fd()).unwrap().unwrap();
        assert!(!memory.ran_out(), "what was before isn't news");
        std::fs::write(&file, "oom 5\noom_kill 3\noom_group_kill 9\n").unwrap();
        assert!(memory.ran_out());
        assert!(!memory.ran_out());
    }
}
