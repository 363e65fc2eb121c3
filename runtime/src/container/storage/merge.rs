//! A copy of what an overlay of layers shows: each file once, from the topmost layer that has it, whiteouts and opaque directories
//! obeyed. By descriptor, following no links; depth is bounded, and memory by the largest directory.
//!
//! A whiteout is a character device 0:0, an opaque directory has `overlay.opaque` = `y` (overlayfs.rst).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::fill::copy::{Copy, MAX_DEPTH, attributes};

/// Attributes of overlayfs, as the machine's root and as others have them.
const MARKS: [&str; 2] = ["trusted.overlay", "user.overlay"];
/// No mark's value that counts here is longer.
const LONGEST: usize = 16;
/// What only an overlay understands: a directory that was renamed, a file without its contents.
const NOT_COPIED: [&str; 2] = ["redirect", "metacopy"];

/// What failed, and where: the path in the root.
type Fault = (String, Errno);

/// Copies `layers`, the topmost first, to the empty directory `to`, whose own attributes are left as they are.
pub(super) fn copy(layers: Vec<OwnedFd>, to: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut merge = Merge { copy: Copy::into(to) };
    let layers = layers.into_iter().enumerate().collect();
    merge.contents(layers, to).map_err(|errno| (merge.copy.place(), errno))
}

struct Merge<'a> {
    copy: Copy<'a>,
}

/// Directories of one path, by their layers' numbers, the topmost first.
type Sources = Vec<(usize, OwnedFd)>;

/// What is known of a name while the layers are read.
enum Seen {
    /// Nothing beneath shows.
    Closed,
    /// A directory, of these sources so far.
    Merged(Vec<usize>),
    /// A directory of these sources and no further ones, as a file or a whiteout hides them.
    Complete(Vec<usize>),
}

impl Merge<'_> {
    fn contents(&mut self, sources: Sources, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.copy.path.len() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut directories: Vec<(CString, Vec<usize>)> = Vec::new();
        for (name, seen) in self.files(&sources, to)? {
            if let Seen::Merged(from) | Seen::Complete(from) = seen {
                directories.push((name, from));
            }
        }
        for (name, from) in directories {
            self.copy.path.push(name.clone());
            self.directory(&sources, &from, &name, to)?;
            self.copy.path.pop();
        }
        Ok(())
    }

    /// Copies what is no directory, and finds those that are.
    fn files(&mut self, sources: &Sources, to: BorrowedFd<'_>) -> Result<BTreeMap<CString, Seen>, Errno> {
        let mut names = BTreeMap::new();
        for (index, (layer, source)) in sources.iter().enumerate() {
            for entry in Dir::read_from(source)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..")
                    || matches!(names.get(name), Some(Seen::Closed | Seen::Complete(_)))
                {
                    continue;
                }
                self.copy.path.push(name.to_owned());
                let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let seen = match names.remove(name) {
                    Some(Seen::Merged(from)) if is_directory => Seen::Merged([from, vec![index]].concat()),
                    Some(Seen::Merged(from)) => Seen::Complete(from),
                    _ if is_directory => Seen::Merged(vec![index]),
                    _ => Seen::Closed,
                };
                if matches!(seen, Seen::Closed) && !is_whiteout(&stat) {
                    self.file(*layer, source.as_fd(), to, name, &stat)?;
                }
                names.insert(name.to_owned(), seen);
                self.copy.path.pop();
            }
        }
        Ok(names)
    }

    fn file(
        &mut self,
        layer: usize,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), Errno> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            expect_whole(rustix::fs::openat(from, name, flags, Mode::empty())?.as_fd())?;
        }
        self.copy.layer = layer;
        self.copy.leaf(from, to, name, stat)
    }

    /// One directory of those sources that have it, down to the first that hides the rest.
    fn directory(&mut self, above: &Sources, from: &[usize], name: &CStr, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut sources = Vec::with_capacity(from.len());
        for index in from {
            let Some((layer, source)) = above.get(*index) else { continue };
            let directory = rustix::fs::openat(source, name, flags, Mode::empty())?;
            expect_whole(directory.as_fd())?;
            let is_opaque = has_mark(directory.as_fd(), "opaque", b"y")?;
            sources.push((*layer, directory));
            if is_opaque {
                break;
            }
        }
        let Some(topmost) = sources.first().map(|(_, topmost)| topmost.try_clone()) else { return Ok(()) };
        let topmost = topmost.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        rustix::fs::mkdirat(to, name, Mode::RWXU)?;
        let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
        self.contents(sources, made.as_fd())?;
        attributes(topmost.as_fd(), made.as_fd(), &rustix::fs::fstat(&topmost)?, false)
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Refuses what can't be copied without another meaning.
fn expect_whole(file: BorrowedFd<'_>) -> Result<(), Errno> {
    for mark in NOT_COPIED {
        if mark_of(file, mark)?.is_some() {
            return Err(Errno::OPNOTSUPP);
        }
    }
    Ok(())
}

fn has_mark(file: BorrowedFd<'_>, mark: &str, value: &[u8]) -> Result<bool, Errno> {
    Ok(mark_of(file, mark)?.is_some_and(|found| found == value))
}

/// The mark's value, under either name; empty if it is longer than any that counts.
fn mark_of(file: BorrowedFd<'_>, mark: &str) -> Result<Option<Vec<u8>>, Errno> {
    for namespace in MARKS {
        let mut value = [0_u8; LONGEST];
        match rustix::fs::fgetxattr(file, format!("{namespace}.{mark}"), &mut value) {
            Ok(length) => return Ok(Some(value.get(..length).unwrap_or_default().to_vec())),
            Err(Errno::RANGE) => return Ok(Some(Vec::new())),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
