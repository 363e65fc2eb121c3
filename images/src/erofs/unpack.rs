//! Reads compressed files.

use std::io::{Read, Seek, Write};

use super::clusters::{self, CHUNK, Chunk, ENTRY, HEADER};
use super::format::{BLOCK_BITS, COMPRESSED};
use super::reader::{Inode, Reader, bad};
use super::{Algorithm, BLOCK_SIZE};
use crate::{Error, Result};

impl<R: Read + Seek> Reader<R> {
    /// First block and number of blocks of a compressed file's data; `None` for files that aren't compressed.
    pub fn compressed_blocks(&mut self, inode: &Inode) -> Result<Option<(u64, u64)>> {
        if inode.raw.layout != COMPRESSED {
            return Ok(None);
        }
        let index = self.index(inode)?.0;
        let first = self.chunk(inode, index, 0)?.first;
        Ok(Some((first, inode.raw.union.into())))
    }

    /// Writes a compressed file's content to `out`, chunk by chunk.
    pub(super) fn copy_compressed(&mut self, inode: &Inode, out: &mut dyn Write) -> Result<()> {
        let (index, algorithm) = self.index(inode)?;
        let mut at = 0;
        while at < inode.size {
            let chunk = self.chunk(inode, index, at)?;
            let stored = self.bytes(chunk.first << BLOCK_BITS, chunk.blocks * BLOCK_SIZE)?;
            let content = if chunk.compressed() {
                algorithm.decompress(clusters::without_padding(&stored), chunk.size as usize)
            } else {
                stored.get(..chunk.size as usize).map(<[u8]>::to_vec)
            };
            let content = content.ok_or_else(|| bad(format!("inode {} has damaged data at {at}", inode.nid)))?;
            out.write_all(&content).map_err(Error::io("write", "a file from the EROFS image"))?;
            at += chunk.size;
        }
        Ok(())
    }

    /// Where a compressed file's index begins, behind the header, and its algorithm.
    fn index(&mut self, inode: &Inode) -> Result<(u64, Algorithm)> {
        let start = clusters::start(self.tail(inode)?);
        let header = self.bytes(start, HEADER)?;
        let algorithm = self.compression().filter(|&algorithm| clusters::header(algorithm) == *header);
        algorithm
            .map(|algorithm| (start + HEADER, algorithm))
            .ok_or_else(|| bad(format!("inode {} is compressed in a way that the superblock doesn't name", inode.nid)))
    }

    /// The chunk that begins with byte `at` of a file whose index begins at `index`.
    fn chunk(&mut self, inode: &Inode, index: u64, at: u64) -> Result<Chunk> {
        let size = (inode.size - at).min(CHUNK);
        let entries = self.bytes(index + at / BLOCK_SIZE * ENTRY, size.div_ceil(BLOCK_SIZE) * ENTRY)?;
        Chunk::parse(size, &entries)
            .ok_or_else(|| bad(format!("inode {} has a compression index of an unknown form at {at}", inode.nid)))
    }
}
