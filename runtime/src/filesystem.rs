//! New filesystems by fsopen(2) and its family (Linux 5.2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::failure::{Context, Failure, Step};

/// A new instance of a filesystem, mounted nowhere yet. Options are `key=value` or flags.
pub(crate) fn new(fstype: &str, options: &[String], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    on(fstype, fstype, options, attributes)
}

/// The same on a device, or of a name that only `/proc/self/mountinfo` shows.
pub(crate) fn on(
    fstype: &str,
    device: &str,
    options: &[String],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, || fstype)?;
    fsconfig_set_string(context.as_fd(), "source", device)
        .at(Step::MountOption, || format!("{fstype} source {device}"))?;
    set_options(context.as_fd(), fstype, options)?;
    fsconfig_create(context.as_fd()).at(Step::Mount, || fstype)?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Step::Mount, || fstype)
}

/// Sets options of a filesystem that is being made or changed.
pub(crate) fn set_options(context: BorrowedFd<'_>, object: &str, options: &[String]) -> Result<(), Failure> {
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context, key, value),
            None => fsconfig_set_flag(context, option),
        }
        .at(Step::MountOption, || format!("{object} {option}"))?;
    }
    Ok(())
}
