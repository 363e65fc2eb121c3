//! Where an image is written to, front to back.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::BLOCK_SIZE;
use crate::{Error, Result};

fn write_error(cause: io::Error) -> Error {
    Error::Io { operation: "write", object: "system image".into(), cause }
}

/// The image, and the hash that its UUID is made of: contents by their digests, everything else by its bytes.
pub(super) struct Output<'a> {
    file: BufWriter<&'a mut File>,
    /// Bytes written so far.
    pub(super) position: u64,
    hasher: Sha256,
}

impl<'a> Output<'a> {
    /// Begins with zeros where the superblock will be.
    pub(super) fn new(file: &'a mut File) -> Result<Self> {
        let mut output = Self { file: BufWriter::with_capacity(1 << 20, file), position: 0, hasher: Sha256::new() };
        output.raw(&[0; BLOCK_SIZE as usize])?;
        Ok(output)
    }

    /// Writes bytes that are accounted for by [`Self::account`].
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes).map_err(write_error)
    }

    /// Hashes what stands for bytes written by [`Self::raw`].
    pub(super) fn account(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub(super) fn hashed(&mut self, bytes: &[u8]) -> Result<()> {
        self.account(bytes);
        self.raw(bytes)
    }

    /// Zeros up to `position`.
    pub(super) fn pad_to(&mut self, position: u64) -> Result<()> {
        let zeros = [0; BLOCK_SIZE as usize];
        while self.position < position {
            let count = (position - self.position).min(BLOCK_SIZE);
            self.hashed(&zeros[..count as usize])?;
        }
        Ok(())
    }

    pub(super) fn pad_block(&mut self) -> Result<()> {
        self.pad_to(self.position.next_multiple_of(BLOCK_SIZE))
    }

    /// A UUID of version 8 (RFC 9562: made in a way of one's own) from all that was written.
    pub(super) fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.hasher.clone().finalize()[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    /// Writes the superblock's block, and leaves the file's position at its end.
    pub(super) fn finish(mut self, superblock: &[u8]) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map_err(write_error)?;
        self.file.write_all(superblock).map_err(write_error)?;
        self.file.seek(SeekFrom::Start(self.position)).map_err(write_error)?;
        self.file.flush().map_err(write_error)
    }
}
