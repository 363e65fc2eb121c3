//! Reads images that the writer made, trusting nothing in them.

use std::io::{Read, Seek, SeekFrom, Write};

use super::format::{
    BLOCK_BITS, CHUNK_BASED, CHUNK_ENTRY, COMPRESSED, FLAT_INLINE, NULL_ADDRESS, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO,
    S_IFLNK, S_IFMT, S_IFREG, SLOT, Superblock, decode_device,
};
use super::inode::RawInode;
use super::{Algorithm, BLOCK_SIZE, dirents, xattr};
use crate::{Error, Result};

/// Bytes of a directory, at most: some 100,000 entries of the longest names, millions of ordinary ones.
const MOST_DIRECTORY: u64 = 64 << 20;

/// An EROFS image behind any `Read + Seek`, at its start.
///
/// Every read is bounded, whatever the image says; what doesn't fit together is [`Error::Malformed`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    superblock: Superblock,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device; 0/0 is a whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// An inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file, directory or link target.
    pub size: u64,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// How many names it has.
    pub links: u32,
    /// As it is on disk.
    pub(super) raw: RawInode,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name: any bytes but 0 and `/`.
    pub name: Vec<u8>,
    /// The inode's number.
    pub nid: u64,
}

pub(super) fn bad(detail: impl Into<String>) -> Error {
    Error::malformed("EROFS image", detail)
}

impl<R: Read + Seek> Reader<R> {
    /// Reads and checks the superblock.
    pub fn new(mut input: R) -> Result<Self> {
        let mut block = Vec::new();
        input.seek(SeekFrom::Start(0)).map_err(Error::io("read", "EROFS image"))?;
        input.by_ref().take(BLOCK_SIZE).read_to_end(&mut block).map_err(Error::io("read", "EROFS image"))?;
        let superblock = Superblock::decode(&block)?;
        Ok(Self { input, superblock })
    }

    /// Size of the filesystem in blocks of [`BLOCK_SIZE`] bytes.
    pub fn blocks(&self) -> u64 {
        u64::from(self.superblock.blocks)
    }

    /// The filesystem's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// How many inodes the superblock counts.
    pub fn inodes(&self) -> u64 {
        self.superblock.inodes
    }

    /// How the image's compressed files are compressed; `None`: it has none.
    pub fn compression(&self) -> Option<Algorithm> {
        self.superblock.compression
    }

    /// The root directory.
    pub fn root(&mut self) -> Result<Inode> {
        let root = self.inode(u64::from(self.superblock.root_nid))?;
        if root.kind == FileKind::Directory { Ok(root) } else { Err(bad("the root is no directory")) }
    }

    /// The inode with the number `nid`.
    pub fn inode(&mut self, nid: u64) -> Result<Inode> {
        let offset = self.inode_offset(nid)?;
        let raw = RawInode::decode(&self.bytes(offset, 32)?)
            .or(RawInode::decode(&self.bytes(offset, 64)?))
            .ok_or_else(|| bad(format!("inode {nid} is of an unknown form")))?;
        let (major, minor) = decode_device(raw.union);
        let kind = match raw.mode & S_IFMT {
            S_IFREG => FileKind::File,
            S_IFDIR => FileKind::Directory,
            S_IFLNK => FileKind::Symlink,
            S_IFCHR => FileKind::CharDevice { major, minor },
            S_IFBLK => FileKind::BlockDevice { major, minor },
            S_IFIFO => FileKind::Fifo,
            _ => return Err(bad(format!("inode {nid} is of an unknown type"))),
        };
        Ok(Inode {
            nid,
            kind,
            mode: raw.mode & !S_IFMT,
            uid: raw.uid,
            gid: raw.gid,
            size: raw.size,
            mtime: raw.mtime,
            links: raw.links,
            raw,
        })
    }

