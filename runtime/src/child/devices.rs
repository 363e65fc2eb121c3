//! `/dev`: the machine's own nodes, bound one by one, and the customary links. A user namespace can't make nodes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode};
use rustix::mount::{MoveMountFlags, move_mount};

use super::paths::{Kind, Links};
use super::paths;
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::launcher::{STANDARD_DEVICES, Trees};

/// Links of every `/dev` (runtime spec, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the new tmpfs on `/dev`. Nobody but this child has seen it yet, so plain names will do.
pub(crate) fn populate(dev: BorrowedFd<'_>, trees: &Trees) -> Result<(), Failure> {
    for ((name, _), tree) in STANDARD_DEVICES.iter().zip(&trees.standard_devices) {
        let object = || format!("device on /dev/{name}");
        rustix::fs::mknodat(dev, *name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0).at(Step::Create, object)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree.detached()?.as_fd(), "", dev, *name, flags).at(Step::Mount, object)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).at(Step::Create, || format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Binds the declared devices. The cgroup's device filter decides whether they can be used.
pub(crate) fn bind_declared(launch: &Launch, trees: &Trees, root: BorrowedFd<'_>) -> Result<(), Failure> {
    for (device, tree) in launch.devices.iter().zip(&trees.devices) {
        let path = device.target.as_str();
        let target = paths::ensure(root, path, Kind::File, Links::Refuse).at(Step::MountTarget, || path)?;
        paths::attach(tree.detached()?.as_fd(), target.as_fd()).at(Step::Mount, || format!("device on {path}"))?;
    }
    Ok(())
}
