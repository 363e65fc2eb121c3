//! File contents, each different one kept once in a scratch file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{Digest, Error, Limits, Result};

/// Unit in which zeros are recognised: a filesystem block.
const BLOCK: usize = 4096;
/// Runs of zeros shorter than this many blocks (64 KiB) are kept as data: a hole costs an index that must be read.
pub(crate) const SHORTEST_HOLE: u64 = 16;
/// Holes kept per content; zeros behind the last one are data. Bounds memory on a content made to have millions.
const MOST_HOLES: usize = 4096;
/// Bytes gathered before they are written to the scratch file.
const GATHER: usize = 1 << 20;

/// A run of zero blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hole {
    /// First block.
    pub(crate) start: u64,
    /// Blocks.
    pub(crate) count: u64,
}

/// What makes two contents equal. Without holes the digest is that of the content; else of what is between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    /// Bytes as the file appears.
    pub(crate) size: u64,
    pub(crate) holes: Box<[Hole]>,
}

impl Content {
    /// Bytes that are not in holes.
    pub(crate) fn stored(&self) -> u64 {
        self.size - self.holes.iter().map(|hole| hole.count * BLOCK as u64).sum::<u64>()
    }
}

/// A content's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContentId(pub(crate) u32);

/// All contents. Memory grows with their number, not with their size.
#[derive(Debug)]
pub(crate) struct Contents {
    spool: File,
    /// Where the spool is, for messages.
    directory: PathBuf,
    /// Bytes that may be kept.
    limit: u64,
    /// End of what is kept in the spool.
    end: u64,
    known: HashMap<Content, ContentId>,
    /// Each content and where in the spool it begins, by number.
    list: Vec<(Content, u64)>,
    shared: u64,
}

fn spool_error(operation: &'static str, directory: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::scratch(operation, "the scratch file for file contents", directory)
}

impl Contents {
    /// Keeps them in a nameless file in `directory`.
    pub(crate) fn new(directory: &Path, limits: &Limits) -> Result<Self> {
        Ok(Self {
            spool: tempfile::tempfile_in(directory).map_err(spool_error("create", directory))?,
            directory: directory.into(),
            limit: limits.content_bytes,
            end: 0,
            known: HashMap::new(),
            list: Vec::new(),
            shared: 0,
        })
    }

    /// Refuses `bytes`, here or in the image, if they are more than may be.
    pub(crate) fn require_room(&self, bytes: u64) -> Result<()> {
        if bytes > self.limit {
            let object = "the contents of all files".into();
            return Err(Error::Limit { object, limit: self.limit, unit: "bytes", name: "content_bytes" });
        }
        Ok(())
    }

    pub(crate) fn get(&self, id: ContentId) -> &Content {
        &self.list[id.0 as usize].0
    }

    /// Bytes that needed no space because an equal content was there.
    pub(crate) fn shared(&self) -> u64 {
        self.shared
    }

    /// Begins a content; [`Writer::finish`] keeps it.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        let end = self.end;
        Writer {
            contents: self,
            hasher: Sha256::new(),
            partial: Vec::with_capacity(BLOCK),
            gathered: Vec::new(),
            end,
            size: 0,
            zeros: 0,
            holes: Vec::new(),
        }
    }

    /// Fills `buffer` with what the file has at `offset`; no more than its size may be asked for.
    pub(crate) fn read_at(&self, id: ContentId, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let (content, start) = &self.list[id.0 as usize];
        let mut skipped = 0;
        let mut holes = content.holes.iter();
        let mut hole = holes.next();
        while !buffer.is_empty() {
            let (from, to) = hole.map_or((u64::MAX, u64::MAX), |hole| {
                (hole.start * BLOCK as u64, (hole.start + hole.count) * BLOCK as u64)
            });
            if offset >= to {
                skipped += to - from;
                hole = holes.next();
                continue;
            }
            let in_hole = offset >= from;
            let most = if in_hole { to - offset } else { from - offset };
            let count = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
            let (part, rest) = buffer.split_at_mut(count);
            if in_hole {
                part.fill(0);
            } else {
                self.spool
                    .read_exact_at(part, start + offset - skipped)
                    .map_err(spool_error("read", &self.directory))?;
            }
            offset += count as u64;
            buffer = rest;
        }
        Ok(())
    }
}

