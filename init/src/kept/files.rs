//! The files of one container's log: opened with suspicion, appended to, rotated, and never more than declared.
//!
//! The partition may have been written elsewhere: nothing that lies there is followed, waited for, or taken for a file of ours
//! that is none. What stands in the way is removed.

use std::os::fd::{AsFd, OwnedFd};

use garboard_runtime::plan::KeptLog;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::{LOGS, OWN};

/// The file that is written to.
const NEWEST: &str = "log";
/// What stands in the way may be as deep.
const DEEPEST: usize = 64;

/// One container's.
#[derive(Debug)]
pub struct Files {
    directory: OwnedFd,
    /// For messages.
    container: String,
    kept: KeptLog,
    newest: Option<Newest>,
    /// Names in it changed since it was synced.
    renamed: bool,
}

#[derive(Debug)]
struct Newest {
    file: OwnedFd,
    inode: u64,
    size: u64,
    /// Something was written since it was synced.
    dirty: bool,
}

/// Opens the directory of all logs, which is made if need be.
pub fn open_logs(data: &str) -> Result<OwnedFd, String> {
    let root = rustix::fs::open(data, directory_flags(), Mode::empty()).map_err(|e| format!("open {data}: {e}"))?;
    let own = own_directory(&root, OWN).map_err(|e| format!("open {data}/{OWN}: {e}"))?;
    own_directory(&own, LOGS).map_err(|e| format!("open {data}/{OWN}/{LOGS}: {e}"))
}

/// Opens that of one container's log to be read; `None`: there is none.
pub fn find(data: &str, container: &str) -> Option<OwnedFd> {
    let root = rustix::fs::open(data, directory_flags(), Mode::empty()).ok()?;
    [OWN, LOGS, container].iter().try_fold(root, |parent, name| beneath(&parent, *name, directory_flags()).ok())
}

/// Removes all logs, where there are any.
pub fn forget(data: &str) -> Result<(), String> {
    let Ok(root) = rustix::fs::open(data, directory_flags(), Mode::empty()) else { return Ok(()) };
    match beneath(&root, OWN, directory_flags()).and_then(|own| beneath(&own, LOGS, directory_flags())) {
        Ok(logs) => retain(&logs, |_| false),
        Err(_) => Ok(()),
    }
}

/// Removes the logs of all containers but these. What can't be removed was not made here, and stays: it holds up no other's.
pub fn retain(logs: &OwnedFd, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    for name in names(logs).map_err(|e| format!("list {LOGS}: {e}"))?.into_iter().filter(|name| !wanted(name)) {
        if let Err(e) = remove(logs, name.as_str()) {
            log::warn!("remove {LOGS}/{name}: {e}");
        }
    }
    Ok(())
}

impl Files {
    /// Opens a container's, and makes them as many as are declared.
    pub fn open(logs: &OwnedFd, container: &str, kept: KeptLog) -> Result<Self, String> {
        let directory = own_directory(logs, container).map_err(|e| format!("open {LOGS}/{container}: {e}"))?;
        let mut files = Self { directory, container: container.to_owned(), kept, newest: None, renamed: true };
        files.remove_strangers().map_err(|e| files.fault("remove what is too much of", "", e))?;
        Ok(files)
    }

    /// Opens the newest. If it is the one with this number, what stands in it after so many bytes is cut off; in any other the
    /// last line, which the machine's end may have torn, is made whole.
    pub fn begin(&mut self, inode: u64, size: u64) -> Result<(), String> {
        if self.newest.is_some() {
            return Ok(());
        }
        let mut newest = self.open_newest().map_err(|e| self.fault("open", NEWEST, e))?;
        if newest.inode == inode && newest.size > size {
            rustix::fs::ftruncate(&newest.file, size).map_err(|e| self.fault("cut", NEWEST, e))?;
            newest.size = size;
        }
        let mut last = [b'\n'];
        let at = newest.size.checked_sub(1);
        // One whose end the disk can't read is left as it is.
        let damaged = at.is_some_and(|at| rustix::io::pread(&newest.file, &mut last, at).is_err());
        let too_large = damaged || newest.size >= self.kept.file_size;
        self.newest = Some(newest);
        if last != *b"\n" {
            self.append(b"\n")?;
        }
        if too_large { self.rotate() } else { Ok(()) }
    }

