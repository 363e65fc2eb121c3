//! `/dev`: the machine's own nodes, bound one by one, the customary links, and the devices that were declared.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mounts::links;
use super::paths::{Kind, Links};
use super::{paths, rootfs};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Device, DeviceNode, Launch, Node, NodeKind};
use crate::launcher::{Nodes, STANDARD_DEVICES, Tree, Trees, nodes};

/// Links of every `/dev` (runtime spec, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the new filesystem on `/dev`. Nobody but this child has seen it yet, so plain names will do.
pub(crate) fn populate(dev: BorrowedFd<'_>, launch: &Launch, trees: &Trees) -> Result<(), Failure> {
    match &trees.standard_devices {
        Some(devices) => {
            for ((name, _), tree) in STANDARD_DEVICES.iter().zip(devices) {
                show(dev, name, tree.detached()?.as_fd())?;
            }
        }
        None => make_standard(dev, launch)?,
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).at(Step::Create, || format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Makes the standard nodes, which is less work than to bind the machine's, and binds those that it may not make. One that is also
/// declared is made as declared.
fn make_standard(dev: BorrowedFd<'_>, launch: &Launch) -> Result<(), Failure> {
    let owner = owner_of_new(dev);
    STANDARD_DEVICES.iter().try_for_each(|(name, (major, minor))| {
        let usual =
            Node { kind: NodeKind::Character, major: *major, minor: *minor, mode: 0o666, uid: 0, gid: 0 };
        let node = declared(launch, name, &usual).unwrap_or(&usual);
        match make_node(dev, name, node, owner) {
            // No CAP_MKNOD, or the rules for devices forbid it.
            Err(Errno::PERM) => show(dev, name, nodes::standard(name, (*major, *minor), launch)?.detached()?.as_fd()),
            other => other.at(Step::MakeDevice, || format!("/dev/{name}")),
        }
    })
}

/// What is declared of a standard node: the same device, with a mode and an owner.
fn declared<'a>(launch: &'a Launch, name: &str, usual: &Node) -> Option<&'a Node> {
    let mut nodes = launch.devices.iter().filter_map(|device| match &device.node {
        DeviceNode::Numbered(node) if device.target.strip_prefix("/dev/") == Some(name) => Some(node),
        _ => None,
    });
    nodes.find(|node| (node.kind, node.major, node.minor) == (usual.kind, usual.major, usual.minor))
}

/// Binds a node of the machine.
fn show(dev: BorrowedFd<'_>, name: &str, node: BorrowedFd<'_>) -> Result<(), Failure> {
    let object = || format!("device on /dev/{name}");
    rustix::fs::mknodat(dev, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0).at(Step::Create, object)?;
    move_mount(node, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Step::Mount, object)
}

/// The same for a directory of the root, where the image may have put anything, with those that the launcher has opened or, where these
/// are in use, with the machine's once more.
pub(crate) fn add_to(dev: BorrowedFd<'_>, opened: Option<&[Tree]>, launch: &Launch) -> Result<(), Failure> {
    for (index, (name, number)) in STANDARD_DEVICES.iter().enumerate() {
        match opened.and_then(|opened| opened.get(index)) {
            Some(tree) => bind(dev, name, tree.detached()?.as_fd())?,
            None => bind(dev, name, nodes::standard(name, *number, launch)?.detached()?.as_fd())?,
        }
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
                make(root, &device.target, node)?;
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
fn make(root: BorrowedFd<'_>, path: &str, node: &Node) -> Result<(), Failure> {
    let failed = |errno| Failure::new(Step::MakeDevice, path, errno);
    let (parent, name) = path.rsplit_once('/').ok_or_else(|| failed(Errno::INVAL))?;
    let parent = if parent.is_empty() { "/" } else { parent };
    let directory = paths::ensure(root, parent, Kind::Directory, links(path)).map_err(failed)?;
    match make_node(directory.as_fd(), name, node, None) {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let other = difference(&stat, node).map(|what| format!("{path} has incorrect {what}"));
            other.map_or(Ok(()), |other| Err(Failure::new(Step::MakeDevice, other, Errno::EXIST)))
        }
        other => other.map_err(failed),
    }
}

/// Whose what this process makes in a directory is; `None`: the directory may pass on another group.
fn owner_of_new(directory: BorrowedFd<'_>) -> Option<(Uid, Gid)> {
    let group = rustix::process::getegid();
    let passed_on = Gid::from_raw(rustix::fs::fstat(directory).ok()?.st_gid);
    (passed_on == group).then(|| (rustix::process::geteuid(), group))
}

/// Makes one node in a directory that others may write to: whatever they put in its place meanwhile, no link is followed. It is not given to who
/// is the `owner` of what is made there.
fn make_node(directory: BorrowedFd<'_>, name: &str, node: &Node, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    let umask = rustix::process::umask(Mode::empty());
    let number = rustix::fs::makedev(node.major, node.minor);
    let made = rustix::fs::mknodat(directory, name, node.kind.file_type(), Mode::from_raw_mode(node.mode), number);
    rustix::process::umask(umask);
    made?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    // To give it to anybody also takes the bits that would make another of who executes it.
    if owner == Some((uid, gid)) && node.mode & 0o6000 == 0 {
        return Ok(());
    }
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// What the file isn't that the node is.
fn difference(stat: &Stat, node: &Node) -> Option<String> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != node.kind.file_type() {
        Some("ftype".to_owned())
    } else if node.kind != NodeKind::Fifo && (major, minor) != (node.major, node.minor) {
        Some(format!("major:minor: {major}:{minor} doesn't match expected {}:{}", node.major, node.minor))
    } else {
        None
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, OFlags};

    use super::*;

    /// A sibling that writes to the same volume puts a link in the place of a node that was just made.
    #[test]
    fn a_link_in_a_node_s_place_leads_nowhere() {
        const TRIES: usize = 20_000;
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let mode = |mode| std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(mode)).unwrap();
        let changed = || std::fs::metadata(outside.path()).unwrap().permissions().mode() & 0o777 != 0o600;
        let root = rustix::fs::open(volume.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let node = Node { kind: NodeKind::Fifo, major: 0, minor: 0, mode: 0o640, uid, gid };
        let (path, done) = (volume.path().join("node"), AtomicBool::new(false));
        mode(0o600);
        let (mut made, mut caught, mut control) = (0, false, false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = std::fs::remove_file(&path);
                    let _ = symlink(outside.path(), &path);
                    let _ = std::fs::remove_file(&path);
                }
            });
            made = (0..TRIES).filter(|_| make(root.as_fd(), "/node", &node).is_ok()).count();
            caught = changed();
            // Control: to set the mode by name afterwards goes wrong at some point.
            let naive = |_| {
                let _ = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::empty(), 0);
                let _ = rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(node.mode), AtFlags::empty());
                changed()
            };
            control = (0..50 * TRIES).any(naive);
            done.store(true, Ordering::Relaxed);
        });
        assert!(control, "control: it never went wrong");
        assert!(made > 0 && !caught, "{made} made, a file outside changed: {caught}");
    }
}
