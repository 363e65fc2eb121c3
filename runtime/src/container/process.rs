//! A process by its id *and* its start time, as ids come round again.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cgroup;
use super::error::{During, Result};
use super::record::Record;

/// What `/proc/PID/stat` says (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The process whose child it is.
    pub(crate) parent: i32,
    /// Clock ticks after boot.
    pub(crate) start_time: u64,
}

/// When process `pid` started; `None`: there is no such process.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// Reads it; `None`: there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/{pid}/stat"), flags, rustix::fs::Mode::empty()).ok()?;
    // Fifty numbers and a name of at most 64 bytes.
    let mut buffer = [0_u8; 2048];
    let n = rustix::io::read(&file, &mut buffer).ok()?;
    parse(&String::from_utf8_lossy(buffer.get(..n)?))
}

/// The name, in parentheses, may hold anything: what counts stands after the last one.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // The parent is field 4, the start time field 22.
    let parent = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time })
}

/// The live process `pid` that started at `start_time`, by descriptor; `None`: it has ended.
///
/// It ends with its last thread, as the descriptor says. Its state is only that of its first thread, which may end before the others.
pub(crate) fn open(pid: i32, start_time: u64) -> std::result::Result<Option<OwnedFd>, Errno> {
    let Some(id) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Ok(None) };
    let pidfd = match pidfd_open(id, PidfdFlags::empty()) {
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        other => other?,
    };
    // Read after the descriptor was opened: if the times agree, so do the processes.
    let alive = self::start_time(pid) == Some(start_time) && !has_ended(&pidfd)?;
    Ok(alive.then_some(pidfd))
}

fn has_ended(pidfd: &OwnedFd) -> std::result::Result<bool, Errno> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&AT_ONCE))? > 0)
}

/// The processes of a container that runs, as this pid namespace counts them.
pub(crate) fn of_container(record: &Record) -> Result<Vec<i32>> {
    match cgroup::open(record)? {
        Some(cgroup) => Ok(crate::cgroup::processes(&cgroup)?),
        // An ordinary user's, without a cgroup: what shares its pid namespace.
        None if record.own_pids => in_namespace_of(record.pid).during(|| "read /proc"),
        None => Ok(vec![record.pid]),
    }
}

/// All their threads. What has ended meanwhile has none.
pub(crate) fn threads_of(record: &Record) -> BTreeSet<i32> {
    let processes = of_container(record).unwrap_or_else(|_| vec![record.pid]);
    let tasks = processes.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    tasks.flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The processes in the pid namespace of `pid`.
fn in_namespace_of(pid: i32) -> std::io::Result<Vec<i32>> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let wanted = namespace(pid)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.filter(|pid| namespace(*pid).is_ok_and(|own| own == wanted)) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        let text =
            "42 (a) Z 1 (b) S 1 42 42 0 -1 4194304 106 0 0 0 0 0 0 0 20 0 1 0 987654 2584576 205 18446744073709551615";
        assert_eq!(parse(text), Some(Stat { parent: 1, start_time: 987_654 }));
        assert_eq!(parse("42 (x) S 1"), None);
    }

    #[test]
    fn a_recycled_id_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start_time = start_time(own).unwrap();
        assert!(open(own, start_time).unwrap().is_some());
        assert!(open(own, start_time - 1).unwrap().is_none());
        assert!(open(0, 0).unwrap().is_none());
    }
}
