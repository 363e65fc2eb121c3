//! Paths inside a root filesystem: resolved beneath it by the kernel, made where absent, handed on as descriptors.
//!
//! The image, and whoever else can write to a volume, may have put any link there and may be changing it right now. So a
//! path is walked once, by openat2(2) (Linux 5.6), and what was found is what is mounted on.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// Whether symbolic links are followed (inside the root).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// As a program in the container would.
    Follow,
    /// The same, but a link at the end is what is meant.
    KeepLast,
    /// A link anywhere is ELOOP.
    Refuse,
}

/// Links followed while making directories; the kernel's own limit.
const MAX_LINKS: u32 = 40;
/// As many components as anybody has that aren't there.
const MAX_LEVELS: u32 = 256;
/// Tries against somebody who keeps renaming directories under our feet (openat2's EAGAIN).
const MAX_RACES: u32 = 1000;

/// Opens `path` beneath `root` as a place (`O_PATH`).
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &str, links: Links) -> Result<OwnedFd, Errno> {
    resolve_kind(root, path, Kind::File, links)
}

/// How a place is opened. What should be a directory and isn't is ENOTDIR.
fn place(kind: Kind, links: Links) -> OFlags {
    let mut place = OFlags::PATH | OFlags::CLOEXEC;
    if links == Links::KeepLast {
        place |= OFlags::NOFOLLOW;
    }
    if kind == Kind::Directory { place | OFlags::DIRECTORY } else { place }
}

fn resolve_kind(root: BorrowedFd<'_>, path: &str, kind: Kind, links: Links) -> Result<OwnedFd, Errno> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refuse {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    let mut races: u32 = 0;
    loop {
        match rustix::fs::openat2(root, path, place(kind, links), Mode::empty(), how) {
            Err(Errno::AGAIN) if races < MAX_RACES => races = races.saturating_add(1),
            other => return other,
        }
    }
}

/// Attaches a detached mount to a place. Both are descriptors: no name is looked up again.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Opens `path` beneath `root`, made with its parents where absent: directories 0755, files empty and 0644. Both wrong kinds are ENOTDIR, as
/// with mount(2): clients know them by that word.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &str, kind: Kind, links: Links) -> Result<OwnedFd, Errno> {
    let place = ensure_within(root, path, kind, links, Budget { links: MAX_LINKS, levels: MAX_LEVELS })?;
    let is_directory =
        |stat: rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    match kind {
        Kind::File if rustix::fs::fstat(&place).map(is_directory)? => Err(Errno::NOTDIR),
        _ => Ok(place),
    }
}

/// How far [`ensure`] goes on.
#[derive(Clone, Copy)]
struct Budget {
    /// So many links that lead nowhere yet.
    links: u32,
    /// So many components that have to be made, one level of the stack for each.
    levels: u32,
}

fn ensure_within(root: BorrowedFd<'_>, path: &str, kind: Kind, links: Links, budget: Budget) -> Result<OwnedFd, Errno> {
    match resolve_kind(root, path, kind, links) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path).ok_or(Errno::NOENT)?;
    if name == ".." {
        return Err(Errno::NOENT);
    }
    let levels = budget.levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let budget = Budget { levels, ..budget };
    let directory = ensure_within(root, parent, Kind::Directory, above(links), budget)?;
    match make(directory.as_fd(), name, kind) {
        Ok(()) => {}
        Err(Errno::EXIST) if links == Links::Follow => {
            // A link that leads nowhere yet: make what it names, still beneath the root.
            if let Ok(target) = rustix::fs::readlinkat(directory.as_fd(), name, Vec::new()) {
                let target = target.to_str().map_err(|_| Errno::INVAL)?;
                let target = if target.starts_with('/') { target.to_owned() } else { format!("{parent}/{target}") };
                let left = budget.links.checked_sub(1).ok_or(Errno::LOOP)?;
                return ensure_within(root, &target, kind, links, Budget { links: left, ..budget });
            }
        }
        // Somebody else made it meanwhile.
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // What was just made, not what its name may lead to by now.
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(&directory, name, place(kind, links), Mode::empty(), how)
}

/// What is done about links on the way.
fn above(links: Links) -> Links {
    if links == Links::KeepLast { Links::Follow } else { links }
}

/// Makes a symbolic link at `path` beneath `root` that says `content`, with the directories above it. The same link there already is it.
pub(crate) fn ensure_link(root: BorrowedFd<'_>, path: &str, content: &CStr, links: Links) -> Result<(), Errno> {
    let (parent, name) = split(path).ok_or(Errno::EXIST)?;
    let directory = ensure(root, parent, Kind::Directory, above(links))?;
    match rustix::fs::symlinkat(content, &directory, name) {
        Err(Errno::EXIST) => match rustix::fs::readlinkat(&directory, name, Vec::new()) {
            Ok(there) if there.as_c_str() == content => Ok(()),
            _ => Err(Errno::EXIST),
        },
        other => other,
    }
}

