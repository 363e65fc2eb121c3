//! `/dev`: the machine's own nodes, bound one by one, the declared devices, and the customary links. A user namespace can't make
//! nodes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mounts::links;
use super::paths::Kind;
use super::{paths, rootfs};
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::launcher::{Nodes, STANDARD_DEVICES, Trees, nodes};

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

/// Binds the declared devices. The cgroup's device filter decides what may be done with them.
pub(crate) fn bind_declared(
    launch: &Launch,
    trees: &Trees,
    root: BorrowedFd<'_>,
    workspace: BorrowedFd<'_>,
) -> Result<(), Failure> {
    match &trees.devices {
        Nodes::Bound(nodes) => {
            for (device, node) in launch.devices.iter().zip(nodes) {
                bind(root, &device.target, node.detached()?.as_fd())?;
            }
        }
        Nodes::Made(filesystem) => {
            // In the workspace it is in this mount namespace, where its nodes can be cloned one by one.
            let nodes = rootfs::place(filesystem, workspace, "devices", "declared devices")?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            for (number, device) in launch.devices.iter().enumerate() {
                let node = open_tree(&nodes, nodes::name(number), flags).at(Step::OpenTree, || device.source.as_str())?;
                bind(root, &device.target, node.as_fd())?;
            }
        }
    }
    Ok(())
}

fn bind(root: BorrowedFd<'_>, path: &str, node: BorrowedFd<'_>) -> Result<(), Failure> {
    let target = paths::ensure(root, path, Kind::File, links(path)).at(Step::MountTarget, || path)?;
    paths::attach(node, target.as_fd()).at(Step::Mount, || format!("device on {path}"))
}
