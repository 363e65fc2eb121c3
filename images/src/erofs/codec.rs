//! The compression algorithms: what each is called, how it is set up, and its way with one chunk.

use std::io;

/// How the contents of layers are compressed. Settings are fixed, for the same input must give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// LZ4: read at memory speed by every kernel that has compressed EROFS at all.
    Lz4,
    /// Zstandard: smaller, slower to read; Linux 6.10.
    Zstd,
}

/// High compression, which costs the builder time and readers none. Level 12 takes four times as long to gain 0.3 %.
const LZ4_LEVEL: i32 = 9;
/// Level 12 takes twice as long to gain 0.4 %, level 15 twenty times as long to gain 6 %.
const ZSTD_LEVEL: i32 = 9;
/// log2 of the largest window that a frame asks for, in bytes: a chunk.
const ZSTD_WINDOW_BITS: u8 = (super::clusters::CHUNK as u32).trailing_zeros() as u8;
/// What the kernel adds to the window's field in the superblock's configuration.
const ZSTD_WINDOW_BASE: u8 = 10;

impl Algorithm {
    const ALL: [Self; 2] = [Self::Lz4, Self::Zstd];

    /// The name, as a declaration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The number in map headers, and of the bit in the superblock's set of algorithms.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Lz4 => 0,
            Self::Zstd => 3,
        }
    }

    /// The algorithm that is alone in a superblock's set.
    pub(super) fn of_set(set: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| 1 << algorithm.number() == set)
    }

    /// The configuration behind the superblock, its length in front (`z_erofs_lz4_cfgs`, `z_erofs_zstd_cfgs`).
    pub(super) fn configuration(self) -> Vec<u8> {
        let mut fields = match self {
            // The distance that matches reach back (0: LZ4's own 64 KiB), and the most blocks that a chunk takes.
            Self::Lz4 => {
                let mut fields = [0; 14];
                fields[2..4].copy_from_slice(&(super::clusters::CHUNK_BLOCKS as u16).to_le_bytes());
                fields.to_vec()
            }
            // The frames' format (0: the standard one), and the window.
            Self::Zstd => vec![0, ZSTD_WINDOW_BITS - ZSTD_WINDOW_BASE, 0, 0, 0, 0],
        };
        fields.splice(0..0, (fields.len() as u16).to_le_bytes());
        fields
    }

    /// A chunk's bytes out of its compressed form: exactly `size`, or `None` if that isn't what it holds.
    pub(super) fn decompress(self, bytes: &[u8], size: usize) -> Option<Vec<u8>> {
        let mut chunk = vec![0; size];
        let count = match self {
            Self::Lz4 => lz4::block::decompress_to_buffer(bytes, Some(i32::try_from(size).ok()?), &mut chunk).ok()?,
            Self::Zstd => zstd::bulk::decompress_to_buffer(bytes, &mut chunk).ok()?,
        };
        (count == size).then_some(chunk)
    }

    /// What compresses chunks, one after another.
    pub(super) fn compressor(self) -> io::Result<Compressor> {
        Ok(match self {
            Self::Lz4 => Compressor::Lz4,
            Self::Zstd => Compressor::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        })
    }
}

/// An algorithm at work. What it makes of a chunk doesn't depend on the chunks before.
pub(super) enum Compressor {
    Lz4,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    /// The compressed form of a chunk, whether or not it is smaller.
    pub(super) fn compress(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Lz4 => {
                let level = lz4::block::CompressionMode::HIGHCOMPRESSION(LZ4_LEVEL);
                lz4::block::compress(chunk, Some(level), false)
            }
            Self::Zstd(zstd) => zstd.compress(chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::clusters::CHUNK;
    use super::*;

    proptest! {
        #[test]
        fn chunks_come_back(unit in prop::collection::vec(any::<u8>(), 1..5000), size in 1..=CHUNK as usize) {
            let chunk: Vec<u8> = unit.iter().copied().cycle().take(size).collect();
            for algorithm in Algorithm::ALL {
                let bytes = algorithm.compressor().unwrap().compress(&chunk).unwrap();
                // Zeros in front of it are padding: its own first byte must not be one.
                prop_assert_ne!(bytes[0], 0);
                prop_assert!(algorithm.decompress(&bytes, size).unwrap() == chunk);
                prop_assert_eq!(algorithm.decompress(&bytes, size + 1), None);
                prop_assert_eq!(algorithm.decompress(&bytes, size - 1), None);
            }
        }

        #[test]
        fn any_bytes_decompress_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..5000), size in 0..=CHUNK as usize) {
            for algorithm in Algorithm::ALL {
                let _ = algorithm.decompress(&bytes, size);
            }
        }
    }

    #[test]
    fn sets_of_algorithms() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::of_set(1 << algorithm.number()), Some(algorithm));
        }
        for other in [0, 2, 4, 9, 16] {
            assert_eq!(Algorithm::of_set(other), None);
        }
    }
}
