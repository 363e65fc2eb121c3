//! Compressed files: cut into chunks, each compressed by itself, and the index that says where they are.
//!
//! The index has an 8-byte header, 8 bytes of padding and 8 bytes for each 4096 bytes of the file ("full" indexes, Linux 5.3;
//! chunks of several blocks, Linux 5.13). What the kernel would allow beyond this, chunks that begin anywhere or share
//! blocks, would make images some hundredths smaller and the first byte of a file depend on all before it.

use super::BLOCK_SIZE;
use super::codec::Algorithm;

/// Blocks of a file in one chunk.
pub(super) const CHUNK_BLOCKS: u64 = 32;
/// Bytes of a chunk; only the last one of a file is shorter.
pub(super) const CHUNK: u64 = CHUNK_BLOCKS * BLOCK_SIZE;
/// Bytes of header and padding in front of the index.
pub(super) const HEADER: u64 = 16;
/// Bytes of an index entry.
pub(super) const ENTRY: u64 = 8;

/// "Chunks may have several blocks", in the header.
const ADVISE_BIG: u16 = 2;
/// Kinds of entry: a block stored as it is (or the end of the last chunk), a chunk's first, its others.
const PLAIN: u16 = 0;
const HEAD: u16 = 1;
const NONHEAD: u16 = 2;
/// Marks the number of a chunk's blocks where otherwise a distance stands.
const BLOCK_COUNT: u16 = 1 << 11;

/// Where the index of an inode begins whose attributes end at `end`, both in bytes.
pub(super) fn start(end: u64) -> u64 {
    end.next_multiple_of(8)
}

/// Bytes of header and index of a file.
pub(super) fn size(file: u64) -> u64 {
    HEADER + file.div_ceil(BLOCK_SIZE) * ENTRY
}

/// The header.
pub(super) fn header(algorithm: Algorithm) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[4..6].copy_from_slice(&ADVISE_BIG.to_le_bytes());
    header[6] = algorithm.number();
    header
}

/// A chunk: its bytes in the file, and the blocks that hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its bytes, decompressed: at most [`CHUNK`].
    pub(super) size: u64,
    /// First block.
    pub(super) first: u64,
    /// Blocks. As many as its bytes need: it is stored as it is.
    pub(super) blocks: u64,
}

impl Chunk {
    /// Whether it is compressed, rather than stored as it is.
    pub(super) fn compressed(&self) -> bool {
        self.blocks < self.size.div_ceil(BLOCK_SIZE)
    }

    /// Its entries of the index.
    pub(super) fn entries(&self) -> Vec<u8> {
        let count = self.size.div_ceil(BLOCK_SIZE) as u16;
        let end = (self.size % BLOCK_SIZE) as u16;
        let mut bytes = Vec::with_capacity(usize::from(count) * ENTRY as usize);
        let mut put = |kind: u16, offset: u16, rest: u32| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.extend(rest.to_le_bytes());
        };
        let distances = |back: u16, forth: u16| u32::from(back) | u32::from(forth) << 16;
        for n in 0..count {
            match n {
                _ if !self.compressed() => put(PLAIN, 0, (self.first + u64::from(n)) as u32),
                0 => put(HEAD, 0, self.first as u32),
                // Where in its last 4096 bytes the file ends, so that no more is asked of the chunk than it has.
                _ if n + 1 == count && end > 0 => put(PLAIN, end, 0),
                1 => put(NONHEAD, 0, distances(self.blocks as u16 | BLOCK_COUNT, count - 1)),
                _ => put(NONHEAD, 0, distances(n, count - n)),
            }
        }
        bytes
    }

    /// The chunk of `size` bytes that these entries are of; `None` if they are not as [`Self::entries`] makes them.
    pub(super) fn parse(size: u64, entries: &[u8]) -> Option<Self> {
        let (head, second) = (entries.get(..8)?, entries.get(8..16));
        let first = u64::from(u32::from_le_bytes(head[4..].try_into().ok()?));
        let count = size.div_ceil(BLOCK_SIZE);
        let blocks = match (u16::from_le_bytes([head[0], head[1]]), second) {
            (PLAIN, _) => count,
            (HEAD, Some(&[2, 0, _, _, low, high, ..])) => u64::from(u16::from_le_bytes([low, high]) & !BLOCK_COUNT),
            _ => 1,
        };
        let chunk = Self { size, first, blocks };
        (1..=count).contains(&blocks).then_some(chunk).filter(|chunk| chunk.entries() == entries)
    }
}

/// A compressed chunk as it stands in its blocks: at their end, zeros in front.
pub(super) fn padding(compressed: usize) -> usize {
    compressed.next_multiple_of(BLOCK_SIZE as usize) - compressed
}

/// The compressed chunk in its blocks. Zeros in front of it are padding, less than a block of them.
pub(super) fn without_padding(blocks: &[u8]) -> &[u8] {
    let zeros = blocks.iter().take(BLOCK_SIZE as usize).take_while(|&&byte| byte == 0).count();
    blocks.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_by_hand() {
        let words = |chunk: Chunk| -> Vec<[u16; 4]> {
            let word = |bytes: &[u8], n: usize| u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]]);
            chunk.entries().chunks(8).map(|entry| [0, 1, 2, 3].map(|n| word(entry, n))).collect()
        };
        // Three blocks of which the last isn't full: head, block count, end of the file.
        let odd = Chunk { size: 9000, first: 0x1_0007, blocks: 2 };
        assert_eq!(words(odd), [[1, 0, 7, 1], [2, 0, 0x802, 2], [0, 808, 0, 0]]);
        let even = Chunk { size: 4 * 4096, first: 7, blocks: 1 };
        assert_eq!(words(even), [[1, 0, 7, 0], [2, 0, 0x801, 3], [2, 0, 2, 2], [2, 0, 3, 1]]);
        let plain = Chunk { size: 5000, first: 7, blocks: 2 };
        assert_eq!(words(plain), [[0, 0, 7, 0], [0, 0, 8, 0]]);
    }

    proptest! {
        #[test]
        fn chunks_come_back(size in 1..=CHUNK, first in any::<u32>(), blocks in 1..=CHUNK_BLOCKS) {
            let first = u64::from(first.min(u32::MAX - CHUNK_BLOCKS as u32));
            let chunk = Chunk { size, first, blocks: blocks.min(size.div_ceil(BLOCK_SIZE)) };
            // A file of two blocks has no place for the number; 1 is the only one that would be smaller.
            prop_assert_eq!(Chunk::parse(size, &chunk.entries()), Some(chunk));
        }

        #[test]
        fn any_entries_parse_or_fail(size in 1..=CHUNK, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Chunk::parse(size, &bytes);
        }

        #[test]
        fn padding_is_taken_away(length in 1usize..20_000) {
            let blocks = [vec![0; padding(length)], vec![7; length]].concat();
            prop_assert_eq!(blocks.len() % BLOCK_SIZE as usize, 0);
            prop_assert_eq!(without_padding(&blocks).len(), length);
        }
    }
}
