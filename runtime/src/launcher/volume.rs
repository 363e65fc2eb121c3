//! Absent volume directories: made by descriptor, whole or not at all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Step};
use crate::launch::CreateDir;

/// How directories are opened to look into them.
pub(crate) const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// Absent directories above a volume.
const ANCESTOR: CreateDir = CreateDir { uid: 0, gid: 0, mode: 0o755 };

/// Opens the directory `path` of the machine, made as `create` says if it is absent. Absent directories above it are root's, 0755.
///
/// Nothing in the path may be a symbolic link: a volume's contents are a container's to write.
pub(crate) fn open(path: &str, create: CreateDir) -> Result<OwnedFd, Failure> {
    make(path, create).at(Step::CreateVolume, || path)
}

/// Makes a kept upper's two directories, root's as ids on disk are the container's own.
pub(crate) fn create_upper(path: &str) -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let dir = make(path, CreateDir { uid, gid, mode: 0o700 }).at(Step::CreateVolume, || path)?;
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => {}
            other => other.at(Step::CreateVolume, || format!("{path}/{name}"))?,
        }
    }
    Ok(())
}

/// Makes the directory above volumes, if it is absent.
pub(crate) fn make_parent(path: &str) -> Result<OwnedFd, Errno> {
    make(path, ANCESTOR)
}

/// The directory at `path`, through no link; `None` if it is absent.
pub(crate) fn find(path: &str) -> Result<Option<OwnedFd>, Errno> {
    let mut directory = rustix::fs::open("/", DIRECTORY, Mode::empty())?;
    for name in names(path) {
        directory = match enter(directory.as_fd(), name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
    }
    Ok(Some(directory))
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

fn make(path: &str, create: CreateDir) -> Result<OwnedFd, Errno> {
    let mut directory = rustix::fs::open("/", DIRECTORY, Mode::empty())?;
    let mut names = names(path).peekable();
    while let Some(name) = names.next() {
        directory = match enter(directory.as_fd(), name) {
            Err(Errno::NOENT) => {
                let wanted = if names.peek().is_none() { create } else { ANCESTOR };
                make_one(directory.as_fd(), name, wanted)?
            }
            other => other?,
        };
    }
    Ok(directory)
}

/// One directory deeper, never through a link or upwards.
fn enter(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Made under another name and renamed, so that a crash in between can't leave one with the wrong owner.
///
/// Of several that share a volume one makes it, and the others wait, until that one closes the parent.
fn make_one(parent: BorrowedFd<'_>, name: &str, create: CreateDir) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(parent, FlockOperation::LockExclusive))?;
    match enter(parent, name) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let temporary = format!(".{name}.new");
    match rustix::fs::mkdirat(parent, &temporary, Mode::from_raw_mode(0o700)) {
        // Left by such a crash.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let directory = enter(parent, &temporary)?;
    rustix::fs::fchown(&directory, Some(Uid::from_raw(create.uid)), Some(Gid::from_raw(create.gid)))?;
    // After fchown, which may clear the set-id bits.
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(create.mode & 0o7777))?;
    match rustix::fs::renameat_with(parent, &temporary, parent, name, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => rustix::fs::unlinkat(parent, &temporary, rustix::fs::AtFlags::REMOVEDIR)?,
        other => other?,
    }
    enter(parent, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the workers of containers that share a volume do in a first boot.
    #[test]
    fn whoever_comes_at_the_same_time_gets_the_same_directory() {
        use std::os::unix::fs::MetadataExt;
        let scratch = tempfile::tempdir().unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for round in 0..100 {
            let path = scratch.path().join(format!("{round}/volumes/shared"));
            let path = path.to_str().unwrap();
            let open = || open(path, CreateDir { uid, gid, mode: 0o750 }).map(std::fs::File::from);
            let opened = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect::<Vec<_>>()
            });
            let wanted = std::fs::metadata(path).unwrap();
            assert_eq!(wanted.mode() & 0o7777, 0o750);
            assert!(opened.iter().all(|file| file.metadata().unwrap().ino() == wanted.ino()), "round {round}");
            assert_eq!(std::fs::read_dir(scratch.path().join(format!("{round}/volumes"))).unwrap().count(), 1);
        }
    }
}
