//! Numbers of the on-disk format, and the superblock.

use super::codec::Algorithm;
use crate::{Error, Result};

/// Where the superblock is.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// log2 of the block size.
pub(super) const BLOCK_BITS: u8 = 12;

/// The superblock carries a checksum.
const COMPAT_CHECKSUM: u32 = 1;
/// Extended inodes hold modification times.
const COMPAT_MTIME: u32 = 2;
/// There are chunk-based files (Linux 5.15).
pub(super) const INCOMPAT_CHUNKED: u32 = 4;
/// Compressed data stand at the end of their blocks; the algorithms are configured behind the superblock (Linux 5.13).
const INCOMPAT_COMPRESSED: u32 = 1 | 2;
/// Compressed data belong to several files (Linux 6.1: before, two such files that were read at once failed).
pub(super) const INCOMPAT_SHARED: u32 = 0x20;
/// Where the configuration is, in the superblock's block.
const CONFIGURATION_OFFSET: usize = SUPERBLOCK_OFFSET as usize + 128;

/// Unit of inode numbers, in bytes.
pub(super) const SLOT: u64 = 32;
pub(super) const COMPACT_SIZE: usize = 32;
pub(super) const EXTENDED_SIZE: usize = 64;

/// Data in whole blocks.
pub(super) const FLAT_PLAIN: u16 = 0;
/// Data in compressed chunks, whose index follows the inode.
pub(super) const COMPRESSED: u16 = 1;
/// Data in whole blocks but the last part, which follows the inode in the same block.
pub(super) const FLAT_INLINE: u16 = 2;
/// A map of chunks follows the inode.
pub(super) const CHUNK_BASED: u16 = 4;

/// The address of a chunk that is a hole.
pub(super) const NULL_ADDRESS: u32 = u32::MAX;
/// Bytes of one address in a chunk map.
pub(super) const CHUNK_ENTRY: u64 = 4;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFSOCK: u16 = 0o140_000;

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) root_nid: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    /// Block at which inode numbers begin to count.
    pub(crate) meta_block: u32,
    pub(crate) uuid: [u8; 16],
    /// Flags, those of compression left out.
    pub(crate) incompatible: u32,
    /// How the compressed files are compressed; `None` if there are none.
    pub(crate) compression: Option<Algorithm>,
}

impl Superblock {
    /// The first block of the image, all of it. Time of build and volume name are 0: nothing but content counts.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; 1 << BLOCK_BITS];
        let start = SUPERBLOCK_OFFSET as usize;
        let mut put = |offset: usize, bytes: &[u8]| block[start + offset..][..bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(48, &self.uuid);
        let mut incompatible = self.incompatible;
        if let Some(algorithm) = self.compression {
            incompatible |= INCOMPAT_COMPRESSED;
            put(84, &(1u16 << algorithm.number()).to_le_bytes());
            put(CONFIGURATION_OFFSET - start, &algorithm.configuration());
        }
        put(80, &incompatible.to_le_bytes());
        let checksum = checksum(&block[start..]);
        block[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads the first block of an image.
    pub(super) fn decode(block: &[u8]) -> Result<Self> {
        let bad = |detail: &str| Error::malformed("EROFS image", detail);
        let Some(area) = block.get(SUPERBLOCK_OFFSET as usize..1 << BLOCK_BITS) else {
            return Err(bad("shorter than a block"));
        };
        let u16_at = |offset: usize| u16::from_le_bytes([area[offset], area[offset + 1]]);
        let u32_at = |offset: usize| u32::from(u16_at(offset)) | u32::from(u16_at(offset + 2)) << 16;
        if u32_at(0) != MAGIC {
            return Err(bad("no EROFS superblock"));
        }
        if area[12] != BLOCK_BITS {
            return Err(Error::unsupported("EROFS image", "blocks of another size than 4096 bytes"));
        }
        if u32_at(8) & COMPAT_CHECKSUM == 0 || u32_at(4) != checksum(area) {
            return Err(bad("the superblock's checksum is wrong"));
        }
        let unknown = || Error::unsupported("EROFS image", "a feature or a compression that Garboard doesn't write");
        let (incompatible, compressed) = (u32_at(80) & !INCOMPAT_COMPRESSED, u32_at(80) & INCOMPAT_COMPRESSED);
        let compression = match compressed {
            0 if u16_at(84) == 0 => None,
            INCOMPAT_COMPRESSED => Some(Algorithm::of_set(u16_at(84)).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        };
        let configured = |algorithm: &Algorithm| block[CONFIGURATION_OFFSET..].starts_with(&algorithm.configuration());
        if incompatible & !(INCOMPAT_CHUNKED | INCOMPAT_SHARED) != 0 || !compression.iter().all(configured) {
            return Err(unknown());
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&area[48..64]);
        Ok(Self {
            root_nid: u16_at(14),
            inodes: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            blocks: u32_at(36),
            meta_block: u32_at(40),
            uuid,
            incompatible,
            compression,
        })
    }
}

/// CRC-32C from the superblock to the end of its block, its own field taken as 0; not inverted at the end.
fn checksum(area: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&area[..4]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    !crc32c::crc32c_append(crc, &area[8..])
}

/// A device number as the kernel's `new_encode_dev` has it.
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

/// The reverse of [`encode_device`].
pub(super) fn decode_device(number: u32) -> (u32, u32) {
    (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_round_trip_and_every_flipped_bit() {
        let mut superblock = Superblock {
            root_nid: 2,
            inodes: 7,
            blocks: 90,
            meta_block: 80,
            uuid: [9; 16],
            incompatible: INCOMPAT_CHUNKED,
            compression: None,
        };
        for compression in [None, Some(Algorithm::Lz4), Some(Algorithm::Zstd)] {
            superblock.compression = compression;
            assert_eq!(Superblock::decode(&superblock.encode()).unwrap(), superblock);
        }
        let block = superblock.encode();
        for bit in 1024 * 8..4096 * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&damaged).is_err(), "bit {bit}");
        }
        assert!(Superblock::decode(&block[..4095]).is_err());
    }

    #[test]
    fn device_numbers() {
        for (major, minor) in [(0, 0), (1, 3), (4095, (1 << 20) - 1), (8, 256), (259, 65535)] {
            assert_eq!(decode_device(encode_device(major, minor)), (major, minor));
        }
        assert_eq!(encode_device(1, 3), 0x103);
    }
}
