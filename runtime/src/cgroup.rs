//! A container's control group (cgroup v2): made beneath a directory that the caller keeps open, set, filled by
//! `clone3(CLONE_INTO_CGROUP)`, read, killed, removed. Everything goes by descriptor, nothing waits.

mod settings;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::device_filter::{self, DeviceFilters};
use crate::failure::{Context, Failure, Step};
use crate::launch::Cgroup;
use crate::small_file;
#[cfg(feature = "cli")]
pub(crate) use settings::{changes_nothing, has};
use settings::{configure, write_settings};

/// The file that limits how many processes there are. Setting it is left until the child is there: a limit counts who is made in the
/// cgroup, but not who is there already, so that the lowest one still lets the container begin.
pub(crate) const PROCESSES: &str = "pids.max";
/// What is in a cgroup; in a threaded one these are its threads.
const MEMBERS: &str = "cgroup.procs";
const THREADS: &str = "cgroup.threads";

/// What to do when a setting's file is absent because its controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsentController {
    /// Don't start the container.
    Fail,
    /// Start it without that limit and say so in [`crate::start::Started::degraded`].
    Record,
}

/// Counters of `memory.events` (cgroup-v2.rst), since the cgroup was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Times usage hit `memory.max`.
    pub max: u64,
    /// Times an allocation was about to fail for it.
    pub oom: u64,
    /// Processes killed by an OOM killer.
    pub oom_kill: u64,
    /// Times the whole group was killed by it.
    pub oom_group_kill: u64,
}

/// Makes the cgroup `name` in `parent` and applies the settings. Returns its directory and what had to be left out.
///
/// An empty cgroup of that name, left by an earlier start, is replaced. EBUSY: it isn't empty.
pub fn create(
    parent: impl AsFd,
    name: &str,
    settings: &Cgroup,
    absent: AbsentController,
) -> Result<(OwnedFd, Vec<String>), Failure> {
    let (dir, mut left_out) = create_with(&parent, name, settings, absent, false)?;
    match complete(dir.as_fd(), settings, absent, None) {
        Ok(more) => left_out.extend(more),
        Err(failure) => {
            // The first error is the one to report.
            let _ = remove(parent, name);
            return Err(failure);
        }
    }
    Ok((dir, left_out))
}

/// Sets what [`create_with`] has left. Returns what had to be left out.
pub(crate) fn complete(
    dir: BorrowedFd<'_>,
    settings: &Cgroup,
    absent: AbsentController,
    filters: Option<&DeviceFilters>,
) -> Result<Vec<String>, Failure> {
    filter_devices(dir, settings, filters)?;
    limit_processes(dir, settings, absent)
}

/// Lets the cgroup use the devices that it may and no others, by way of filters that are kept, if there are any.
pub(crate) fn filter_devices(
    dir: BorrowedFd<'_>,
    settings: &Cgroup,
    filters: Option<&DeviceFilters>,
) -> Result<(), Failure> {
    if settings.device_filter.is_empty() {
        return Ok(());
    }
    device_filter::apply(filters, dir, &settings.device_filter)
}

/// Sets the limit of processes. Returns what had to be left out.
pub(crate) fn limit_processes(
    dir: BorrowedFd<'_>,
    settings: &Cgroup,
    absent: AbsentController,
) -> Result<Vec<String>, Failure> {
    write_settings(dir, settings.settings.iter().filter(|(file, _)| file == PROCESSES), absent)
}

/// [`create`] without the filter of devices ([`filter_devices`]), for which the kernel needs its time, and without the limit of processes
/// ([`limit_processes`]). With `adopt` an empty cgroup that is there already is used as it is, with its limits and its owner, if it has
/// none beneath it and so takes processes.
pub(crate) fn create_with(
    parent: impl AsFd,
    name: &str,
    settings: &Cgroup,
    absent: AbsentController,
    adopt: bool,
) -> Result<(OwnedFd, Vec<String>), Failure> {
    let parent = parent.as_fd();
    check_name(name)?;
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) if adopt && takes_processes(parent, name)? => {}
        Err(Errno::EXIST) => {
            remove(parent, name)?;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).at(Step::CreateCgroup, || name)?;
        }
        other => other.at(Step::CreateCgroup, || name)?,
    }
    let made = open(parent, name).and_then(|dir| configure(dir.as_fd(), settings, absent).map(|left_out| (dir, left_out)));
    if made.is_err() {
        // The first error is the one to report.
        let _ = remove(parent, name);
    }
    made
}

/// Whether processes may be put into the cgroup itself (cgroup-v2.rst, "No Internal Process Constraint"). One that has some is somebody
/// else's, perhaps since a moment ago.
fn takes_processes(parent: BorrowedFd<'_>, name: &str) -> Result<bool, Failure> {
    let dir = open(parent, name)?;
    if populated(&dir)? {
        return Err(Failure::new(Step::CreateCgroup, name, Errno::BUSY));
    }
    let is_leaf = || {
        let enabled = read(dir.as_fd(), "cgroup.subtree_control")?;
        Ok(enabled.trim().is_empty() && subdirectories(dir.as_fd())?.is_empty())
    };
    is_leaf().at(Step::CreateCgroup, || name)
}

