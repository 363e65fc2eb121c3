//! Writes contents into blocks, as they are or compressed, and notes where each came to lie.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::thread;

use super::BLOCK_SIZE;
use super::clusters::{self, CHUNK, Chunk};
use super::codec::Algorithm;
use super::layout;
use super::output::Output;
use crate::contents::{Content, ContentId, Contents};
use crate::{Error, Result};

/// Bytes copied at a time.
const BUFFER: u64 = 256 << 10;
/// Chunks that are in memory together, to be compressed by all processors.
const BATCH: usize = 64;

/// Where a content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// First block.
    pub(super) first: u64,
    /// Blocks of each chunk of [`CHUNK`] bytes; empty if the content isn't in chunks.
    blocks: Vec<u8>,
}

impl Place {
    /// A content of which nothing is compressed.
    pub(super) fn plain(first: u64) -> Self {
        Self { first, blocks: Vec::new() }
    }

    /// Whether it is in chunks that may be compressed, and needs their index.
    pub(super) fn indexed(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Blocks of a content that is in chunks.
    pub(super) fn block_count(&self) -> u64 {
        self.blocks.iter().map(|&blocks| u64::from(blocks)).sum()
    }

    /// The chunks of such a content of `size` bytes.
    pub(super) fn chunks(&self, size: u64) -> impl Iterator<Item = Chunk> {
        let mut next = self.first;
        let mut left = size;
        self.blocks.iter().map(move |&blocks| {
            let chunk = Chunk { size: left.min(CHUNK), first: next, blocks: blocks.into() };
            next += chunk.blocks;
            left -= chunk.size;
            chunk
        })
    }
}

/// What is written at a time: a content as it is, or a chunk of one that may shrink.
struct Piece {
    id: ContentId,
    chunk: Option<Raw>,
}

struct Raw {
    /// The chunk's first byte in its content.
    from: u64,
    /// As it is, later as it is written if that is shorter.
    bytes: Vec<u8>,
    /// Blocks that it takes.
    blocks: u8,
}

/// Writes contents in this order, each from a new block. With an algorithm those that are not in `plain` and shrink are
/// compressed. Contents of which holes are the larger part keep them: nothing is still less than zeros compressed.
pub(super) fn write(
    output: &mut Output<'_>,
    contents: &Contents,
    ids: &[ContentId],
    compression: Option<Algorithm>,
    plain: &HashSet<ContentId>,
) -> Result<HashMap<ContentId, Place>> {
    let shrinkable = |id: &ContentId| {
        let content = contents.get(*id);
        let solid = content.stored() >= content.size / 2;
        compression.is_some() && !plain.contains(id) && solid && content.size > BLOCK_SIZE
    };
    let mut pieces = ids.iter().flat_map(|id| pieces(*id, contents.get(*id), shrinkable(id)));
    let mut places: HashMap<ContentId, Place> = HashMap::new();
    loop {
        let mut batch: Vec<Piece> = pieces.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        for Piece { id, chunk } in &mut batch {
            if let Some(raw) = chunk {
                contents.read_at(*id, raw.from, &mut raw.bytes)?;
            }
        }
        if let Some(algorithm) = compression {
            compress(&mut batch, algorithm)?;
        }
        for Piece { id, chunk } in batch {
            if chunk.as_ref().is_none_or(|raw| raw.from == 0) {
                output.account(&contents.get(id).digest.0);
                places.insert(id, Place::plain(output.position / BLOCK_SIZE));
            }
            match chunk {
                None => whole(output, contents, id)?,
                Some(raw) => {
                    output.raw(&raw.bytes)?;
                    places.entry(id).and_modify(|place| place.blocks.push(raw.blocks));
                }
            }
            output.pad_block()?;
        }
    }
    for (id, place) in &mut places {
        let content = contents.get(*id);
        // Blocks that all stand as they are, one after another, need no index.
        if content.holes.is_empty() && !place.chunks(content.size).any(|chunk| chunk.compressed()) {
            place.blocks = Vec::new();
        }
    }
    Ok(places)
}

/// What a content is written in.
fn pieces(id: ContentId, content: &Content, shrinkable: bool) -> impl Iterator<Item = Piece> {
    let size = content.size;
    let chunks = if shrinkable { size.div_ceil(CHUNK) } else { 0 };
    let whole = (!shrinkable).then_some(Piece { id, chunk: None });
    whole.into_iter().chain((0..chunks).map(move |n| {
        let length = (size - n * CHUNK).min(CHUNK);
        let bytes = vec![0; length as usize];
        Piece { id, chunk: Some(Raw { from: n * CHUNK, bytes, blocks: length.div_ceil(BLOCK_SIZE) as u8 }) }
    }))
}

/// Compresses chunks on all processors. Each by itself, so that the result doesn't depend on their number.
fn compress(batch: &mut [Piece], algorithm: Algorithm) -> Result<()> {
    let mut chunks: Vec<&mut Raw> = batch.iter_mut().filter_map(|piece| piece.chunk.as_mut()).collect();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = chunks.len().div_ceil(threads).max(1);
    let failed = |cause| Error::Io { operation: "compress", object: "file contents".into(), cause };
    thread::scope(|scope| {
        let run = |part| scope.spawn(move || compress_part(part, algorithm));
        let workers: Vec<_> = chunks.chunks_mut(share).map(run).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn compress_part(chunks: &mut [&mut Raw], algorithm: Algorithm) -> std::io::Result<()> {
    let mut compressor = algorithm.compressor()?;
    for raw in chunks {
        let compressed = compressor.compress(&raw.bytes)?;
        let blocks = compressed.len().div_ceil(BLOCK_SIZE as usize);
        if blocks < usize::from(raw.blocks) {
            raw.bytes = vec![0; clusters::padding(compressed.len())];
            raw.bytes.extend(compressed);
            raw.blocks = blocks as u8;
        }
    }
    Ok(())
}

/// A content as it is, its holes left out.
fn whole(output: &mut Output<'_>, contents: &Contents, id: ContentId) -> Result<()> {
    let content = contents.get(id);
    if content.holes.is_empty() {
        return copy(output, contents, id, 0, content.size);
    }
    let mut at = 0;
    for (blocks, hole) in layout::chunks(content) {
        let to = (at + blocks * BLOCK_SIZE).min(content.size);
        if !hole {
            copy(output, contents, id, at, to)?;
        }
        at = to;
    }
    Ok(())
}

/// A content's bytes from `from` to `to`.
fn copy(output: &mut Output<'_>, contents: &Contents, id: ContentId, from: u64, to: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER.min(to - from) as usize];
    let mut at = from;
    while at < to {
        let part = &mut buffer[..BUFFER.min(to - at) as usize];
        contents.read_at(id, at, part)?;
        output.raw(part)?;
        at += part.len() as u64;
    }
    Ok(())
}