/// Takes one content in order.
pub(crate) struct Writer<'a> {
    contents: &'a mut Contents,
    hasher: Sha256,
    /// An incomplete block.
    partial: Vec<u8>,
    gathered: Vec<u8>,
    /// Where `gathered` goes in the spool.
    end: u64,
    size: u64,
    /// Zero blocks at the end so far, not decided yet.
    zeros: u64,
    holes: Vec<Hole>,
}

impl Writer<'_> {
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.partial.is_empty() && bytes.len() >= BLOCK {
                let (block, rest) = bytes.split_at(BLOCK);
                self.block(block)?;
                bytes = rest;
            } else {
                let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
                self.partial.extend_from_slice(part);
                bytes = rest;
                if self.partial.len() == BLOCK {
                    self.flush_partial()?;
                }
            }
        }
        Ok(())
    }

    /// The same as writing `count` zeros, in no time.
    pub(crate) fn write_zeros(&mut self, count: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        let head = count.min((BLOCK - self.partial.len()) as u64 % BLOCK as u64);
        self.write(&zeros[..head as usize])?;
        let blocks = (count - head) / BLOCK as u64;
        self.zeros += blocks;
        self.size += blocks * BLOCK as u64;
        self.write(&zeros[..((count - head) % BLOCK as u64) as usize])
    }

    /// Keeps the content, or finds the equal one that is there.
    pub(crate) fn finish(mut self) -> Result<ContentId> {
        if !self.partial.is_empty() {
            self.flush_partial()?;
        }
        self.decide_zeros()?;
        let content = Content {
            digest: Digest(self.hasher.finalize_reset().into()),
            size: self.size,
            holes: std::mem::take(&mut self.holes).into_boxed_slice(),
        };
        if let Some(&id) = self.contents.known.get(&content) {
            self.contents.shared += content.stored();
            return Ok(id);
        }
        self.spill()?;
        let id = u32::try_from(self.contents.list.len())
            .map(ContentId)
            .map_err(|_| Error::unsupported("the store", "more than 2^32 different contents"))?;
        self.contents.known.insert(content.clone(), id);
        self.contents.list.push((content, self.contents.end));
        self.contents.end = self.end;
        Ok(id)
    }

    fn flush_partial(&mut self) -> Result<()> {
        let partial = std::mem::take(&mut self.partial);
        self.block(&partial)?;
        self.partial = partial;
        self.partial.clear();
        Ok(())
    }

    /// A whole block, or the last one, which is never part of a hole if it is shorter.
    fn block(&mut self, block: &[u8]) -> Result<()> {
        if block.iter().all(|&byte| byte == 0) && block.len() == BLOCK {
            self.zeros += 1;
            return Ok(());
        }
        self.decide_zeros()?;
        self.keep(block)
    }

    /// Zero blocks pending: a hole if they are enough, else data.
    fn decide_zeros(&mut self) -> Result<()> {
        let count = std::mem::take(&mut self.zeros);
        if count == 0 {
            return Ok(());
        }
        let stored: u64 = self.gathered.len() as u64 + self.end - self.contents.end;
        let holes: u64 = self.holes.iter().map(|hole| hole.count).sum();
        if count >= SHORTEST_HOLE && self.holes.len() < MOST_HOLES {
            self.holes.push(Hole { start: stored / BLOCK as u64 + holes, count });
        } else {
            // Before the first of them is written: a gap that a few bytes declare may be longer than the disk.
            self.require_room(count * BLOCK as u64)?;
            for _ in 0..count {
                self.keep(&[0; BLOCK])?;
            }
        }
        Ok(())
    }

    fn require_room(&self, more: u64) -> Result<()> {
        self.contents.require_room((self.end + self.gathered.len() as u64).saturating_add(more))
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        self.require_room(bytes.len() as u64)?;
        self.hasher.update(bytes);
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let Contents { spool, directory, .. } = &*self.contents;
        spool.write_all_at(&self.gathered, self.end).map_err(spool_error("write", directory))?;
        self.end += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
