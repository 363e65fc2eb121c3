//! User namespaces by descriptor: what idmapped mounts are mapped by. And the maps of ids, which the kernel takes from the machine's
//! root, and from an ordinary user only for the own id or by a helper.

#[cfg(feature = "cli")]
mod helpers;

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Step};
use crate::launch::{IdMap, IdRange};
use crate::sys;

/// Makes a user namespace with these maps and returns its descriptor. A short helper child is its first and only process.
///
/// Needs `/proc`, and the right to map the ids (CAP_SETUID and CAP_SETGID, or a map of nothing but one's own id).
/// Blocks for the fraction of a millisecond that the helper lives.
pub fn create(ids: &IdMap) -> Result<OwnedFd, Failure> {
    let helper = sys::helper::Helper::start(rustix::thread::UnshareFlags::NEWUSER)
        .at(Step::CreateUserNamespace, || "of a helper process")?;
    write_maps(helper.pid(), ids)?;
    of(helper.pid())
}

/// The user namespace of a process.
pub(crate) fn of(pid: i32) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/user");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Open, || path)
}

/// Writes the maps of a process that waits in its new user namespace.
///
/// First as root does it, which also is how a user maps the own id to one; what the kernel refuses then, the helpers may do.
pub(crate) fn write_maps(pid: i32, ids: &IdMap) -> Result<(), Failure> {
    match write_file(pid, "uid_map", &render(&ids.uids)) {
        #[cfg(feature = "cli")]
        Err(failure) if is_refused_to_a_user(&failure) => helpers::write_map("newuidmap", pid, &ids.uids)?,
        other => other?,
    }
    match write_file(pid, "gid_map", &render(&ids.gids)) {
        #[cfg(feature = "cli")]
        Err(failure) if is_refused_to_a_user(&failure) && !is_own_id_alone(&ids.gids) => {
            helpers::write_map("newgidmap", pid, &ids.gids)
        }
        // Without CAP_SETGID the kernel wants setgroups(2) given up first (user_namespaces(7), Linux 3.19).
        Err(failure) if failure.errno == Errno::PERM.raw_os_error() => {
            write_file(pid, "setgroups", "deny")?;
            write_file(pid, "gid_map", &render(&ids.gids))
        }
        other => other,
    }
}

/// Root without the right hasn't given it up for a helper to ask for it.
#[cfg(feature = "cli")]
fn is_refused_to_a_user(failure: &Failure) -> bool {
    failure.errno == Errno::PERM.raw_os_error() && !rustix::process::geteuid().is_root()
}

/// The only group map that needs no helper.
#[cfg(feature = "cli")]
fn is_own_id_alone(gids: &[IdRange]) -> bool {
    matches!(gids, [IdRange { outside, size: 1, .. }] if *outside == rustix::process::getegid().as_raw())
}

/// The maps of a process's user namespace; what is outside are ids of this process's own.
pub(crate) fn maps_of(pid: i32) -> Result<IdMap, Failure> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        let text = std::fs::read_to_string(&path).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
        text.at(Step::Open, || path).map(|text| parse(&text))
    };
    Ok(IdMap { uids: read("uid_map")?, gids: read("gid_map")? })
}

/// What [`render`] writes, and the kernel with spaces before each number.
fn parse(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? })
    };
    text.lines().filter_map(range).collect()
}

/// The id on the machine that `id` of the container stands for; its own without a user namespace, `None` if it has none.
pub(crate) fn outside(id: u32, ranges: Option<&[IdRange]>) -> Option<u32> {
    let Some(ranges) = ranges else { return Some(id) };
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|offset| *offset < range.size)?;
        range.outside.checked_add(offset)
    })
}

/// The text of a map file: one `inside outside size` line per range.
fn render(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size)).collect()
}

/// Writes one file of `/proc/PID` in one write, as maps must be.
fn write_file(pid: i32, name: &str, text: &str) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/{name}");
    let file =
        rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::WriteIdMap, || name)?;
    match rustix::io::write(&file, text.as_bytes()) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Failure::new(Step::WriteIdMap, name, Errno::IO)),
        Err(errno) => Err(Failure::new(Step::WriteIdMap, name, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_one_line_per_range() {
        let range = |inside, outside, size| IdRange { inside, outside, size };
        assert_eq!(render(&[range(0, 1000, 1), range(1, 100_000, 65_535)]), "0 1000 1\n1 100000 65535\n");
    }
}
