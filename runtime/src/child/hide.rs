//! Paths that a container doesn't get to see, or not to write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::paths::{self, Links};
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::launcher;
use crate::sys::mount::{Change, set_attributes};

/// `f_type` of procfs (`linux/magic.h`).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Covers each masked path: a directory by an empty read-only one, anything else by the null device.
pub(crate) fn mask(launch: &Launch, root: BorrowedFd<'_>, workspace: BorrowedFd<'_>) -> Result<(), Failure> {
    let (mut empty, mut null) = (None, None);
    for path in &launch.masked_paths {
        let Some(place) = find(root, path, Step::MaskPath)? else { continue };
        let stat = rustix::fs::fstat(&place).at(Step::MaskPath, || path.as_str())?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            copy_of(&mut empty, || empty_directory(workspace))?
        } else {
            copy_of(&mut null, launcher::open_null)?
        };
        paths::attach(cover.as_fd(), place.as_fd()).at(Step::MaskPath, || path.as_str())?;
    }
    Ok(())
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

/// A mount to cover one path with: a copy of `cover`, which is opened at its first use.
fn copy_of(
    cover: &mut Option<OwnedFd>,
    open: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<OwnedFd, Failure> {
    let opened = match cover.take() {
        Some(opened) => opened,
        None => open()?,
    };
    let copy = clone_mount(opened.as_fd(), false).at(Step::MaskPath, || "copy of the cover")?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    set_attributes(copy.as_fd(), Change { set, ..Change::default() }).at(Step::MaskPath, || "copy of the cover")?;
    *cover = Some(opened);
    Ok(copy)
}

/// A directory of the workspace that stays empty, as it is only ever shown read-only.
fn empty_directory(workspace: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    rustix::fs::mkdirat(workspace, "empty", Mode::from_raw_mode(0o755)).at(Step::Create, || "empty in the workspace")?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(workspace, "empty", flags, Mode::empty()).at(Step::Open, || "empty in the workspace")
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