/// Makes one directory entry, never through a link.
fn make(directory: BorrowedFd<'_>, name: &str, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Parent and last component.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/')?;
    Some((if parent.is_empty() { "/" } else { parent }, name)).filter(|(_, name)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, read_link, write};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Fixture {
        _dir: tempfile::TempDir,
        root: PathBuf,
        outside: PathBuf,
        fd: OwnedFd,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        create_dir(&root).unwrap();
        create_dir(&outside).unwrap();
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Fixture { _dir: dir, root, outside, fd }
    }

    fn path_of(fd: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    #[test]
    fn absent_parents_and_the_target_are_made() {
        let f = fixture();
        let place = ensure(f.fd.as_fd(), "/a/b/c", Kind::Directory, Links::Refuse).unwrap();
        assert_eq!(path_of(&place), f.root.join("a/b/c"));
        let place = ensure(f.fd.as_fd(), "/a/b/file", Kind::File, Links::Follow).unwrap();
        assert_eq!(path_of(&place), f.root.join("a/b/file"));
    }

    #[test]
    fn links_lead_no_further_than_the_root() {
        let f = fixture();
        symlink(&f.outside, f.root.join("absolute")).unwrap();
        symlink("../../outside", f.root.join("relative")).unwrap();
        for name in ["absolute", "relative"] {
            let place = ensure(f.fd.as_fd(), &format!("/{name}/made"), Kind::Directory, Links::Follow).unwrap();
            assert!(path_of(&place).starts_with(&f.root), "{name} led to {}", path_of(&place).display());
        }
        assert_eq!(std::fs::read_dir(&f.outside).unwrap().count(), 0);
        // The same attack on plain path strings succeeds.
        create_dir(f.root.join("absolute/made")).unwrap();
        assert!(f.outside.join("made").exists());
    }

    #[test]
    fn a_strict_path_has_no_link_anywhere() {
        let f = fixture();
        symlink("elsewhere", f.root.join("proc")).unwrap();
        let refused = ensure(f.fd.as_fd(), "/proc", Kind::Directory, Links::Refuse).err();
        assert_eq!(refused, Some(Errno::LOOP));
        let refused = ensure(f.fd.as_fd(), "/proc/sys", Kind::Directory, Links::Refuse).err();
        assert_eq!(refused, Some(Errno::LOOP));
        assert!(ensure(f.fd.as_fd(), "/proc", Kind::Directory, Links::Follow).is_ok());
        assert!(f.root.join("elsewhere").is_dir());
    }

    #[test]
    fn a_link_at_the_end_may_be_what_is_meant() {
        let f = fixture();
        symlink("nowhere", f.root.join("link")).unwrap();
        symlink(".", f.root.join("here")).unwrap();
        let place = |path: &str| ensure(f.fd.as_fd(), path, Kind::File, Links::KeepLast).map(|fd| path_of(&fd));
        assert_eq!(place("/here/link"), Ok(f.root.join("link")));
        assert_eq!(place("/here/made/file"), Ok(f.root.join("made/file")));
        assert_eq!(ensure(f.fd.as_fd(), "/link", Kind::Directory, Links::KeepLast).err(), Some(Errno::NOTDIR));
        assert!(!f.root.join("nowhere").exists());
    }

    #[test]
    fn links_are_made_in_the_root_and_over_nothing() {
        let f = fixture();
        symlink(&f.outside, f.root.join("absolute")).unwrap();
        let make = |path: &str, content: &CStr| ensure_link(f.fd.as_fd(), path, content, Links::Follow);
        assert_eq!(make("/absolute/deep/link", c"/etc/passwd"), Ok(()));
        assert_eq!(std::fs::read_dir(&f.outside).unwrap().count(), 0);
        assert_eq!(make("/absolute/deep/link", c"/etc/passwd"), Ok(()), "once more");
        assert_eq!(make("/absolute/deep/link", c"/etc/shadow"), Err(Errno::EXIST));
        write(f.root.join("file"), "").unwrap();
        assert_eq!(make("/file", c"x"), Err(Errno::EXIST));
        assert_eq!(make("/", c"x"), Err(Errno::EXIST));
    }

    #[test]
    fn endless_links_and_wrong_kinds_are_errors() {
        let f = fixture();
        symlink("loop", f.root.join("loop")).unwrap();
        assert_eq!(ensure(f.fd.as_fd(), "/loop/x", Kind::Directory, Links::Follow).err(), Some(Errno::LOOP));
        symlink("a/../grow/x", f.root.join("grow")).unwrap();
        assert!(ensure(f.fd.as_fd(), "/grow", Kind::Directory, Links::Follow).is_err());
        write(f.root.join("file"), "").unwrap();
        assert_eq!(ensure(f.fd.as_fd(), "/file", Kind::Directory, Links::Follow).err(), Some(Errno::NOTDIR));
        assert_eq!(ensure(f.fd.as_fd(), "/", Kind::File, Links::Follow).err(), Some(Errno::NOTDIR));
    }

    #[test]
    fn paths_split_at_the_last_name() {
        assert_eq!(split("/a/b/"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/"), None);
    }
}
