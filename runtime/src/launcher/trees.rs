//! Everything of the machine that a container gets to see, opened by the launcher as detached mounts.
//!
//! The launcher's own mount namespace gets no mounts by it, and the child needs no right to reach the paths.

use std::borrow::Cow;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::dress::{Mapping, dress};
use super::nodes::{self, Nodes};
use super::volume;
use crate::failure::{Context, Failure, Step};
use crate::launch::{
    Attributes, EndLinks, IdMapping, Launch, MountFlags, MountSource, Namespace, Propagation, RootSource, Upper,
};
use crate::start::Site;
use crate::userns;

/// The nodes that every `/dev` has: name, device number.
pub(crate) const STANDARD_DEVICES: [(&str, (u32, u32)); 6] =
    [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// A file or directory tree of the machine, as a mount that is nowhere yet.
#[derive(Debug)]
pub(crate) enum Tree {
    /// Cloned by the launcher.
    Detached(OwnedFd),
    /// The same, before [`Trees::give_ids`].
    Unmapped {
        /// The mount, without anything of what follows.
        mount: OwnedFd,
        /// What it was cloned from.
        path: String,
        /// With the mounts beneath it.
        recursive: bool,
        /// Those get ids, too.
        all: bool,
        /// What it will allow.
        flags: MountFlags,
    },
    /// A symbolic link, by what it says, for the child to make.
    Link(CString),
    /// For the child to clone: an ordinary user has that right only in the child's namespaces.
    Path {
        /// Absolute path.
        path: String,
        /// A symbolic link there is not followed.
        link: bool,
        /// With the mounts beneath it.
        recursive: bool,
        /// What it allows.
        flags: MountFlags,
    },
}

impl Tree {
    /// The detached mount. It can be attached once.
    pub(crate) fn detached(&self) -> Result<Mount<'_>, Failure> {
        match self {
            Self::Detached(fd) | Self::Unmapped { mount: fd, .. } => Ok(Mount::OfLauncher(fd.as_fd())),
            Self::Path { path, link, recursive, flags } => {
                clone(Place { path, opened: None, link: *link }, *recursive, flags, None).map(Mount::Own)
            }
            Self::Link(_) => Err(Failure::check("a symbolic link isn't mounted")),
        }
    }
}

/// A detached mount of a place in the container, which the child has opened; `path` is its name there.
pub(crate) fn of_container<'a>(
    place: BorrowedFd<'_>,
    path: &str,
    recursive: bool,
    flags: &MountFlags,
) -> Result<Mount<'a>, Failure> {
    clone(Place { path, opened: Some(place), link: false }, recursive, flags, None).map(Mount::Own)
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
    /// One per mount of the launch: what is bound, or what is bound instead where a filesystem can't be mounted.
    pub(crate) binds: Vec<Option<Tree>>,
    /// [`STANDARD_DEVICES`]; `None`: the child's to make.
    pub(crate) standard_devices: Option<Vec<Tree>>,
    /// The declared devices.
    pub(crate) devices: Nodes,
}