    /// Whether the newest has room for so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        let size = self.newest.as_ref().map_or(0, |newest| newest.size);
        u64::try_from(bytes).is_ok_and(|bytes| size.saturating_add(bytes) <= self.kept.file_size)
    }

    /// Appends to the newest.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let Some(newest) = &mut self.newest else { return Ok(()) };
            match rustix::io::write(&newest.file, bytes) {
                Ok(n) => {
                    newest.size = newest.size.saturating_add(u64::try_from(n).unwrap_or(0));
                    newest.dirty = true;
                    bytes = bytes.get(n..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.fault("write", NEWEST, e)),
            }
        }
        Ok(())
    }

    /// Begins a new one. The oldest goes.
    pub fn rotate(&mut self) -> Result<(), String> {
        self.sync()?;
        self.newest = None;
        for number in (1..self.kept.files).rev() {
            let (from, to) = (numbered(number.saturating_sub(1)), numbered(number));
            match rustix::fs::renameat(&self.directory, &from, &self.directory, &to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(self.fault("rename", &from, e)),
            }
        }
        self.renamed = true;
        self.remove_surplus().map_err(|e| self.fault("remove what is too much of", "", e))?;
        self.newest = Some(self.open_newest().map_err(|e| self.fault("open", NEWEST, e))?);
        Ok(())
    }

    /// Number and size of the newest.
    pub fn written(&self) -> (u64, u64) {
        self.newest.as_ref().map_or((0, 0), |newest| (newest.inode, newest.size))
    }

    /// Has the disk take what was written.
    pub fn sync(&mut self) -> Result<(), String> {
        if let Some(newest) = &mut self.newest
            && std::mem::take(&mut newest.dirty)
        {
            rustix::fs::fdatasync(&newest.file).map_err(|e| self.fault("sync", NEWEST, e))?;
        }
        if std::mem::take(&mut self.renamed) {
            rustix::fs::fsync(&self.directory).map_err(|e| self.fault("sync", "", e))?;
        }
        Ok(())
    }

    fn open_newest(&mut self) -> Result<Newest, Errno> {
        // Never waits: what lies there may be a pipe.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match beneath(&self.directory, NEWEST, flags).ok().filter(is_ours) {
            Some(file) => file,
            None => {
                remove(&self.directory, NEWEST)?;
                self.renamed = true;
                rustix::fs::openat(
                    &self.directory,
                    NEWEST,
                    flags | OFlags::CREATE | OFlags::EXCL,
                    Mode::from_raw_mode(0o600),
                )?
            }
        };
        let stat = rustix::fs::fstat(&file)?;
        Ok(Newest { inode: stat.st_ino, size: u64::try_from(stat.st_size).unwrap_or(0), file, dirty: false })
    }

    /// Removes whatever is no file of a log, and files that are more than declared.
    fn remove_strangers(&mut self) -> Result<(), Errno> {
        let known: Vec<String> = (0..self.kept.files).map(numbered).collect();
        for name in names(&self.directory)? {
            let stat = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !known.contains(&name) || !is_plain(stat.st_mode, stat.st_nlink) {
                remove(&self.directory, &name)?;
            }
        }
        self.remove_surplus()
    }

    /// Removes the oldest until there is room for one more of the declared size: files of a time when they could be larger.
    fn remove_surplus(&mut self) -> Result<(), Errno> {
        let mut room = self.kept.file_size.saturating_mul(u64::from(self.kept.files.saturating_sub(1)));
        for name in (1..self.kept.files).map(numbered) {
            let size = match rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => u64::try_from(stat.st_size).unwrap_or(u64::MAX),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e),
            };
            match room.checked_sub(size) {
                Some(left) => room = left,
                None => {
                    // Nor is there room for anything older.
                    room = 0;
                    remove(&self.directory, &name)?;
                }
            }
        }
        Ok(())
    }

    fn fault(&self, operation: &str, file: &str, cause: Errno) -> String {
        let separator = if file.is_empty() { "" } else { "/" };
        format!("{operation} {LOGS}/{}{separator}{file}: {cause}", self.container)
    }
}

/// The name of a file: 0 is the newest.
pub fn numbered(number: u32) -> String {
    if number == 0 { NEWEST.to_owned() } else { format!("{NEWEST}.{number}") }
}

/// Opens what has this name in a directory: no link is followed, and no other filesystem entered.
pub fn beneath(directory: &OwnedFd, name: impl Arg, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(directory, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Opens a directory of ours, which nobody else is to read. It is made if need be.
fn own_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_raw_mode(0o700);
    let make = || match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => beneath(parent, name, directory_flags()),
        Err(e) => Err(e),
    };
    let directory = match make() {
        // A link or a file in its place.
        Err(Errno::LOOP | Errno::NOTDIR) => {
            remove(parent, name)?;
            make()
        }
        other => other,
    }?;
    if rustix::fs::fstat(&directory)?.st_mode & 0o7777 != 0o700 {
        rustix::fs::fchmod(&directory, mode)?;
    }
    Ok(directory)
}

fn is_ours(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| is_plain(stat.st_mode, stat.st_nlink))
}

/// A file that has no other name, by which somebody else could have it.
fn is_plain(mode: RawMode, links: impl Into<u64>) -> bool {
    FileType::from_raw_mode(mode) == FileType::RegularFile && links.into() == 1
}

/// Removes what has this name, whatever it is, but for directories in more than [`DEEPEST`] others. Nothing there is fine.
pub(crate) fn remove(directory: &OwnedFd, name: impl Arg + Copy) -> Result<(), Errno> {
    remove_within(directory, name, DEEPEST)
}

fn remove_within(directory: &OwnedFd, name: impl Arg + Copy, depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let inner = beneath(directory, name, directory_flags())?;
            // Each of them is open until it is empty.
            let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
            for entry in rustix::fs::Dir::read_from(inner.as_fd())? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    remove_within(&inner, entry.file_name(), depth)?;
                }
            }
            rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
        }
        Err(e) => Err(e),
    }
}

/// What there is in a directory. A name that isn't UTF-8 was not given here, and stays.
fn names(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