    /// The inode at `path`, taken from the root. Symbolic links are not followed, `..` is not understood.
    pub fn lookup(&mut self, path: &[u8]) -> Result<Option<Inode>> {
        let mut inode = self.root()?;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            if inode.kind != FileKind::Directory {
                return Ok(None);
            }
            let entries = self.list(&inode)?;
            let Ok(found) = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)) else { return Ok(None) };
            inode = self.inode(entries[found].nid)?;
        }
        Ok(Some(inode))
    }

    /// The entries of a directory, sorted by name, without `.` and `..`.
    pub fn list(&mut self, directory: &Inode) -> Result<Vec<Entry>> {
        if directory.kind != FileKind::Directory {
            return Err(bad(format!("inode {} is no directory", directory.nid)));
        }
        let bytes = self.read(directory, MOST_DIRECTORY)?;
        let mut entries: Vec<Entry> = Vec::new();
        for block in bytes.chunks(BLOCK_SIZE as usize) {
            let found = dirents::parse(block)
                .ok_or_else(|| bad(format!("directory {} has a malformed block", directory.nid)))?;
            for (nid, _, name) in found {
                if entries.last().is_some_and(|last| last.name.as_slice() >= name) {
                    return Err(bad(format!("directory {} is not sorted", directory.nid)));
                }
                entries.push(Entry { name: name.to_vec(), nid });
            }
        }
        entries.retain(|entry| entry.name != b"." && entry.name != b"..");
        Ok(entries)
    }

    /// The content of a file, directory or link; an error if it is more than `limit` bytes.
    pub fn read(&mut self, inode: &Inode, limit: u64) -> Result<Vec<u8>> {
        if inode.size > limit {
            return Err(Error::unsupported(
                format!("EROFS image: inode {}", inode.nid),
                format!("{} bytes, more than the {limit} asked for", inode.size),
            ));
        }
        let mut bytes = Vec::new();
        self.copy(inode, &mut bytes)?;
        Ok(bytes)
    }

    /// A symbolic link's target.
    pub fn read_link(&mut self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind == FileKind::Symlink { self.read(inode, BLOCK_SIZE) } else { Err(bad("not a symbolic link")) }
    }

    /// Writes the content of a file, directory or link to `out`, a piece at a time. Holes come out as zeros.
    pub fn copy(&mut self, inode: &Inode, out: &mut dyn Write) -> Result<()> {
        if !matches!(inode.kind, FileKind::File | FileKind::Directory | FileKind::Symlink) {
            return Err(bad(format!("inode {} has no content", inode.nid)));
        }
        if inode.raw.layout == COMPRESSED {
            return self.copy_compressed(inode, out);
        }
        let mut at = 0;
        while at < inode.size {
            let (address, length) = self.map(inode, at)?;
            let mut done = 0;
            while done < length {
                let count = (length - done).min(256 << 10);
                let piece = match address {
                    Some(address) => self.bytes(address + done, count)?,
                    None => vec![0; count as usize],
                };
                out.write_all(&piece).map_err(Error::io("write", "a file from the EROFS image"))?;
                done += count;
            }
            at += length;
        }
        Ok(())
    }

    /// The extended attributes of an inode as `(full name, value)`, sorted by name.
    pub fn xattrs(&mut self, inode: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let offset = self.inode_offset(inode.nid)? + inode.raw.disk_size() as u64;
        let bytes = self.bytes(offset, xattr::size_of_count(inode.raw.xattr_count) as u64)?;
        let found = xattr::parse(&bytes)
            .ok_or_else(|| bad(format!("inode {} has malformed or shared attributes", inode.nid)))?;
        Ok(found.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect())
    }

    /// Where the part of the content at `at` lies (`None`: in a hole) and how long it is.
    fn map(&mut self, inode: &Inode, at: u64) -> Result<(Option<u64>, u64)> {
        let left = inode.size - at;
        let start = u64::from(inode.raw.union) << BLOCK_BITS;
        match inode.raw.layout {
            CHUNK_BASED => {
                // Flags beside the size of a chunk mean forms of the map that the writer doesn't use.
                let bits = inode.raw.union;
                if bits > 31 {
                    return Err(Error::unsupported("EROFS image", "a chunk map of a form that Garboard doesn't write"));
                }
                let chunk = BLOCK_SIZE << bits;
                let entry = self.tail(inode)? + at / chunk * CHUNK_ENTRY;
                let address =
                    self.bytes(entry, CHUNK_ENTRY)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
                let address = (address != NULL_ADDRESS).then(|| (u64::from(address) << BLOCK_BITS) + at % chunk);
                Ok((address, left.min(chunk - at % chunk)))
            }
            FLAT_INLINE => {
                let whole = inode.size - inode.size % BLOCK_SIZE;
                if at < whole { Ok((Some(start + at), whole - at)) } else { Ok((Some(self.tail(inode)?), left)) }
            }
            _ => Ok((Some(start + at), left)),
        }
    }

    /// Where in the image begins what follows an inode and its attributes.
    pub(super) fn tail(&self, inode: &Inode) -> Result<u64> {
        let head = inode.raw.disk_size() as u64 + xattr::size_of_count(inode.raw.xattr_count) as u64;
        Ok(self.inode_offset(inode.nid)? + head)
    }

    fn inode_offset(&self, nid: u64) -> Result<u64> {
        let area = u64::from(self.superblock.meta_block) << BLOCK_BITS;
        nid.checked_mul(SLOT)
            .and_then(|offset| offset.checked_add(area))
            .filter(|&offset| offset < self.end())
            .ok_or_else(|| bad(format!("inode {nid} is outside the image")))
    }

    fn end(&self) -> u64 {
        u64::from(self.superblock.blocks) << BLOCK_BITS
    }

    /// Bytes of the image; `length` was bounded by the caller. An error if they aren't all there.
    pub(super) fn bytes(&mut self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let outside = || bad(format!("{length} bytes at {offset} are outside the image"));
        if offset.checked_add(length).is_none_or(|end| end > self.end()) {
            return Err(outside());
        }
        self.input.seek(SeekFrom::Start(offset)).map_err(Error::io("read", "EROFS image"))?;
        let mut bytes = Vec::new();
        self.input.by_ref().take(length).read_to_end(&mut bytes).map_err(Error::io("read", "EROFS image"))?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(outside()) }
    }
}
