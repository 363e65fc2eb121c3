//! New filesystems by fsopen(2) and its family (Linux 5.2).

use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::failure::{Context, Failure, Step};

/// A new instance of a filesystem, mounted nowhere yet. Options are `key=value` or flags.
pub(crate) fn new(fstype: &str, options: &[String], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, || fstype)?;
    // What /proc/self/mountinfo shows as its source.
    fsconfig_set_string(context.as_fd(), "source", fstype).at(Step::MountOption, || format!("{fstype} source"))?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), option),
        }
        .at(Step::MountOption, || format!("{fstype} {option}"))?;
    }
    fsconfig_create(context.as_fd()).at(Step::Mount, || fstype)?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Step::Mount, || fstype)
}
