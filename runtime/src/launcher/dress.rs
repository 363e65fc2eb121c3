//! What a detached mount is given before it is attached: ids, propagation and attributes.

use std::os::fd::BorrowedFd;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use crate::launch::MountFlags;
use crate::sys::mount::{Change, set_attributes};

/// By which user namespace a tree's files get their ids, and whether those of the mounts beneath it do, too; `None`: those on disk.
pub(super) type Mapping<'a> = Option<(BorrowedFd<'a>, bool)>;

const DENIALS: StatVfsMountFlags = StatVfsMountFlags::RDONLY
    .union(StatVfsMountFlags::NOSUID)
    .union(StatVfsMountFlags::NODEV)
    .union(StatVfsMountFlags::NOEXEC);
const TIMES: StatVfsMountFlags =
    StatVfsMountFlags::NOATIME.union(StatVfsMountFlags::NODIRATIME).union(StatVfsMountFlags::RELATIME);

/// Gives a detached mount, `recursive` if there may be others beneath it, its ids, propagation and attributes.
///
/// A clone belongs to the same peers as what it was cloned from, so that a mount made in it would spread to the machine.
pub(super) fn dress(mount: BorrowedFd<'_>, flags: &MountFlags, recursive: bool, map: Mapping<'_>) -> Result<(), Errno> {
    let denied = flags.keeps.then(|| denied(mount)).transpose()?;
    let userns = map.map(|(userns, _)| userns);
    // What the launcher's own user namespace has locked is kept, if nobody has asked for the opposite.
    let own = |propagation: u64, userns: Option<BorrowedFd<'_>>| {
        let change = Change { set: flags.own.set, clear: flags.own.clear | flags.unnamed, propagation, userns, recursive: false };
        match set_unless_empty(mount, change) {
            Err(Errno::PERM) if flags.unnamed != 0 => set_unless_empty(mount, Change { clear: flags.own.clear, ..change }),
            other => other,
        }
    };
    let alone = !recursive && flags.propagation.is_empty();
    if alone {
        // All at once, as most mounts are.
        own(libc::MS_PRIVATE, userns)?;
    } else {
        if let Some((_, all)) = map {
            set_attributes(mount, Change { userns, recursive: all, ..Change::default() })?;
        }
        match flags.propagation.as_slice() {
            [] => set_attributes(mount, Change { propagation: libc::MS_PRIVATE, recursive, ..Change::default() })?,
            changes => {
                // A word for the top alone would leave the mounts beneath it the machine's peers. To share cannot be taken back.
                let shares = |change: &u32| u64::from(*change) & libc::MS_SHARED != 0;
                if recursive && !flags.withdraws_whole_tree() && !changes.iter().any(shares) {
                    set_attributes(mount, Change { propagation: libc::MS_SLAVE, recursive, ..Change::default() })?;
                }
                propagate(mount, changes)?;
            }
        }
        own(0, None)?;
    }
    let tree = Change { set: flags.tree.set, clear: flags.tree.clear, recursive: true, ..Change::default() };
    set_unless_empty(mount, tree)?;
    match denied {
        Some(before) => expect_kept(before, self::denied(mount)?),
        None => Ok(()),
    }
}

/// What mounts are locked in by a user namespace, as the kernel tells it of one.
fn denied(mount: BorrowedFd<'_>) -> Result<StatVfsMountFlags, Errno> {
    rustix::fs::fstatvfs(mount).map(|fs| fs.f_flag & (DENIALS | TIMES))
}

/// As the kernel has it for mounts that it copied into a user namespace. These were cloned outside, where everything may be changed.
fn expect_kept(before: StatVfsMountFlags, after: StatVfsMountFlags) -> Result<(), Errno> {
    let kept = (before & DENIALS).difference(after).is_empty() && before & TIMES == after & TIMES;
    if kept { Ok(()) } else { Err(Errno::PERM) }
}

/// Changes a mount's propagation, step by step.
pub(crate) fn propagate(mount: BorrowedFd<'_>, changes: &[u32]) -> Result<(), Errno> {
    changes.iter().try_for_each(|change| {
        let bits = u64::from(*change);
        let change = Change { propagation: bits & !libc::MS_REC, recursive: bits & libc::MS_REC != 0, ..Change::default() };
        set_attributes(mount, change)
    })
}

/// Changes a mount, if there is anything to change.
pub(crate) fn set_unless_empty(mount: BorrowedFd<'_>, change: Change<'_>) -> Result<(), Errno> {
    let nothing = change.set == 0 && change.clear == 0 && change.propagation == 0 && change.userns.is_none();
    if nothing { Ok(()) } else { set_attributes(mount, change) }
}
