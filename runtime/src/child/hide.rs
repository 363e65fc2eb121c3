//! Paths that a container doesn't get to see, or not to write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::paths::{self, Links};
use super::rootfs;
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::launcher;
use crate::sys::mount::{Change, set_attributes};

/// `f_type` of procfs (`linux/magic.h`).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Covers each masked path: a directory by an empty read-only tmpfs, anything else by the null device.
pub(crate) fn mask(launch: &Launch, root: BorrowedFd<'_>, workspace: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for path in &launch.masked_paths {
        let Some((place, kind)) = find(root, path, Step::MaskPath)? else { continue };
        let cover = if kind == FileType::Directory {
            cover_from(&mut empty, || empty_directory(workspace))?
        } else {
            cover_from(&mut null, || null_device(workspace))?
        };
        paths::attach(cover.as_fd(), place.as_fd()).at(Step::MaskPath, || path.as_str())?;
    }
    Ok(())
}

/// Makes each path, with the mounts beneath it, a read-only mount of itself.
pub(crate) fn make_readonly(launch: &Launch, root: BorrowedFd<'_>) -> Result<(), Failure> {
    for path in &launch.readonly_paths {
        let Some((place, _)) = find(root, path, Step::ReadonlyPath)? else { continue };
        let copy = clone_mount(place.as_fd(), true).at(Step::ReadonlyPath, || path.as_str())?;
        let change = Change { set: libc::MOUNT_ATTR_RDONLY, recursive: true, ..Change::default() };
        set_attributes(copy.as_fd(), change).at(Step::ReadonlyPath, || path.as_str())?;
        paths::attach(copy.as_fd(), place.as_fd()).at(Step::ReadonlyPath, || path.as_str())?;
    }
    Ok(())
}

/// The place of `path`, unless there is none. A path of /proc must really be procfs, or the rule would protect something else.
fn find(root: BorrowedFd<'_>, path: &str, step: Step) -> Result<Option<(OwnedFd, FileType)>, Failure> {
    let place = match paths::resolve(root, path, Links::Follow) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other.at(step, || path)?,
    };
    if path.starts_with("/proc/") {
        expect_procfs(place.as_fd(), path, step)?;
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place).at(step, || path)?.st_mode);
    Ok(Some((place, kind)))
}

/// Refuses a place that isn't on a proc filesystem, whatever its name is.
pub(crate) fn expect_procfs(place: BorrowedFd<'_>, path: &str, step: Step) -> Result<(), Failure> {
    if rustix::fs::fstatfs(place).at(step, || path)?.f_type == PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Failure::new(step, format!("{path}, which isn't on a proc filesystem"), Errno::INVAL))
}

/// A copy of the cover, which is made at its first use.
fn cover_from(
    cover: &mut Option<OwnedFd>,
    make: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<OwnedFd, Failure> {
    let made = match cover.take() {
        Some(made) => made,
        None => make()?,
    };
    let copy = clone_mount(made.as_fd(), false).at(Step::MaskPath, || "copy of the cover")?;
    *cover = Some(made);
    Ok(copy)
}

/// One empty read-only tmpfs for all masked directories, in the workspace, as only an attached mount can be cloned.
fn empty_directory(workspace: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tmpfs = rootfs::filesystem("tmpfs", &["mode=755".to_owned(), "size=0".to_owned(), "nr_inodes=1".to_owned()], attributes)?;
    rustix::fs::mkdirat(workspace, "empty", Mode::from_raw_mode(0o755)).at(Step::Create, || "empty in the workspace")?;
    attach_in(workspace, "empty", tmpfs)
}

/// The machine's null device, checked to be it, in the workspace.
fn null_device(workspace: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let null = launcher::open_null()?;
    let copy = clone_mount(null.as_fd(), false).at(Step::MaskPath, || "null device")?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    set_attributes(copy.as_fd(), Change { set: attributes, ..Change::default() }).at(Step::MaskPath, || "null device")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(workspace, "null", flags, Mode::from_raw_mode(0o644))
        .at(Step::Create, || "null in the workspace")?;
    attach_in(workspace, "null", copy)
}

fn attach_in(workspace: BorrowedFd<'_>, name: &str, mount: OwnedFd) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(workspace, name, flags, Mode::empty()).at(Step::MaskPath, || name)?;
    paths::attach(mount.as_fd(), place.as_fd()).at(Step::MaskPath, || name)?;
    Ok(mount)
}

/// A detached copy of the mount at `place`, from there on.
fn clone_mount(place: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}
