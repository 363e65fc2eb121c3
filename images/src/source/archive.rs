//! A tar on disk as a set of blobs: indexed once by seeking, read in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use super::blobs::{Blobs, Section};
use crate::layer::{Coding, coding, decoder, path};
use crate::tarball::{Input, Kind, Tarball};
use crate::{Error, Limits, Result};

/// Links followed from one member to another.
const MOST_LINKS: usize = 16;

/// What a member's name leads to.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Data {
        at: u64,
        length: u64,
    },
    /// Another member's name, cleaned.
    Link(String),
}

/// An indexed archive.
pub(super) struct Archive {
    shown: String,
    file: Arc<File>,
    members: HashMap<String, Place>,
}

/// Opens and indexes the archive at `path`. A compressed one is decompressed to a nameless file first.
pub(super) fn open(path: &Path, limits: &Limits) -> Result<Archive> {
    let shown = path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(Error::io("open", &shown))?;
    if !metadata.is_file() {
        return Err(Error::malformed(shown, "not a regular file"));
    }
    let mut file = File::open(path).map_err(Error::io("open", &shown))?;
    let mut head = [0; 512];
    let count = file.read(&mut head).map_err(Error::io("read", &shown))?;
    file.rewind().map_err(Error::io("read", &shown))?;
    let coding = coding(&head[..count]).map_err(|e| Error::unsupported(&shown, e.to_string()))?;
    if coding != Coding::Plain {
        file = spool(file, &shown, limits)?;
    } else if count < 512 {
        return Err(Error::malformed(shown, "too short for a tar archive"));
    }
    let members = index(Seekable::new(&file).map_err(Error::io("read", &shown))?, &shown, limits)?;
    Ok(Archive { shown, file: Arc::new(file), members })
}

/// Decompresses into a nameless file, bounded.
fn spool(file: File, shown: &str, limits: &Limits) -> Result<File> {
    let limit = limits.archive_bytes;
    let damaged = |e: io::Error| Error::malformed(shown, e.to_string());
    let mut reader = decoder(BufReader::new(file)).map_err(damaged)?;
    let directory = std::env::temp_dir();
    let failed = |operation| Error::scratch(operation, "the scratch file for the archive", &directory);
    let spool = tempfile::tempfile_in(&directory).map_err(failed("create"))?;
    let mut writer = BufWriter::with_capacity(1 << 20, spool);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = reader.read(&mut buffer).map_err(damaged)?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > limit {
            let (unit, name) = ("bytes decompressed", "archive_bytes");
            return Err(Error::Limit { object: shown.into(), limit, unit, name });
        }
        writer.write_all(&buffer[..count]).map_err(failed("write"))?;
    }
    let mut spool = writer.into_inner().map_err(|e| failed("write")(e.into_error()))?;
    spool.rewind().map_err(failed("read"))?;
    Ok(spool)
}

/// Where each member is. A later member replaces an earlier one of the same name, as when unpacking.
fn index(input: impl Input, shown: &str, limits: &Limits) -> Result<HashMap<String, Place>> {
    let damaged = |e: io::Error| Error::malformed(shown, e.to_string());
    let mut tarball = Tarball::new(input, limits.extension_bytes);
    let mut members = HashMap::new();
    let mut count = 0;
    while let Some(member) = tarball.next_member().map_err(damaged)? {
        count += 1;
        if count > limits.archive_members {
            let limit = limits.archive_members;
            return Err(Error::Limit { object: shown.into(), limit, unit: "members", name: "archive_members" });
        }
        // A name that isn't clean, or not text, is never asked for.
        let Some(name) = clean("", &member.name) else { continue };
        let place = match &member.kind {
            Kind::File if member.sparse.is_some() => {
                return Err(Error::unsupported(shown, format!("member `{name}` is sparse")));
            }
            Kind::File => Some(Place::Data { at: tarball.position(), length: member.stored }),
            Kind::Symlink(target) => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                clean(directory, target).map(Place::Link)
            }
            Kind::Hardlink(target) => clean("", target).map(Place::Link),
            _ => None,
        };
        match place {
            Some(place) => members.insert(name, place),
            None => members.remove(&name),
        };
    }
    Ok(members)
}

/// `name` as taken from `directory`, without `.` and `..`; `None` if it leaves the archive or isn't text.
fn clean(directory: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= path::PATH_MAX)?;
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Archive {
    /// Whether a file of this name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }
}

impl Blobs for Archive {
    fn open(&self, name: &str) -> Result<(Section, u64)> {
        let missing = || Error::malformed(&self.shown, format!("it has no file `{}`", name.escape_debug()));
        let mut name = clean("", name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..MOST_LINKS {
            match self.members.get(&name).ok_or_else(missing)? {
                Place::Link(target) => name.clone_from(target),
                &Place::Data { at, length } => return Ok((Section::new(self.file.clone(), at, length), length)),
            }
        }
        Err(Error::malformed(&self.shown, format!("`{}` is behind more than {MOST_LINKS} links", name.escape_debug())))
    }
}

/// A file that skips by seeking, never past its end.
struct Seekable<'a> {
    inner: BufReader<&'a File>,
    left: u64,
}

impl<'a> Seekable<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let left = file.metadata()?.len();
        let mut inner = BufReader::with_capacity(8 << 10, file);
        inner.seek(SeekFrom::Start(0))?;
        Ok(Self { inner, left })
    }
}

impl Read for Seekable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

impl Input for Seekable<'_> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off");
        self.left = self.left.checked_sub(count).ok_or_else(cut_off)?;
        self.inner.seek_relative(i64::try_from(count).map_err(|_| cut_off())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        assert_eq!(clean("", b"./a//b/").as_deref(), Some("a/b"));
        assert_eq!(clean("a/b", b"../c").as_deref(), Some("a/c"));
        assert_eq!(clean("a", b"../../c"), None);
        assert_eq!(clean("", b"caf\xe9"), None);
    }
}
