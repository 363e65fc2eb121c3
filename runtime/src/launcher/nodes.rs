//! The declared devices: nodes of the container's own, made by the launcher, as a user namespace can't.
//!
//! The machine's node is root's alone, and root's id is nobody's in the container: bound as it is, it could be seen and not be
//! opened. So a small tmpfs gets a node of the same number that belongs to the container's program. What may be done with it is
//! the device filter's to say.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::trees::{self, Tree};
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::{device, filesystem, userns};

/// The nodes of a launch's devices.
#[derive(Debug)]
pub(crate) enum Nodes {
    /// A filesystem that holds one node for each, by its place in the list: [`name`].
    Made(Tree),
    /// The machine's own nodes, where the launcher may make none.
    Bound(Vec<Tree>),
}

/// The name of a made node.
pub(crate) fn name(number: usize) -> String {
    number.to_string()
}

/// Makes them, or opens the machine's.
pub(super) fn open(launch: &Launch) -> Result<Nodes, Failure> {
    if launch.devices.is_empty() {
        return Ok(Nodes::Bound(Vec::new()));
    }
    match make(launch) {
        // An ordinary user, or root of a user namespace.
        Err(failure) if failure.errno == Errno::PERM.raw_os_error() => {
            let bound = launch.devices.iter().map(|device| trees::device(&device.source, None));
            Ok(Nodes::Bound(bound.collect::<Result<_, Failure>>()?))
        }
        made => made,
    }
}

fn make(launch: &Launch) -> Result<Nodes, Failure> {
    let inodes = launch.devices.len().saturating_add(1);
    let options = ["mode=755".to_owned(), "size=4k".to_owned(), format!("nr_inodes={inodes}")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let nodes = filesystem::new("tmpfs", &options, attributes)?;
    for (number, wanted) in launch.devices.iter().enumerate() {
        make_one(launch, nodes.as_fd(), &name(number), &wanted.source)?;
    }
    Ok(Nodes::Made(Tree::Detached(nodes)))
}

/// A node as the machine's at `source`, but the program's.
fn make_one(launch: &Launch, nodes: BorrowedFd<'_>, name: &str, source: &str) -> Result<(), Failure> {
    let found = device::find(source)?;
    let kind = if found.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(found.mode & 0o777);
    let number = rustix::fs::makedev(found.major, found.minor);
    rustix::fs::mknodat(nodes, name, kind, mode, number).at(Step::MakeDevice, || source)?;
    let ids = launch.ids.as_ref();
    let uid = userns::outside(launch.process.uid, ids.map(|ids| ids.uids.as_slice())).map(Uid::from_raw);
    let gid = userns::outside(launch.process.gid, ids.map(|ids| ids.gids.as_slice())).map(Gid::from_raw);
    rustix::fs::chownat(nodes, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).at(Step::MakeDevice, || source)?;
    // The launcher's umask is no concern of the container's.
    rustix::fs::chmodat(nodes, name, mode, AtFlags::empty()).at(Step::MakeDevice, || source)
}
