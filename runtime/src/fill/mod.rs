//! Filling a new volume with what an image has where the volume is mounted, whole or not at all.
//!
//! May take as long as the disk does: PID 1 has it done by a worker. Paths of the image are hostile: they are resolved beneath the
//! image's root, by descriptor, and the copy is made by the process's own rights, so device nodes and owners come along.

pub(crate) mod copy;
mod source;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Step};
use crate::launcher::volume;
use crate::plan::Fill;

/// Whether the volume has nothing in it: there is no directory, or an empty one.
#[must_use]
pub fn is_needed(fill: &Fill) -> bool {
    match volume::find(&fill.directory) {
        Ok(Some(directory)) => is_empty(directory.as_fd()).unwrap_or(false),
        Ok(None) => true,
        // The launch will meet the same obstacle, and name it.
        Err(_) => false,
    }
}

/// Fills the volume, if it has nothing in it. Nobody may have it mounted.
///
/// It is filled under another name, written to the disk, and renamed: after a power cut there is a whole volume or none. Of
/// several processes one does it, and the others wait.
pub fn fill(fill: &Fill) -> Result<(), Failure> {
    let directory = fill.directory.as_str();
    let (parent, name) = directory.rsplit_once('/').ok_or_else(|| {
        Failure::check(format!("the volume's directory {directory:?} is no absolute path"))
    })?;
    let parent = volume::make_parent(parent).at(Step::FillVolume, || directory)?;
    rustix::fs::flock(&parent, FlockOperation::LockExclusive).at(Step::FillVolume, || directory)?;
    if !is_needed(fill) {
        return Ok(());
    }
    let temporary = format!(".{name}.fill");
    // What a power cut or an error left.
    copy::remove(parent.as_fd(), &temporary).at(Step::FillVolume, || directory)?;
    let filled = make(fill, parent.as_fd(), &temporary).and_then(|()| {
        // An empty directory of that name is replaced.
        let renamed = rustix::fs::renameat(&parent, &temporary, &parent, name).and_then(|()| rustix::fs::fsync(&parent));
        renamed.at(Step::FillVolume, || directory)
    });
    if filled.is_err() {
        // The first error is the one to report; what can't be removed now is removed the next time.
        let _ = copy::remove(parent.as_fd(), &temporary);
    }
    filled
}

/// A whole copy as `temporary`, on the disk.
fn make(fill: &Fill, parent: BorrowedFd<'_>, temporary: &str) -> Result<(), Failure> {
    let source = source::open(fill)?;
    let copy = rustix::fs::mkdirat(parent, temporary, Mode::RWXU).and_then(|()| open(parent, temporary));
    let copy = copy.at(Step::FillVolume, || fill.directory.as_str())?;
    copy::tree(source.as_fd(), copy.as_fd()).map_err(|(path, errno)| {
        Failure::new(Step::FillVolume, format!("{} from {}{path} of the image", fill.directory, fill.path), errno)
    })?;
    rustix::fs::syncfs(&copy).at(Step::FillVolume, || fill.directory.as_str())
}

/// One directory deeper, not through a link.
fn open(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, volume::DIRECTORY | rustix::fs::OFlags::NOFOLLOW, Mode::empty())
}

fn is_empty(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Flags for what lies in a directory and may be a link itself.
const SELF: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
