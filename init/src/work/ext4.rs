//! The ext4 superblock, as far as finding and growing a filesystem needs it (`Documentation/filesystems/ext4/super.rst`).

use crate::boot::field::{bytes, le16, le32};

/// Where the superblock lies, in bytes.
pub const OFFSET: u64 = 1024;
/// Its length, in bytes.
pub const LENGTH: usize = 1024;

const INCOMPAT_64BIT: u32 = 0x80;
const STATE_ERRORS: u16 = 2;

/// An ext4 filesystem, as its superblock describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The filesystem's UUID.
    pub uuid: [u8; 16],
    /// Block size in bytes.
    pub block_size: u64,
    /// Size in blocks.
    pub blocks: u64,
    /// The kernel noticed damage in it and marked it so.
    pub has_errors: bool,
}

impl Superblock {
    /// Reads a superblock; `None` if it is none.
    pub fn parse(data: &[u8]) -> Option<Self> {
        if le16(data, 56)? != 0xef53 {
            return None;
        }
        let block_size = 1024u64.checked_shl(le32(data, 24)?.min(64)).filter(|size| *size <= 65536 && *size > 0)?;
        let high = if le32(data, 96)? & INCOMPAT_64BIT != 0 { le32(data, 336)? } else { 0 };
        Some(Self {
            uuid: bytes(data, 104)?,
            block_size,
            blocks: u64::from(le32(data, 4)?) | u64::from(high) << 32,
            has_errors: le16(data, 58)? & STATE_ERRORS != 0,
        })
    }

    /// How many blocks fill a device of `bytes` bytes, if that is more than the filesystem has.
    pub fn growth(&self, bytes: u64) -> Option<u64> {
        bytes.checked_div(self.block_size).filter(|blocks| *blocks > self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut data = vec![0; LENGTH];
        data[4..8].copy_from_slice(&16384u32.to_le_bytes());
        data[24] = 2;
        data[56..58].copy_from_slice(&[0x53, 0xef]);
        data[58] = 1;
        data[104..120].fill(7);
        data
    }

    #[test]
    fn fields_are_read() {
        let sb = Superblock::parse(&sample()).unwrap();
        assert_eq!(sb, Superblock { uuid: [7; 16], block_size: 4096, blocks: 16384, has_errors: false });
        assert_eq!(sb.growth(64 << 20), None);
        assert_eq!(sb.growth((128 << 20) + 1000), Some(32768));
    }

    #[test]
    fn large_and_damaged_filesystems() {
        let mut data = sample();
        data[96] = 0x80;
        data[336] = 1;
        data[58] = 3;
        let sb = Superblock::parse(&data).unwrap();
        assert_eq!((sb.blocks, sb.has_errors), ((1 << 32) | 16384, true));
    }

    #[test]
    fn others_are_refused() {
        assert_eq!(Superblock::parse(&[0; LENGTH]), None);
        assert_eq!(Superblock::parse(&sample()[..110]), None);
        let mut data = sample();
        data[24] = 60;
        assert_eq!(Superblock::parse(&data), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..LENGTH, to: u8, size: u64) {
            let _ = Superblock::parse(&bytes);
            let mut data = sample();
            data[at] = to;
            if let Some(sb) = Superblock::parse(&data) {
                let _ = sb.growth(size);
            }
        }
    }
}
