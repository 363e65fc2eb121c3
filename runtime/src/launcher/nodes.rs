//! The declared devices: nodes of the container's own, made by the launcher, as a user namespace can't.
//!
//! The machine's node is root's alone, and root's id is nobody's in the container: bound as it is, it could be seen and not be
//! opened. So a small tmpfs gets a node of the same number that belongs to the container's program. What may be done with it is
//! the device filter's to say.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::trees::{self, Tree};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Device, DeviceNode, IdMap, Launch, Mount, MountSource, Node, NodeKind};
use crate::{device, filesystem, userns};

/// The nodes of a launch's devices.
#[derive(Debug)]
pub(crate) enum Nodes {
    /// A filesystem that holds one node for each that isn't the child's to make, by its place in the list: [`name`].
    Made(Tree),
    /// The machine's own nodes, where the launcher may make none. `None`: the child's to make.
    Bound(Vec<Option<Tree>>),
}

/// The name of a made node.
pub(crate) fn name(number: usize) -> String {
    number.to_string()
}

/// Whether the child makes the node itself: pipes anybody may make, devices the machine's root.
pub(crate) fn is_childs(launch: &Launch, device: &Device) -> bool {
    match &device.node {
        DeviceNode::Machine(_) => false,
        DeviceNode::Numbered(node) => node.kind == NodeKind::Fifo || !launch.in_user_namespace(),
    }
}

/// Whether the child can make the nodes of `/dev` itself: it is the machine's root, and `/dev` a filesystem of its own on which
/// devices are allowed.
pub(super) fn standard_are_childs(launch: &Launch) -> bool {
    let suits = |mount: &Mount| {
        let set = mount.flags.own.set | mount.flags.tree.set;
        matches!(mount.source, MountSource::Filesystem { .. }) && set & libc::MOUNT_ATTR_NODEV == 0
    };
    let mut on_dev = launch.mounts.iter().filter(|mount| mount.target.trim_end_matches('/') == "/dev");
    !launch.in_user_namespace() && on_dev.next().is_some_and(suits) && on_dev.next().is_none()
}

/// The machine's node of one of [`trees::STANDARD_DEVICES`].
pub(crate) fn standard(name: &str, number: (u32, u32), launch: &Launch) -> Result<Tree, Failure> {
    trees::device(&format!("/dev/{name}"), Some(number), launch)
}

/// Makes them, or opens the machine's.
pub(super) fn open(launch: &Launch) -> Result<Nodes, Failure> {
    if launch.devices.iter().all(|device| is_childs(launch, device)) {
        return Ok(Nodes::Bound(launch.devices.iter().map(|_| None).collect()));
    }
    match make(launch) {
        // An ordinary user, or root of a user namespace. What the machine shows it is what it may use.
        Err(failure) if failure.errno == Errno::PERM.raw_os_error() => {
            let bound = |device: &Device| match &device.node {
                _ if is_childs(launch, device) => Ok(None),
                DeviceNode::Machine(source) => trees::device(source, None, launch).map(Some),
                DeviceNode::Numbered(node) => trees::device(&device.target, Some((node.major, node.minor)), launch).map(Some),
            };
            Ok(Nodes::Bound(launch.devices.iter().map(bound).collect::<Result<_, Failure>>()?))
        }
        made => made,
    }
}

fn make(launch: &Launch) -> Result<Nodes, Failure> {
    let inodes = launch.devices.len().saturating_add(1);
    let options = ["mode=755".to_owned(), "size=4k".to_owned(), format!("nr_inodes={inodes}")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let nodes = filesystem::new("tmpfs", &options, attributes)?;
    for (number, device) in launch.devices.iter().enumerate().filter(|(_, device)| !is_childs(launch, device)) {
        let node = match &device.node {
            DeviceNode::Numbered(node) => *node,
            DeviceNode::Machine(source) => as_found(source)?,
        };
        make_one(nodes.as_fd(), &name(number), &node).at(Step::MakeDevice, || device.target.as_str())?;
    }
    Ok(Nodes::Made(Tree::Detached(nodes)))
}

/// As the machine's at `source`.
fn as_found(source: &str) -> Result<Node, Failure> {
    let found = device::find(source)?;
    Ok(Node {
        kind: if found.block { NodeKind::Block } else { NodeKind::Character },
        major: found.major,
        minor: found.minor,
        mode: found.mode & 0o777,
        uid: 0,
        gid: 0,
    })
}

/// Gives made nodes to whom they are declared for, the machine's to the program. `ids` is what the container's ids are outside, which
/// a namespace that is joined tells of a process in it only; the nodes' mount is there already.
pub(super) fn give(launch: &Launch, nodes: &Nodes, ids: Option<&IdMap>) -> Result<(), Failure> {
    let Nodes::Made(filesystem) = nodes else { return Ok(()) };
    let filesystem = filesystem.detached()?;
    for (number, device) in launch.devices.iter().enumerate().filter(|(_, device)| !is_childs(launch, device)) {
        let (uid, gid) = match &device.node {
            DeviceNode::Numbered(node) => (node.uid, node.gid),
            DeviceNode::Machine(_) => (launch.process.uid, launch.process.gid),
        };
        let uid = userns::outside(uid, ids.map(|ids| ids.uids.as_slice())).map(Uid::from_raw);
        let gid = userns::outside(gid, ids.map(|ids| ids.gids.as_slice())).map(Gid::from_raw);
        rustix::fs::chownat(filesystem.as_fd(), name(number), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .at(Step::MakeDevice, || device.target.as_str())?;
    }
    Ok(())
}

/// One node, root's for now.
fn make_one(nodes: BorrowedFd<'_>, name: &str, node: &Node) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(node.mode);
    rustix::fs::mknodat(nodes, name, node.kind.file_type(), mode, rustix::fs::makedev(node.major, node.minor))?;
    // The launcher's umask is no concern of the container's.
    rustix::fs::chmodat(nodes, name, mode, AtFlags::empty())
}
