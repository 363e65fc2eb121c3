//! Emptying a directory that a container has filled, however deep: never more than two levels are open.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Somebody who is just being killed may still make something; not more often than this.
const REFUSALS: u32 = 1000;

/// Removes everything in `directory`, following no links and entering no mounts. Nobody else may be at work in it for long.
/// ETIMEDOUT: `until` came before the end.
///
/// A directory in a directory is moved up before that is removed, so that depth costs neither descriptors nor stack.
pub(super) fn everything_in(directory: BorrowedFd<'_>, until: Option<Instant>) -> Result<(), Errno> {
    let mut moved = 0_u64;
    let mut refusals = 0;
    while refusals < REFUSALS {
        let mut is_empty = true;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            is_empty = false;
            in_time(until)?;
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = rustix::fs::openat2(directory, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
            lift(inside.as_fd(), directory, &mut moved, until)?;
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => refusals += 1,
                other => other?,
            }
        }
        if is_empty {
            return Ok(());
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Removes the files of `inside` and moves its directories to `above`, by names that none has there.
fn lift(inside: BorrowedFd<'_>, above: BorrowedFd<'_>, moved: &mut u64, until: Option<Instant>) -> Result<(), Errno> {
    for entry in Dir::read_from(inside)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        in_time(until)?;
        match rustix::fs::unlinkat(inside, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => {
                other?;
                continue;
            }
        }
        loop {
            *moved += 1;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(inside, name, above, moved.to_string(), flags) {
                Err(Errno::EXIST) => {}
                other => break other?,
            }
        }
    }
    Ok(())
}

fn in_time(until: Option<Instant>) -> Result<(), Errno> {
    if until.is_some_and(|until| Instant::now() > until) { Err(Errno::TIMEDOUT) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_costs_nothing() {
        // In memory: disks take their time for so many directories.
        let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
        let top = rustix::fs::open(scratch.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        // Deeper than a path can say, and than there may be descriptors.
        let mut at = top.try_clone().unwrap();
        for level in 0..3000 {
            let name = if level % 2 == 0 { "1" } else { "directory with a long name" };
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            std::fs::write(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&at)), "x").unwrap();
            at = rustix::fs::openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        everything_in(top.as_fd(), None).unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (inside, outside) = (scratch.path().join("inside"), scratch.path().join("outside"));
        std::fs::create_dir_all(inside.join("deep/er")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "kept").unwrap();
        for link in ["link", "deep/link", "deep/er/link"] {
            std::os::unix::fs::symlink(&outside, inside.join(link)).unwrap();
        }
        let top = rustix::fs::open(&inside, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        everything_in(top.as_fd(), None).unwrap();
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "kept");
    }
}