impl Trees {
    /// Opens them all, as far as the site hasn't. `joined` is the container's user namespace, if there is one already.
    pub(crate) fn open(
        launch: &Launch,
        joined: Option<BorrowedFd<'_>>,
        site: &Site<'_>,
    ) -> Result<Self, Failure> {
        let of_container = |place: Place<'_>, recursive, flags: &MountFlags, all| match joined {
            Some(userns) => tree(place, recursive, flags, Some((userns, all))),
            None if launch.in_user_namespace() => unmapped(place, recursive, flags, all),
            // Without a user namespace ids inside are those on disk.
            None => tree(place, recursive, flags, None),
        };
        let mut trees = Self {
            root: None,
            layers: Vec::new(),
            upper: None,
            binds: Vec::with_capacity(launch.mounts.len()),
            standard_devices: None,
            devices: nodes::open(launch)?,
        };
        match &launch.root.source {
            RootSource::Directory(_) if site.root.is_some() => {
                let copy = site.root.map(|root| rustix::io::fcntl_dupfd_cloexec(root, 3)).transpose();
                trees.root = copy.at(Step::Open, || "the mounted root")?.map(Tree::Detached);
            }
            RootSource::Directory(path) => {
                let propagation = match launch.root.propagation {
                    Propagation::Slave => vec![SLAVE],
                    // The others are said of the finished root.
                    Propagation::Private | Propagation::Shared | Propagation::Unbindable => Vec::new(),
                };
                let flags = MountFlags { propagation, ..MountFlags::default() };
                trees.root = Some(tree(path.as_str(), true, &flags, None)?);
            }
            RootSource::Layers { layers, upper } => {
                let is_root = rustix::process::geteuid().is_root();
                let part = |path: &str, attribute| match is_root {
                    true => of_container(path.into(), false, &with(attribute), false),
                    // An ordinary user's have the ids that they have on disk.
                    false => tree(path, false, &with(attribute), None),
                };
                for layer in layers {
                    trees.layers.push(part(layer, libc::MOUNT_ATTR_RDONLY)?);
                }
                if let Upper::Directory(path) = upper {
                    volume::create_upper(path)?;
                    trees.upper = Some(part(path, libc::MOUNT_ATTR_NODEV)?);
                }
            }
        }
        for (index, mount) in launch.mounts.iter().enumerate() {
            let mut flags = Cow::Borrowed(&mount.flags);
            if launch.closes_late(index) {
                flags.to_mut().own.set &= !libc::MOUNT_ATTR_RDONLY;
            }
            trees.binds.push(match &mount.source {
                MountSource::Filesystem { fstype, .. } => instead_of(launch, fstype, &mount.flags)?,
                MountSource::Inside { .. } | MountSource::Existing { .. } => None,
                MountSource::Bind { path, recursive, idmap, links, create } => {
                    if *links == EndLinks::Copied
                        && let Some(link) = link_at(path)?
                    {
                        trees.binds.push(Some(Tree::Link(link)));
                        continue;
                    }
                    let opened = site.volumes.iter().find(|(of, _)| of == path).map(|(_, volume)| volume.as_fd());
                    if let (Some(create), None) = (create, opened) {
                        volume::open(path, *create)?;
                    }
                    let place = Place { path, opened, link: matches!(links, EndLinks::Kept { source: true, .. }) };
                    Some(match idmap {
                        IdMapping::None => tree(place, *recursive, &flags, None)?,
                        IdMapping::Container { recursive: all } => of_container(place, *recursive, &flags, *all)?,
                        IdMapping::Own { ids, recursive: all } => {
                            let userns = userns::create(ids)?;
                            tree(place, *recursive, &flags, Some((userns.as_fd(), *all)))?
                        }
                    })
                }
            });
        }
        if !nodes::standard_are_childs(launch) {
            let devices = STANDARD_DEVICES.into_iter().map(|(name, number)| nodes::standard(name, number, launch));
            trees.standard_devices = Some(devices.collect::<Result<_, Failure>>()?);
        }
        Ok(trees)
    }

    /// Maps what was opened before there was the user namespace of the child `pid`. It has copies of the descriptors, and so the
    /// same mounts.
    pub(super) fn give_ids(&self, pid: i32) -> Result<(), Failure> {
        let all = self.layers.iter().chain(&self.upper).chain(self.binds.iter().flatten());
        let unmapped = all.filter_map(|tree| match tree {
            Tree::Unmapped { mount, path, recursive, all, flags } => Some((mount, path, *recursive, *all, flags)),
            Tree::Detached(_) | Tree::Link(_) | Tree::Path { .. } => None,
        });
        let mut unmapped = unmapped.peekable();
        if unmapped.peek().is_none() {
            return Ok(());
        }
        let userns = userns::of(pid)?;
        for (mount, path, recursive, all, flags) in unmapped {
            let map = Some((userns.as_fd(), all));
            dress(mount.as_fd(), flags, recursive, map).at(Step::IdMapMount, || path.as_str())?;
        }
        Ok(())
    }
}

#[cfg(feature = "cli")]
impl Trees {
    /// Of layers alone and an upper whose directories are there, all with the ids that they have on disk.
    pub(crate) fn of_layers(launch: &Launch, layers: &[String], upper: &str) -> Result<Self, Failure> {
        let read_only = with(libc::MOUNT_ATTR_RDONLY);
        Ok(Self {
            root: None,
            layers: layers.iter().map(|layer| tree(layer.as_str(), false, &read_only, None)).collect::<Result<_, _>>()?,
            upper: Some(tree(upper, false, &MountFlags::default(), None)?),
            binds: Vec::new(),
            standard_devices: None,
            devices: nodes::open(launch)?,
        })
    }
}

/// What a tree is cloned from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its path, at least for people.
    path: &'a str,
    /// It is open: nothing is looked up, so that no disk is waited for.
    opened: Option<BorrowedFd<'a>>,
    /// A symbolic link at its end is it.
    link: bool,
}

impl<'a> From<&'a str> for Place<'a> {
    fn from(path: &'a str) -> Self {
        Self { path, opened: None, link: false }
    }
}