/// Opens the cgroup `name` in `parent`.
pub fn open(parent: impl AsFd, name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).at(Step::CreateCgroup, || name)
}

/// Sends SIGKILL to every process in the cgroup and beneath it.
///
/// By `cgroup.kill` (Linux 5.14), which new processes can't outrun; before that, and where it is not for threaded ones, one by one: then call it
/// until [`populated`] says no. One by one after it, too: a process whose first thread has ended before the others doesn't heed it.
pub fn kill(dir: impl AsFd) -> Result<(), Failure> {
    let dir = dir.as_fd();
    match write(dir, "cgroup.kill", "1") {
        Err(Errno::NOENT | Errno::OPNOTSUPP) => kill_frozen(dir),
        other => {
            other.at(Step::SetCgroup, || "cgroup.kill")?;
            // The cgroup may be gone by now, or another user's process be in it: nobody who was killed just now is an error.
            let _ = kill_each(dir);
            Ok(())
        }
    }
}

/// Removes the cgroup `name` of `parent`, and what the container made beneath it. EBUSY: processes are left in it.
pub fn remove(parent: impl AsFd, name: &str) -> Result<(), Failure> {
    remove_tree(parent.as_fd(), name, 0).at(Step::CreateCgroup, || name)
}

/// Whether a live process is in the cgroup or beneath it (`cgroup.events`).
pub fn populated(dir: impl AsFd) -> Result<bool, Failure> {
    let text = read(dir.as_fd(), "cgroup.events").at(Step::Open, || "cgroup.events")?;
    Ok(field(&text, "populated") == Some(1))
}

/// Whether every process in it stands still (`cgroup.events`).
pub fn frozen(dir: impl AsFd) -> Result<bool, Failure> {
    let text = read(dir.as_fd(), "cgroup.events").at(Step::Open, || "cgroup.events")?;
    Ok(field(&text, "frozen") == Some(1))
}

/// The processes in it and beneath it, as the caller's pid namespace sees them.
pub fn processes(dir: impl AsFd) -> Result<Vec<i32>, Failure> {
    let mut pids = Vec::new();
    collect(dir.as_fd(), MEMBERS, &mut pids, 0).at(Step::Open, || MEMBERS)?;
    Ok(pids)
}

