//! Everything of the machine that a container gets to see, opened by the launcher as detached mounts.
//!
//! The launcher's own mount namespace gets no mounts by it, and the child needs no right to reach the paths.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::nodes::{self, Nodes};
use super::volume;
use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, MountFlags, MountSource, RootSource, Upper};
use crate::sys::mount::{Change, set_attributes};

/// The nodes that every `/dev` has: name, device number.
pub(crate) const STANDARD_DEVICES: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// A file or directory tree of the machine, as a mount that is nowhere yet.
#[derive(Debug)]
pub(crate) enum Tree {
    /// Cloned by the launcher.
    Detached(OwnedFd),
    /// For the child to clone: an ordinary user has that right only in the child's namespaces.
    Path {
        /// Absolute path.
        path: String,
        /// With the mounts beneath it.
        recursive: bool,
        /// Attributes to set.
        attributes: u64,
    },
}

impl Tree {
    /// The detached mount. It can be attached once.
    pub(crate) fn detached(&self) -> Result<Mount<'_>, Failure> {
        match self {
            Self::Detached(fd) => Ok(Mount::OfLauncher(fd.as_fd())),
            Self::Path { path, recursive, attributes } => clone(path, *recursive, *attributes, None).map(Mount::Own),
        }
    }
}

/// A mount by its descriptor.
#[derive(Debug)]
pub(crate) enum Mount<'a> {
    /// The launcher's copy, from before the fork.
    OfLauncher(BorrowedFd<'a>),
    /// The child's.
    Own(OwnedFd),
}

impl AsFd for Mount<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::OfLauncher(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// All of a launch's trees, in its order.
#[derive(Debug)]
pub(crate) struct Trees {
    /// The root directory, if it is one.
    pub(crate) root: Option<Tree>,
    /// The layers, topmost first.
    pub(crate) layers: Vec<Tree>,
    /// The directory of a kept upper.
    pub(crate) upper: Option<Tree>,
    /// One per mount of the launch: what is bound.
    pub(crate) binds: Vec<Option<Tree>>,
    /// [`STANDARD_DEVICES`].
    pub(crate) standard_devices: Vec<Tree>,
    /// The declared devices.
    pub(crate) devices: Nodes,
}

impl Trees {
    /// Opens them all. `userns` maps what is to be mapped; `None`: nothing is.
    pub(crate) fn open(launch: &Launch, userns: Option<BorrowedFd<'_>>) -> Result<Self, Failure> {
        let mut trees = Self {
            root: None,
            layers: Vec::new(),
            upper: None,
            binds: Vec::with_capacity(launch.mounts.len()),
            standard_devices: Vec::with_capacity(STANDARD_DEVICES.len()),
            devices: nodes::open(launch)?,
        };
        match &launch.root.source {
            RootSource::Directory(path) => trees.root = Some(tree(path, true, 0, None)?),
            RootSource::Layers { layers, upper } => {
                for layer in layers {
                    trees.layers.push(tree(layer, false, libc::MOUNT_ATTR_RDONLY, userns)?);
                }
                if let Upper::Directory(path) = upper {
                    volume::create_upper(path)?;
                    trees.upper = Some(tree(path, false, libc::MOUNT_ATTR_NODEV, userns)?);
                }
            }
        }
        for mount in &launch.mounts {
            trees.binds.push(match &mount.source {
                MountSource::Filesystem { .. } => None,
                MountSource::Bind { path, recursive, idmap, create } => {
                    if let Some(create) = create {
                        volume::create(path, *create)?;
                    }
                    Some(tree(path, *recursive, attributes(mount.flags), userns.filter(|_| *idmap))?)
                }
            });
        }
        for (name, number) in STANDARD_DEVICES {
            trees.standard_devices.push(device(&format!("/dev/{name}"), Some(number))?);
        }
        Ok(trees)
    }
}

/// The `MOUNT_ATTR_*` bits of `flags`.
pub(crate) fn attributes(flags: MountFlags) -> u64 {
    let bits = [
        (flags.readonly, libc::MOUNT_ATTR_RDONLY),
        (flags.nosuid, libc::MOUNT_ATTR_NOSUID),
        (flags.nodev, libc::MOUNT_ATTR_NODEV),
        (flags.noexec, libc::MOUNT_ATTR_NOEXEC),
        (flags.noatime, libc::MOUNT_ATTR_NOATIME),
    ];
    bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit)
}

/// A device node of the machine.
pub(super) fn device(path: &str, number: Option<(u32, u32)>) -> Result<Tree, Failure> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let tree = tree(path, false, attributes, None)?;
    let opened;
    let fd = match &tree {
        Tree::Detached(fd) => fd.as_fd(),
        Tree::Path { .. } => {
            opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Step::Open, || path)?;
            opened.as_fd()
        }
    };
    match number {
        Some(number) => expect_device(fd, path, number)?,
        None => {
            let stat = rustix::fs::fstat(fd).at(Step::Open, || path)?;
            if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::CharacterDevice | FileType::BlockDevice) {
                return Err(Failure::check(format!("{path} on the machine is no device node")));
            }
        }
    }
    Ok(tree)
}

/// Refuses a file that isn't the character device of this number, whatever its name is.
pub(crate) fn expect_device(fd: BorrowedFd<'_>, path: &str, (major, minor): (u32, u32)) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(fd).at(Step::Open, || path)?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_character && rustix::fs::major(stat.st_rdev) == major && rustix::fs::minor(stat.st_rdev) == minor {
        return Ok(());
    }
    Err(Failure::check(format!("{path} on the machine isn't the character device {major}:{minor}")))
}

/// A tree cloned here or, where that isn't allowed and nothing has to be mapped, by the child.
fn tree(path: &str, recursive: bool, attributes: u64, userns: Option<BorrowedFd<'_>>) -> Result<Tree, Failure> {
    match clone(path, recursive, attributes, userns) {
        Ok(fd) => Ok(Tree::Detached(fd)),
        Err(failure)
            if failure.errno == Errno::PERM.raw_os_error() && !rustix::process::geteuid().is_root() =>
        {
            Ok(Tree::Path { path: path.to_owned(), recursive, attributes })
        }
        Err(failure) => Err(failure),
    }
}

/// Clones the mount of `path`, from there on.
fn clone(path: &str, recursive: bool, attributes: u64, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failure> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, path, flags).at(Step::OpenTree, || path)?;
    if let Some(userns) = userns {
        // What is mounted beneath it keeps its ids; attributes go deeper.
        let change = Change { userns: Some(userns), set: if recursive { 0 } else { attributes }, ..Change::default() };
        set_attributes(tree.as_fd(), change).at(Step::IdMapMount, || path)?;
    }
    if attributes != 0 && (recursive || userns.is_none()) {
        let change = Change { set: attributes, recursive, ..Change::default() };
        set_attributes(tree.as_fd(), change).at(Step::MountAttributes, || path)?;
    }
    Ok(tree)
}
