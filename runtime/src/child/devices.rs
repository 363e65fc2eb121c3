//! `/dev`: the machine's own nodes, bound one by one, the customary links, and the devices that were declared.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mounts::links;
use super::paths::{Kind, Links};
use super::{paths, rootfs};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Device, DeviceNode, Launch, Node, NodeKind};
use crate::launcher::{Nodes, STANDARD_DEVICES, Trees, nodes};

/// Links of every `/dev` (runtime spec, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the new filesystem on `/dev`. Nobody but this child has seen it yet, so plain names will do.
pub(crate) fn populate(dev: BorrowedFd<'_>, trees: &Trees) -> Result<(), Failure> {
    match &trees.standard_devices {
        Some(devices) => {
            for ((name, _), tree) in STANDARD_DEVICES.iter().zip(devices) {
                show(dev, name, tree.detached()?.as_fd())?;
            }
        }
        None => make_standard(dev)?,
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).at(Step::Create, || format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Makes the standard nodes, which is less work than to bind the machine's, and binds those that it may not make.
fn make_standard(dev: BorrowedFd<'_>) -> Result<(), Failure> {
    let umask = rustix::process::umask(Mode::empty());
    let made = STANDARD_DEVICES.iter().try_for_each(|(name, (major, minor))| {
        let number = rustix::fs::makedev(*major, *minor);
        match rustix::fs::mknodat(dev, *name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number) {
            // No CAP_MKNOD, or the rules for devices forbid it.
            Err(Errno::PERM) => show(dev, name, nodes::standard(name, (*major, *minor))?.detached()?.as_fd()),
            other => other.at(Step::MakeDevice, || format!("/dev/{name}")),
        }
    });
    rustix::process::umask(umask);
    made
}

/// Binds a node of the machine.
fn show(dev: BorrowedFd<'_>, name: &str, node: BorrowedFd<'_>) -> Result<(), Failure> {
    let object = || format!("device on /dev/{name}");
    rustix::fs::mknodat(dev, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0).at(Step::Create, object)?;
    move_mount(node, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Step::Mount, object)
}

/// The same for a directory of the root, where the image may have put anything.
pub(crate) fn add_to(dev: BorrowedFd<'_>, trees: &Trees) -> Result<(), Failure> {
    for ((name, _), tree) in STANDARD_DEVICES.iter().zip(trees.standard_devices.iter().flatten()) {
        bind(dev, name, tree.detached()?.as_fd())?;
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, dev, name) {
            Err(Errno::EXIST) => {}
            other => other.at(Step::Create, || format!("/dev/{name}"))?,
        }
    }
    Ok(())
}

/// Supplies the declared devices: made where the container's root may, else bound. The cgroup's device filter decides whether
/// they can be used.
pub(crate) fn supply_declared(
    launch: &Launch,
    trees: &Trees,
    root: BorrowedFd<'_>,
    workspace: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let made = match (&trees.devices, workspace) {
        // In the workspace it is in this mount namespace, where its nodes can be cloned one by one.
        (Nodes::Made(filesystem), Some(workspace)) => {
            Some(rootfs::place(filesystem, workspace, "devices", "declared devices")?)
        }
        _ => None,
    };
    // "A bind-mount or symlink of the container's /dev/pts/ptmx", and that is this device.
    let is_ptmx = |device: &Device| match &device.node {
        DeviceNode::Numbered(node) => device.target == "/dev/ptmx" && (node.major, node.minor) == (5, 2),
        DeviceNode::Machine(_) => false,
    };
    for (number, device) in launch.devices.iter().enumerate().filter(|(_, device)| !is_ptmx(device)) {
        let object = || device.target.as_str();
        match (&device.node, &trees.devices, &made) {
            (DeviceNode::Numbered(node), _, _) if nodes::is_childs(launch, device) => {
                make(root, &device.target, node).at(Step::MakeDevice, object)?;
            }
            (_, Nodes::Bound(nodes), _) => {
                if let Some(tree) = nodes.get(number).and_then(Option::as_ref) {
                    bind(root, &device.target, tree.detached()?.as_fd())?;
                }
            }
            (_, _, Some(made)) => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let node = open_tree(made, nodes::name(number), flags).at(Step::OpenTree, object)?;
                bind(root, &device.target, node.as_fd())?;
            }
            (_, _, None) => {}
        }
    }
    Ok(())
}

/// Makes one node, or finds it there already. Another file of its name is an error.
fn make(root: BorrowedFd<'_>, path: &str, node: &Node) -> Result<(), Errno> {
    let (parent, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
    let parent = if parent.is_empty() { "/" } else { parent };
    let directory = paths::ensure(root, parent, Kind::Directory, links(path))?;
    let kind = match node.kind {
        NodeKind::Character => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let number = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(&directory, name, kind, Mode::empty(), number) {
        Err(Errno::EXIST) => return expect_same(directory.as_fd(), name, node, kind),
        other => other?,
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&directory, name, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)), flags)?;
    rustix::fs::chmodat(directory.as_fd(), name, Mode::from_raw_mode(node.mode), AtFlags::empty())
}

fn expect_same(directory: BorrowedFd<'_>, name: &str, node: &Node, kind: FileType) -> Result<(), Errno> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let same_number = node.kind == NodeKind::Fifo || number == (node.major, node.minor);
    if FileType::from_raw_mode(stat.st_mode) == kind && same_number { Ok(()) } else { Err(Errno::EXIST) }
}

fn bind(root: BorrowedFd<'_>, path: &str, node: BorrowedFd<'_>) -> Result<(), Failure> {
    let (absolute, links) = if path.starts_with('/') {
        (path.to_owned(), links(path))
    } else {
        (format!("/{path}"), Links::Refuse)
    };
    let target = paths::ensure(root, &absolute, Kind::File, links).at(Step::MountTarget, || path)?;
    paths::attach(node, target.as_fd()).at(Step::Mount, || format!("device on {path}"))
}
