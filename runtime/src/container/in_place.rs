//! The root of a container that has no mount namespace of its own: bound over itself where it lies, so that all of its mounts are
//! in one tree there, which is taken away with the container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};
use serde::{Deserialize, Serialize};

use super::error::{During, Error, Result};
use super::store::Entry;
use crate::failure::{Context, Step};
use crate::launch::{Launch, Namespace, Propagation, RootSource};
use crate::sys::mount::{Change, set_attributes};

/// Its file in the state directory.
const FILE: &str = "mounted";

/// Which mount it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mounted {
    /// Where it lies.
    path: String,
    /// Its id, by which nothing else at that path is taken for it.
    mount: u64,
}

/// Binds the root of `launch` over itself if it is to be in this mount namespace, and returns it. From the first thing that can be
/// seen, [`destroy`] finds it.
pub(crate) fn prepare(entry: &Entry, launch: &Launch) -> Result<Option<OwnedFd>> {
    let RootSource::Directory(path) = &launch.root.source else { return Ok(None) };
    if launch.namespaces.mount != Namespace::Host {
        return Ok(None);
    }
    if path == "/" {
        return Err(Error::new(
            "config.json: root.path: / without a mount namespace: the container's mounts would lie on the machine's",
        ));
    }
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let root = open_tree(CWD, path.as_str(), how).at(Step::OpenTree, || path.as_str())?;
    let propagation = match launch.root.propagation {
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Private | Propagation::Shared | Propagation::Unbindable => libc::MS_PRIVATE,
    };
    let alone = Change { propagation, recursive: true, ..Change::default() };
    set_attributes(root.as_fd(), alone).at(Step::MakePrivate, || path.as_str())?;
    let mounted = Mounted { path: path.clone(), mount: id(root.as_fd()).at(Step::Mount, || path.as_str())? };
    entry.write(FILE, &serde_json::to_vec(&mounted).unwrap_or_default())?;
    move_mount(root.as_fd(), "", CWD, path.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::Mount, || format!("{path} on itself"))?;
    // A shared mount above it has made it one of its own kind.
    set_attributes(root.as_fd(), alone).at(Step::MakePrivate, || path.as_str())?;
    Ok(Some(root))
}

/// The root, for another process in the container; `None`: it isn't in this mount namespace.
pub(crate) fn open(entry: &Entry) -> Result<Option<OwnedFd>> {
    let Some(mounted) = find(entry)? else { return Ok(None) };
    Ok(mounted.open().at(Step::Open, || mounted.path.as_str())?)
}

/// Takes the root away with everything on it, if it is there. The container's processes have ended.
pub(crate) fn destroy(entry: &Entry) -> Result<()> {
    let Some(mounted) = find(entry)? else { return Ok(()) };
    let take_away = || match mounted.open()? {
        // By its descriptor: another mount may lie on the path by now.
        Some(root) => rustix::mount::unmount(format!("/proc/self/fd/{}", root.as_raw_fd()), UnmountFlags::DETACH),
        None => Ok(()),
    };
    take_away().during(|| format!("unmount {}", mounted.path))
}

/// What was written down. A runtime that was killed while it wrote has mounted nothing yet.
fn find(entry: &Entry) -> Result<Option<Mounted>> {
    if !entry.may_hold(FILE) {
        return Ok(None);
    }
    Ok(entry.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

impl Mounted {
    /// `None`: somebody has unmounted it, or this is another mount namespace.
    fn open(&self) -> std::result::Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(self.path.as_str(), flags, Mode::empty()) {
            Ok(root) => Ok((id(root.as_fd())? == self.mount).then_some(root)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// The id of the mount that a file is on: one that no other mount gets until the next boot (`STATX_MNT_ID_UNIQUE`, Linux 6.8), else
/// one that none has at the same time.
fn id(file: BorrowedFd<'_>) -> std::result::Result<u64, Errno> {
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | UNIQUE)?;
    Ok(stat.stx_mnt_id)
}
