//! Paths that a container doesn't get to see, or not to write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::paths::{self, Links};
use super::proc::PROC_SUPER_MAGIC;
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::{filesystem, launcher};
use crate::sys::mount::{Change, set_attributes};

/// Covers each masked path: a directory by an empty read-only one, anything else by the null device.
pub(crate) fn mask(launch: &Launch, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let (mut empty, mut null) = (None, None);
    for path in &launch.masked_paths {
        let Some(place) = find(root, path, Step::MaskPath)? else { continue };
        let stat = rustix::fs::fstat(&place).at(Step::MaskPath, || path.as_str())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            cover(place.as_fd(), path, &mut empty, empty_directory)?;
        } else {
            cover(place.as_fd(), path, &mut null, null_device)?;
        }
    }
    Ok(())
}

/// Covers a directory of the machine's that came with the one above it: all cgroups, with the machine's `/sys`. What the container is to have
/// there is mounted on that.
pub(crate) fn cover_directory(above: BorrowedFd<'_>, path: &str) -> Result<(), Failure> {
    match paths::resolve(above, path, Links::Refuse) {
        Err(Errno::NOENT) => Ok(()),
        place => {
            let place = place.at(Step::MaskPath, || path)?;
            paths::attach(empty_directory()?.as_fd(), place.as_fd()).at(Step::MaskPath, || path)
        }
    }
}

/// Makes each path, with the mounts beneath it, a read-only mount of itself.
pub(crate) fn make_readonly(launch: &Launch, root: BorrowedFd<'_>) -> Result<(), Failure> {
    for path in &launch.readonly_paths {
        let Some(place) = find(root, path, Step::ReadonlyPath)? else { continue };
        let copy = clone_mount(place.as_fd(), true).at(Step::ReadonlyPath, || path.as_str())?;
        let change = Change { set: libc::MOUNT_ATTR_RDONLY, recursive: true, ..Change::default() };
        set_attributes(copy.as_fd(), change).at(Step::ReadonlyPath, || path.as_str())?;
        paths::attach(copy.as_fd(), place.as_fd()).at(Step::ReadonlyPath, || path.as_str())?;
    }
    Ok(())
}

/// The place of `path`, unless there is none. A path of /proc must really be procfs, or the rule would protect something else.
fn find(root: BorrowedFd<'_>, path: &str, step: Step) -> Result<Option<OwnedFd>, Failure> {
    let place = match paths::resolve(root, path, Links::Follow) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other.at(step, || path)?,
    };
    if path.starts_with("/proc/") {
        expect_procfs(place.as_fd(), path, step)?;
    }
    Ok(Some(place))
}

/// Refuses a place that isn't on a proc filesystem, whatever its name is.
pub(crate) fn expect_procfs(place: BorrowedFd<'_>, path: &str, step: Step) -> Result<(), Failure> {
    if rustix::fs::fstatfs(place).at(step, || path)?.f_type == PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Failure::new(step, format!("{path}, which isn't on a proc filesystem"), Errno::INVAL))
}

/// Covers one path: the first with what is made for it, every other with a copy of that, which is as read-only.
fn cover(
    place: BorrowedFd<'_>,
    path: &str,
    first: &mut Option<OwnedFd>,
    make: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<(), Failure> {
    let attach = |mount: &OwnedFd| paths::attach(mount.as_fd(), place).at(Step::MaskPath, || path);
    if let Some(first) = first {
        return attach(&clone_mount(first.as_fd(), false).at(Step::MaskPath, || "copy of the cover")?);
    }
    let made = make()?;
    attach(&made)?;
    *first = Some(made);
    Ok(())
}

fn null_device() -> Result<OwnedFd, Failure> {
    let null = clone_mount(launcher::open_null()?.as_fd(), false).at(Step::MaskPath, || "/dev/null")?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    set_attributes(null.as_fd(), Change { set, ..Change::default() }).at(Step::MaskPath, || "/dev/null")?;
    Ok(null)
}

/// A filesystem with nothing in it, on which nothing can be made.
fn empty_directory() -> Result<OwnedFd, Failure> {
    let options = ["mode=755".to_owned(), "size=4k".to_owned(), "nr_inodes=1".to_owned()];
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    filesystem::new("tmpfs", &options, attributes)
}

/// A detached copy of the mount at `place`, from there on.
pub(crate) fn clone_mount(place: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}