/// Adds the numbers in this file of it and of those beneath it.
fn collect(dir: BorrowedFd<'_>, file: &str, pids: &mut Vec<i32>, depth: u32) -> Result<(), Errno> {
    match read_members(dir, file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // A threaded one, which has threads alone: the one above it has listed their processes (cgroup-v2.rst, "Threads").
        Err(Errno::OPNOTSUPP) if depth > 0 => {}
        Err(errno) => return Err(errno),
    }
    for child in subdirectories(dir)? {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, child.as_str(), flags, Mode::empty()) {
            Ok(child) if depth < MAX_DEPTH => collect(child.as_fd(), file, pids, depth.saturating_add(1))?,
            // Removed meanwhile.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Stops every process in it where it stands, or lets them go on (`cgroup.freeze`, Linux 5.2). Stopping takes a moment: see [`frozen`].
pub fn freeze(dir: impl AsFd, on: bool) -> Result<(), Failure> {
    write(dir.as_fd(), "cgroup.freeze", if on { "1" } else { "0" }).at(Step::SetCgroup, || "cgroup.freeze")
}

/// Bytes in use (`memory.current`); `None` without the memory controller.
pub fn memory_current(dir: impl AsFd) -> Option<u64> {
    number(dir.as_fd(), "memory.current")
}

/// The one number that a file has; `None` if there is no such file.
fn number(dir: BorrowedFd<'_>, file: &str) -> Option<u64> {
    read(dir, file).ok()?.trim().parse().ok()
}

/// Processor time used since the cgroup was made, in microseconds (`cpu.stat`, which is there without the controller, too).
pub fn cpu_usage(dir: impl AsFd) -> Option<u64> {
    field(&read(dir.as_fd(), "cpu.stat").ok()?, "usage_usec")
}

/// The memory controller's counters; `None` without it.
pub fn memory_events(dir: impl AsFd) -> Option<MemoryEvents> {
    Some(parse_memory_events(&read(dir.as_fd(), "memory.events").ok()?))
}

fn parse_memory_events(text: &str) -> MemoryEvents {
    let get = |key| field(text, key).unwrap_or(0);
    MemoryEvents { max: get("max"), oom: get("oom"), oom_kill: get("oom_kill"), oom_group_kill: get("oom_group_kill") }
}

/// The value of `key` in a flat keyed file.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// A cgroup is one directory name; what it is called inside can't lead elsewhere.
fn check_name(name: &str) -> Result<(), Failure> {
    if matches!(name, "" | "." | "..") || name.len() > 255 || name.contains(['/', '\0', '\n']) {
        return Err(Failure::check(format!("cgroup name {name:?} isn't one plain file name")));
    }
    Ok(())
}

/// Applies settings to the cgroup `dir`: limits in order, then the device rules, besides those that it has. Returns what had to be
/// left out.
pub fn apply(dir: impl AsFd, settings: &Cgroup, absent: AbsentController) -> Result<Vec<String>, Failure> {
    let mut left_out = configure(dir.as_fd(), settings, absent)?;
    left_out.extend(complete(dir.as_fd(), settings, absent, None)?);
    Ok(left_out)
}

/// Gives the cgroup `dir` to this user and, if given, group of the machine: its directory and what cgroups(7) says of delegation.
pub(crate) fn give_to(dir: impl AsFd, uid: u32, gid: Option<u32>) -> Result<(), Failure> {
    const LISTED: &str = "/sys/kernel/cgroup/delegate";
    const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
    let (dir, owner, group) = (dir.as_fd(), Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
    // An ordinary user may not give everything to every group, and the owner is who counts.
    let give = |file: &str| {
        let to = |group| rustix::fs::chownat(dir, file, owner, group, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH);
        match to(group) {
            Err(Errno::PERM) if group.is_some() => to(None),
            other => other,
        }
    };
    let listed = read(rustix::fs::CWD, LISTED).unwrap_or_else(|_| USUAL.to_owned());
    give("").at(Step::CreateCgroup, || format!("owner {uid}"))?;
    for file in listed.lines().filter(|file| !file.is_empty() && !file.contains('/')) {
        match give(file) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Failure::new(Step::CreateCgroup, format!("owner {uid} of {file}"), errno)),
        }
    }
    Ok(())
}

/// One write to one file of the cgroup.
pub(crate) fn write(dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(|_| ())
}

/// A whole small file of the cgroup, at most 64 KiB of it.
pub(crate) fn read(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    read_most(dir, file, 65_536)
}

/// All of [`MEMBERS`] or [`THREADS`]: there are at most four million of them (`PID_MAX_LIMIT`), with a line of eight bytes each.
fn read_members(dir: BorrowedFd<'_>, file: &str) -> Result<String, Errno> {
    read_most(dir, file, 32 << 20)
}

fn read_most(dir: BorrowedFd<'_>, file: &str, most: usize) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    small_file::read(&file, most)
}

/// Without `cgroup.kill`: frozen first so that a fork bomb can't outrun it.
fn kill_frozen(dir: BorrowedFd<'_>) -> Result<(), Failure> {
    let _ = write(dir, "cgroup.freeze", "1");
    let killed = kill_each(dir);
    let _ = write(dir, "cgroup.freeze", "0");
    killed
}

fn kill_each(dir: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut pids = Vec::new();
    let found = match collect(dir, MEMBERS, &mut pids, 0) {
        // A thread's number is as good: its process is killed.
        Err(Errno::OPNOTSUPP) => collect(dir, THREADS, &mut pids, 0),
        other => other,
    };
    found.at(Step::Open, || MEMBERS)?;
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            other => other.at(Step::SetCgroup, || MEMBERS)?,
        }
    }
    Ok(())
}

/// The deepest cgroup tree that is removed; the kernel's own default limits descendants the same way.
const MAX_DEPTH: u32 = 64;

/// Removes the leaves first. Cgroup directories hold files that vanish with them.
fn remove_tree(parent: BorrowedFd<'_>, name: &str, depth: u32) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::BUSY) if depth < MAX_DEPTH => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let children = subdirectories(dir.as_fd())?;
    if children.is_empty() {
        return Err(Errno::BUSY);
    }
    for child in children {
        remove_tree(dir.as_fd(), &child, depth.saturating_add(1))?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Names of the directories directly in `dir`.
fn subdirectories(dir: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_events_are_read_by_whole_key() {
        let text = "low 0\nhigh 3\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\n";
        let events = parse_memory_events(text);
        assert_eq!(events, MemoryEvents { max: 17, oom: 2, oom_kill: 1, oom_group_kill: 0 });
    }

    /// A directory that looks like a cgroup.
    pub(super) fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let fd = rustix::fs::open(directory.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn no_process_is_left_out_however_many_there_are() {
        let text: String = (1..=20_000).map(|pid| format!("{pid}\n")).collect();
        assert!(text.len() > 65_536);
        let (_kept, directory) = fake(&[("cgroup.procs", &text)]);
        assert_eq!(processes(&directory).unwrap(), (1..=20_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a\n"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("web.1").is_ok());
    }
}
