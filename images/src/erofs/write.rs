//! Writes an image as planned, from front to back, the superblock last.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::BLOCK_SIZE;
use super::dirents::{self, Dirent};
use super::format::{CHUNK_BASED, FLAT_INLINE, INCOMPAT_CHUNKED, NULL_ADDRESS, S_IFDIR, Superblock};
use super::layout::{self, Layout, Placed};
use super::xattr;
use crate::contents::{ContentId, Contents};
use crate::store::Summary;
use crate::tree::{Kind, Node, Tree};
use crate::{Error, Result};

/// Bytes copied at a time.
const BUFFER: u64 = 256 << 10;

fn write_error(cause: io::Error) -> Error {
    Error::Io { operation: "write", object: "system image".into(), cause }
}

/// Where the image goes, and the hash that its UUID is made of: contents by their digests, everything else by its bytes.
struct Output<'a> {
    file: BufWriter<&'a mut File>,
    position: u64,
    hasher: Sha256,
}

impl Output<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes).map_err(write_error)
    }

    fn hashed(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.raw(bytes)
    }

    /// Zeros up to `position`.
    fn pad_to(&mut self, position: u64) -> Result<()> {
        let zeros = [0; BLOCK_SIZE as usize];
        while self.position < position {
            let count = (position - self.position).min(BLOCK_SIZE);
            self.hashed(&zeros[..count as usize])?;
        }
        Ok(())
    }

    fn pad_block(&mut self) -> Result<()> {
        self.pad_to(self.position.next_multiple_of(BLOCK_SIZE))
    }

    /// A content's bytes from `from` to `to`.
    fn content(&mut self, contents: &Contents, id: ContentId, from: u64, to: u64) -> Result<()> {
        let mut buffer = vec![0; BUFFER.min(to - from) as usize];
        let mut at = from;
        while at < to {
            let part = &mut buffer[..BUFFER.min(to - at) as usize];
            contents.read_at(id, at, part)?;
            self.raw(part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// Writes the image of `tree` to `out`, an empty file.
pub(crate) fn write(tree: &Tree, contents: &Contents, out: &mut File) -> Result<Summary> {
    let plan = layout::plan(tree, contents)?;
    let mut output = Output { file: BufWriter::with_capacity(1 << 20, out), position: 0, hasher: Sha256::new() };
    output.raw(&[0; BLOCK_SIZE as usize])?;
    write_contents(&mut output, contents, &plan.contents)?;
    for placed in &plan.nodes {
        write_blocks(&mut output, tree, &plan, placed)?;
    }
    for placed in &plan.nodes {
        output.pad_to(plan.meta_block * BLOCK_SIZE + placed.offset)?;
        write_inode(&mut output, tree, contents, &plan, placed)?;
    }
    output.pad_to(plan.late_block * BLOCK_SIZE)?;
    write_contents(&mut output, contents, &plan.late_contents)?;
    debug_assert_eq!(output.position, plan.blocks * BLOCK_SIZE);
    let superblock = Superblock {
        root_nid: plan.nodes[0].nid() as u16,
        inodes: plan.nodes.len() as u64,
        blocks: plan.blocks as u32,
        meta_block: plan.meta_block as u32,
        uuid: uuid(&output.hasher.finalize()),
        incompatible: if plan.chunked { INCOMPAT_CHUNKED } else { 0 },
    };
    output.file.seek(SeekFrom::Start(0)).map_err(write_error)?;
    output.file.write_all(&superblock.encode()).map_err(write_error)?;
    output.file.seek(SeekFrom::Start(plan.blocks * BLOCK_SIZE)).map_err(write_error)?;
    output.file.flush().map_err(write_error)?;
    let stored = plan.contents.iter().chain(&plan.late_contents);
    Ok(Summary {
        blocks: plan.blocks,
        uuid: superblock.uuid,
        inodes: superblock.inodes,
        contents: plan.addresses.len() as u64,
        content_bytes: stored.map(|&id| contents.get(id).stored()).sum(),
        shared_bytes: contents.shared(),
        metadata_bytes: (plan.late_block - plan.meta_block) * BLOCK_SIZE,
    })
}

/// A UUID of version 8 (RFC 9562: made in a way of one's own) from a hash.
fn uuid(hash: &[u8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

fn write_contents(output: &mut Output<'_>, contents: &Contents, ids: &[ContentId]) -> Result<()> {
    for &id in ids {
        let content = contents.get(id);
        output.hasher.update(content.digest.0);
        if content.holes.is_empty() {
            output.content(contents, id, 0, content.size)?;
        } else {
            let mut at = 0;
            for (blocks, hole) in layout::chunks(content) {
                let to = (at + blocks * BLOCK_SIZE).min(content.size);
                if !hole {
                    output.content(contents, id, at, to)?;
                }
                at = to;
            }
        }
        output.pad_block()?;
    }
    Ok(())
}

/// The used bytes of a directory's blocks.
fn directory_blocks(tree: &Tree, plan: &Layout, placed: &Placed) -> Vec<Vec<u8>> {
    let Kind::Directory(entries) = &tree.get(placed.id).kind else { return Vec::new() };
    let own = |id| &plan.nodes[plan.index[&id] as usize];
    let names = layout::with_dots(entries.keys().map(|name| &**name));
    let dirents: Vec<_> = names
        .map(|name| {
            let target = match name {
                b"." => placed,
                b".." => own(placed.parent),
                name => own(entries[name]),
            };
            Dirent { name, nid: target.nid(), file_type: dirents::file_type(target.inode.mode) }
        })
        .collect();
    dirents::blocks(&dirents)
}

/// What a directory or long symbolic link has in blocks of its own.
fn write_blocks(output: &mut Output<'_>, tree: &Tree, plan: &Layout, placed: &Placed) -> Result<()> {
    let inline = placed.inode.layout == FLAT_INLINE;
    match &tree.get(placed.id).kind {
        Kind::Directory(_) => {
            if inline && placed.inode.size < BLOCK_SIZE {
                return Ok(());
            }
            let mut blocks = directory_blocks(tree, plan, placed);
            if inline {
                blocks.pop();
            }
            for block in blocks {
                output.hashed(&block)?;
                output.pad_block()?;
            }
        }
        Kind::Symlink(target) if !inline => {
            output.hashed(target)?;
            output.pad_block()?;
        }
        _ => {}
    }
    Ok(())
}

/// An inode, its attributes and what follows them.
fn write_inode(
    output: &mut Output<'_>,
    tree: &Tree,
    contents: &Contents,
    plan: &Layout,
    placed: &Placed,
) -> Result<()> {
    let node: &Node = tree.get(placed.id);
    output.hashed(&placed.inode.encode())?;
    output.hashed(&xattr::encode(node))?;
    match (&node.kind, placed.inode.layout) {
        (Kind::Directory(_), FLAT_INLINE) => {
            debug_assert_eq!(placed.inode.mode & S_IFDIR, S_IFDIR);
            let tail = directory_blocks(tree, plan, placed).pop().unwrap_or_default();
            output.hashed(&tail)
        }
        (Kind::Symlink(target), FLAT_INLINE) => output.hashed(target),
        (Kind::File(id), FLAT_INLINE) => {
            let mut bytes = vec![0; contents.get(*id).size as usize];
            contents.read_at(*id, 0, &mut bytes)?;
            output.hashed(&bytes)
        }
        (Kind::File(id), CHUNK_BASED) => {
            let mut address = plan.addresses.get(id).copied().unwrap_or(0);
            for (blocks, hole) in layout::chunks(contents.get(*id)) {
                let entry = if hole { NULL_ADDRESS } else { address as u32 };
                address += if hole { 0 } else { blocks };
                output.hashed(&entry.to_le_bytes())?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
