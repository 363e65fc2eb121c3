//! A small file in the appliance's own directory on the data filesystem, which may have been written elsewhere: it is read with
//! suspicion, and replaced as a whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::kept::files;

/// Its first `limit` bytes. Whatever lies there is neither followed nor waited for.
pub(super) fn read(directory: &Path, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(&open_directory(directory)?, name, OFlags::RDONLY)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes these its bytes, and its directory first if need be. At no moment is there anything but the old file or the new one, whole.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make(directory)?;
    let directory = open_directory(directory)?;
    let new = format!("{name}.new");
    // What a power cut left; also whatever else it may be.
    let _ = files::remove(&directory, new.as_str());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, &new, flags, Mode::from_raw_mode(0o600))?);
    let whole = file.write_all(bytes).and_then(|()| file.sync_all());
    let rename = || renameat(&directory, &new, &directory, name);
    let renamed = whole.and_then(|()| match rename() {
        // A directory in its place was not made here.
        Err(Errno::ISDIR) => Ok(files::remove(&directory, name).and_then(|()| rename())?),
        other => Ok(other?),
    });
    if renamed.is_err() {
        let _ = unlinkat(&directory, &new, AtFlags::empty());
    }
    renamed?;
    Ok(fsync(&directory)?)
}

/// Opens it as it is, if it is a file.
pub(super) fn open(directory: &OwnedFd, name: &str, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"))
}

pub(super) fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::empty())?)
}

fn make(directory: &Path) -> io::Result<()> {
    match mkdirat(CWD, directory, Mode::from_raw_mode(0o700)) {
        Ok(()) => File::open(directory.parent().unwrap_or(Path::new("/")))?.sync_all(),
        // A disk that can only be read may well have it.
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
