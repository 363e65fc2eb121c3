//! What may be mounted on `/proc` and in it.
//!
//! Programs, and this runtime, believe what they read there of themselves and write there to protect themselves. So nothing covers it but a
//! procfs, and in it only files that tell of the machine, of which LXCFS and its like have better ones. Rules as runc's.

use std::os::fd::BorrowedFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::paths::{self, Links};
use crate::failure::{Context, Failure, Step};

/// `f_type` of procfs (`linux/magic.h`), and its root's inode (`PROC_ROOT_INO`).
pub(super) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const PROC_ROOT_INODE: u64 = 1;

/// Files beneath `/proc` that others may stand in for.
const REPLACEABLE: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Where a path is, for this.
#[derive(Debug, PartialEq, Eq)]
enum Relation {
    Outside,
    Root,
    /// One of the files that may be replaced.
    Replaceable,
    Beneath,
}

fn relation(target: &str) -> Relation {
    let mut names = target.split('/').filter(|name| !name.is_empty() && *name != ".");
    if names.next() != Some("proc") {
        return Relation::Outside;
    }
    let rest = names.collect::<Vec<_>>().join("/");
    match rest.as_str() {
        "" => Relation::Root,
        rest if REPLACEABLE.contains(&rest) => Relation::Replaceable,
        _ => Relation::Beneath,
    }
}

/// Refuses to mount at `place`, which is what `target` leads to beneath `root`, unless that does no harm or what comes is the root of a
/// procfs. No link leads to `/proc` by that name; by another one it is found out by its filesystem.
pub(super) fn expect_harmless(
    root: BorrowedFd<'_>,
    target: &str,
    place: BorrowedFd<'_>,
    comes: impl FnOnce() -> Result<bool, Errno>,
) -> Result<(), Failure> {
    let object = || target;
    let allowed = match relation(target) {
        Relation::Replaceable => true,
        Relation::Root => comes().at(Step::MountTarget, object)?,
        Relation::Beneath => false,
        Relation::Outside => !is_of_proc(root, place).at(Step::MountTarget, object)?,
    };
    if allowed { Ok(()) } else { Err(Failure::new(Step::MountTarget, format!("{target}, which is of /proc"), Errno::PERM)) }
}

/// Whether it lies on the procfs that `/proc` is.
fn is_of_proc(root: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<bool, Errno> {
    if rustix::fs::fstatfs(place)?.f_type != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let Ok(proc) = paths::resolve(root, "/proc", Links::Refuse) else { return Ok(false) };
    Ok(rustix::fs::fstat(place)?.st_dev == rustix::fs::fstat(&proc)?.st_dev)
}

/// Whether a mount shows the whole of a procfs.
pub(super) fn is_procfs(mount: BorrowedFd<'_>, stat: &Stat) -> Result<bool, Errno> {
    Ok(stat.st_ino == PROC_ROOT_INODE && rustix::fs::fstatfs(mount)?.f_type == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_tell_of_the_machine_are_replaced() {
        for (target, expected) in [
            ("/proc", Relation::Root),
            ("//proc/.", Relation::Root),
            ("/proc/meminfo", Relation::Replaceable),
            ("/proc/sys/kernel/ns_last_pid", Relation::Replaceable),
            ("/proc/sys", Relation::Beneath),
            ("/proc/meminfo/x", Relation::Beneath),
            ("/proc/self/attr", Relation::Beneath),
            ("/process", Relation::Outside),
            ("/srv/proc/self", Relation::Outside),
            ("/", Relation::Outside),
        ] {
            assert_eq!(relation(target), expected, "{target}");
        }
    }
}
