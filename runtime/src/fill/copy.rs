//! Copies and removes directory trees, by descriptor.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::SELF;

/// Directories deeper than this are refused: each level holds descriptors.
pub(crate) const MAX_DEPTH: usize = 256;
/// Bytes copied at once.
const PIECE: usize = 64 << 10;
/// The longest list of names and the longest value of extended attributes (xattr(7)).
const XATTRS: usize = 64 << 10;
/// Marks that overlayfs keeps for itself.
const OVERLAY_MARKS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What failed, and where: the path beneath the copied directory, with a slash before each name.
type Fault = (String, Errno);

/// Copies what lies in `from` into the empty directory `to`, and gives `to` the attributes of `from`: owners, modes, times,
/// extended attributes, links and nodes.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut copy = Copy::into(to);
    copy.directory(from, to).map_err(|errno| (copy.place(), errno))
}

/// The same for a layer, with its whiteouts and overlayfs's own marks: the copy is a layer, too.
#[cfg(feature = "cli")]
pub(crate) fn layer(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut copy = Copy { marks: true, ..Copy::into(to) };
    copy.directory(from, to).map_err(|errno| (copy.place(), errno))
}

/// Copies what lies in `from` into the directory `to`, which stays as it is.
pub(crate) fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut copy = Copy::into(to);
    copy.contents(from, to).map_err(|errno| (copy.place(), errno))
}

/// A copy that is being made.
pub(crate) struct Copy<'a> {
    /// The copy, in which nobody but this process has any business yet: a path in it leads where it says.
    root: BorrowedFd<'a>,
    /// Which of several copied trees an original is in. Files with several names have them all in one.
    pub(crate) layer: usize,
    /// Files with several names: tree, device and number of the original → path of its first copy beneath the root.
    links: BTreeMap<(usize, u64, u64), CString>,
    /// Names from the copied directory to what is being copied; after an error, to what could not be.
    pub(crate) path: Vec<CString>,
    /// Whiteouts and overlayfs's marks are copied, too.
    marks: bool,
    buffer: Vec<u8>,
}

impl<'a> Copy<'a> {
    /// Into this empty directory.
    pub(crate) fn into(root: BorrowedFd<'a>) -> Self {
        Self { root, layer: 0, links: BTreeMap::new(), path: Vec::new(), marks: false, buffer: vec![0; PIECE] }
    }

    /// What is being copied, with a slash before each name.
    pub(crate) fn place(&self) -> String {
        self.path.iter().map(|name| format!("/{}", name.to_string_lossy())).collect()
    }

    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        self.contents(from, to)?;
        attributes(from, to, &rustix::fs::fstat(from)?, self.marks)
    }

    fn contents(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.path.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.path.push(name.to_owned());
            self.entry(from, to, name)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let stat = rustix::fs::statat(from, name, SELF)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A whiteout of a layer that no overlay shows: it is no file, and hides nothing here.
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 && !self.marks {
            return Ok(());
        }
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (from, to) = (open(from, name, flags)?, open(to, name, flags)?);
            return self.directory(from.as_fd(), to.as_fd());
        }
        self.leaf(from, to, name, &stat)
    }

    /// Whatever is no directory.
    pub(crate) fn leaf(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 {
            let original = (self.layer, stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&original) {
                match rustix::fs::linkat(self.root, first, to, name, AtFlags::empty()) {
                    // Deeper than a path may be long, each name gets a file of its own.
                    Err(Errno::NAMETOOLONG) => {}
                    other => return other,
                }
            }
            let path = self.path.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b'/');
            self.links.insert(original, CString::new(path).map_err(|_| Errno::INVAL)?);
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                owner_and_times(to, name, stat)
            }
            _ => {
                rustix::fs::mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?;
                owner_and_times(to, name, stat)?;
                // It isn't a link, as it was made just now by the only process that may.
                rustix::fs::chmodat(to, name, permissions(stat.st_mode), AtFlags::empty())
            }
        }
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        let from = open(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let end = u64::try_from(stat.st_size).unwrap_or(0);
        let mut at = 0_u64;
        while at < end {
            // A hole may be larger than there is time to read it.
            at = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                other => other?,
            };
            let length = match rustix::io::pread(&from, &mut *self.buffer, at) {
                Ok(0) => break,
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let piece = self.buffer.get(..length).unwrap_or_default();
            // Zeros become holes: a file that is mostly one must not fill the volume.
            if piece.iter().any(|byte| *byte != 0) {
                write_at(to.as_fd(), piece, at)?;
            }
            at = at.saturating_add(u64::try_from(length).unwrap_or(0));
        }
        rustix::fs::ftruncate(&to, end)?;
        attributes(from.as_fd(), to.as_fd(), stat, self.marks)
    }
}

fn write_at(file: BorrowedFd<'_>, mut rest: &[u8], mut at: u64) -> Result<(), Errno> {
    while !rest.is_empty() {
        match rustix::io::pwrite(file, rest, at) {
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                at = at.saturating_add(u64::try_from(written).unwrap_or(0));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Owner, permissions, extended attributes and times of an opened file or directory, in the order in which none undoes another.
/// With `marks` overlayfs's own are among them.
pub(crate) fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, marks: bool) -> Result<(), Errno> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, permissions(stat.st_mode))?;
    extended(from, to, marks)?;
    rustix::fs::futimens(to, &times(stat))
}

fn owner_and_times(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::chownat(directory, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), SELF)?;
    rustix::fs::utimensat(directory, name, &times(stat), SELF)
}

fn permissions(mode: RawMode) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Extended attributes. Those that the volume's filesystem can't have are left out.
fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>, marks: bool) -> Result<(), Errno> {
    let mut names = vec![0; XATTRS];
    let length = match rustix::fs::flistxattr(from, &mut *names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0; XATTRS];
    for name in names.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == 0) {
        if !marks && OVERLAY_MARKS.iter().any(|mark| name.starts_with(mark)) {
            continue;
        }
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
        let length = rustix::fs::fgetxattr(from, name, &mut *value)?;
        match rustix::fs::fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            // A label of a security module, which only the machine's root may set, and means something to the machine alone.
            Err(Errno::PERM) if name.to_bytes().starts_with(b"security.") && name != c"security.capability" => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes the file or directory `name` with everything in it, if it is there.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    remove_entry(directory, &name, 0)
}

fn remove_entry(directory: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) if depth <= MAX_DEPTH.saturating_add(1) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = open(directory, name, flags)?;
    for entry in Dir::read_from(&inside)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_entry(inside.as_fd(), entry.file_name(), depth.saturating_add(1))?;
        }
    }
    rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}
