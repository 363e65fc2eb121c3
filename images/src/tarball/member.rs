//! One member of a tar stream, its extension headers applied.

use std::io;

use super::{invalid, pax, sparse};

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    /// To another member's name.
    Hardlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A member. Names are as they stand in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Bytes of the file as it appears.
    pub(crate) size: u64,
    /// Bytes of it in the archive.
    pub(crate) stored: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file: which parts are stored.
    pub(crate) sparse: Option<sparse::Map>,
}

/// Extension headers that stand before a member.
#[derive(Default)]
pub(super) struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<pax::Records>,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }

    pub(super) fn set_name(&mut self, name: Vec<u8>) -> io::Result<()> {
        set_once(&mut self.name, until_nul(name))
    }

    pub(super) fn set_link(&mut self, link: Vec<u8>) -> io::Result<()> {
        set_once(&mut self.link, until_nul(link))
    }

    pub(super) fn set_records(&mut self, records: pax::Records) -> io::Result<()> {
        set_once(&mut self.records, records)
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> io::Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid("two extension headers of one kind before a member")),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// A numeric header field; one that is blank counts as 0, as every reader has it.
pub(super) fn number(field: &[u8], decode: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|&byte| byte == 0 || byte == b' ') { Ok(0) } else { decode() }
}

impl Member {
    pub(super) fn new(header: &tar::Header, size: u64, extensions: Extensions) -> io::Result<Self> {
        let records = extensions.records.unwrap_or_default();
        // Go lets the GNU headers win, other readers the records.
        if records.path.is_some() && extensions.name.is_some() || records.link.is_some() && extensions.link.is_some() {
            return Err(invalid("a PAX record and a GNU header with one member's name"));
        }
        let name = records.path.or(extensions.name).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records
            .link
            .or(extensions.link)
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        let old = header.as_old();
        let stored = records.size.unwrap_or(size);
        let kind = kind(header, &name, link)?;
        if kind != Kind::File && stored != 0 {
            return Err(invalid(format!("`{}` has data although its type has none", name.escape_ascii())));
        }
        let mut member = Self {
            kind,
            // A mode is at most 7 octal digits, so it fits; bits above the permissions say what the type says again.
            mode: (number(&old.mode, || header.mode().map(u64::from))? & 0o7777) as u16,
            uid: records.uid.map_or_else(|| number(&old.uid, || header.uid()), Ok)?,
            gid: records.gid.map_or_else(|| number(&old.gid, || header.gid()), Ok)?,
            // Times before 1970 are in base 256 as two's complement.
            mtime: records
                .mtime
                .map_or_else(|| number(&old.mtime, || header.mtime()).map(|time| (time.cast_signed(), 0)), Ok)?,
            size: stored,
            stored,
            xattrs: records.xattrs,
            sparse: None,
            name,
        };
        if let Some((map, real_name)) = sparse::Map::from_records(&records.sparse)? {
            if member.kind != Kind::File {
                return Err(invalid("a sparse member that is no file"));
            }
            member.name = real_name.unwrap_or(member.name);
            member.sparse = Some(map);
        }
        Ok(member)
    }
}

fn kind(header: &tar::Header, name: &[u8], link: Vec<u8>) -> io::Result<Kind> {
    let device = || -> io::Result<(u32, u32)> {
        let (major, minor) = (header.device_major()?, header.device_minor()?);
        major.zip(minor).ok_or_else(|| invalid("a device node without its numbers"))
    };
    Ok(match header.entry_type().as_byte() {
        // Before ustar a directory was a file whose name ends in a slash.
        0 if name.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink(link),
        b'2' => Kind::Symlink(link),
        b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(invalid(format!("`{}` has the unknown type `{}`", name.escape_ascii(), other.escape_ascii())));
        }
    })
}