/// What the symbolic link at this path says; `None`: it is none.
fn link_at(path: &str) -> Result<Option<CString>, Failure> {
    match rustix::fs::readlinkat(CWD, path, Vec::new()) {
        Ok(link) => Ok(Some(link)),
        Err(Errno::INVAL) => Ok(None),
        Err(errno) => Err(Failure::new(Step::Open, path, errno)),
    }
}

/// What the machine has where a user namespace can't mount a filesystem of namespaces that it doesn't own. The launcher may be in
/// one, too, so only the kernel knows whether it is needed.
fn instead_of(launch: &Launch, fstype: &str, flags: &MountFlags) -> Result<Option<Tree>, Failure> {
    let namespaces = &launch.namespaces;
    let (namespace, path) = match fstype {
        "sysfs" => (&namespaces.network, "/sys"),
        "proc" => (&namespaces.pid, "/proc"),
        "mqueue" => (&namespaces.ipc, "/dev/mqueue"),
        "cgroup2" => (&namespaces.cgroup, "/sys/fs/cgroup"),
        _ => return Ok(None),
    };
    if *namespace == Namespace::New {
        return Ok(None);
    }
    // What is denied on it is denied beneath, where a mount of its own would have had nothing. However it is to spread, it does so in the
    // container only: that is said of it when it is there.
    let flags = MountFlags { tree: flags.own, propagation: Vec::new(), ..flags.clone() };
    match tree(path, true, &flags, None) {
        Err(failure) if failure.errno == Errno::NOENT.raw_os_error() => Ok(None),
        other => other.map(Some),
    }
}

/// Private, with these bits set.
fn with(bits: u64) -> MountFlags {
    MountFlags { own: Attributes { set: bits, clear: 0 }, ..MountFlags::default() }
}

/// `MS_SLAVE | MS_REC` of `linux/mount.h`.
const SLAVE: u32 = 0x8_4000;

/// A device node of the machine, which must have this number if one is given. Read-only where the container's root may be the machine's:
/// that doesn't keep anybody from writing to the device, but that root from changing the machine's node, its mode and its owner.
pub(super) fn device(path: &str, number: Option<(u32, u32)>, launch: &Launch) -> Result<Tree, Failure> {
    let guard = if launch.has_other_root() { 0 } else { libc::MOUNT_ATTR_RDONLY };
    let attributes = guard | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let tree = tree(path, false, &with(attributes), None)?;
    let opened;
    let fd = match &tree {
        Tree::Detached(fd) | Tree::Unmapped { mount: fd, .. } => fd.as_fd(),
        Tree::Path { .. } | Tree::Link(_) => {
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
pub(super) fn tree<'a>(
    place: impl Into<Place<'a>>,
    recursive: bool,
    flags: &MountFlags,
    map: Mapping<'_>,
) -> Result<Tree, Failure> {
    let place = place.into();
    match clone(place, recursive, flags, map) {
        Ok(fd) => Ok(Tree::Detached(fd)),
        Err(failure)
            if failure.errno == Errno::PERM.raw_os_error()
                && map.is_none()
                && !rustix::process::geteuid().is_root() =>
        {
            Ok(Tree::Path { path: place.path.to_owned(), link: place.link, recursive, flags: flags.clone() })
        }
        Err(failure) => Err(failure),
    }
}

/// A tree for [`Trees::give_ids`].
fn unmapped(place: Place<'_>, recursive: bool, flags: &MountFlags, all: bool) -> Result<Tree, Failure> {
    let mount = open(place, recursive)?;
    Ok(Tree::Unmapped { mount, path: place.path.to_owned(), recursive, all, flags: flags.clone() })
}

/// Clones the mount of a place, from there on.
fn clone(place: Place<'_>, recursive: bool, flags: &MountFlags, map: Mapping<'_>) -> Result<OwnedFd, Failure> {
    let tree = open(place, recursive)?;
    let step = if map.is_some() { Step::IdMapMount } else { Step::MountAttributes };
    dress(tree.as_fd(), flags, recursive, map).at(step, || place.path)?;
    Ok(tree)
}

/// The same as it is.
fn open(place: Place<'_>, recursive: bool) -> Result<OwnedFd, Failure> {
    let mut how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        how |= OpenTreeFlags::AT_RECURSIVE;
    }
    if place.link {
        how |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    let tree = match place.opened {
        Some(opened) => open_tree(opened, "", how | OpenTreeFlags::AT_EMPTY_PATH),
        None => open_tree(CWD, place.path, how),
    };
    tree.at(Step::OpenTree, || place.path)
}
