//! The EROFS superblock, as far as finding a system image needs it, and saying why it can't be mounted (`Documentation/filesystems/erofs.rst`).

use super::field::{le16, le32, le64};

/// Where the superblock lies in the filesystem, in bytes.
pub const OFFSET: usize = 1024;
/// How much of a disk [`size`] wants to see, in bytes.
pub const HEAD: usize = 2048;

const MAGIC: u32 = 0xe0f5_e1e2;
/// Block size of Garboard's images as a power of two: 4,096 bytes.
const BLOCK_BITS: u8 = 12;

/// Size in bytes of the filesystem that begins with `head`; `None` if that is no EROFS with 4,096-byte blocks.
pub fn size(head: &[u8]) -> Option<u64> {
    let superblock = head.get(OFFSET..)?;
    if le32(superblock, 0)? != MAGIC || *superblock.get(12)? != BLOCK_BITS {
        return None;
    }
    // On-disk fields: blocks_lo at 36; with the 48-bit layout (6.15) blocks beyond 2^32, which no image of ours reaches.
    let blocks = u64::from(le32(superblock, 36)?);
    let inodes = le64(superblock, 16)?;
    (blocks > 0 && inodes > 0).then_some(blocks.checked_mul(4096)?)
}

/// Incompatible features: compression that is configured behind the superblock, and compressed data of several files.
const COMPRESSED: u32 = 2;
const SHARED: u32 = 0x20;

/// What a kernel needs to read the compressed files of the filesystem that begins with `head`; `None` if there are none.
pub fn needs(head: &[u8]) -> Option<String> {
    let superblock = head.get(OFFSET..)?;
    let features = le32(superblock, 80)?;
    if le32(superblock, 0)? != MAGIC || features & COMPRESSED == 0 {
        return None;
    }
    // A bit for each algorithm, by its number.
    let (algorithm, option, release) = match le16(superblock, 84)? {
        1 => ("lz4", "CONFIG_EROFS_FS_ZIP", if features & SHARED == 0 { "5.13" } else { "6.1" }),
        8 => ("zstd", "CONFIG_EROFS_FS_ZIP_ZSTD", "6.10"),
        _ => return None,
    };
    Some(format!("compression = \"{algorithm}\" needs Linux {release} or newer with {option}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        head[1036] = 12;
        head[1040..1048].copy_from_slice(&7u64.to_le_bytes());
        head[1060..1064].copy_from_slice(&300u32.to_le_bytes());
        head
    }

    #[test]
    fn size_is_blocks_times_4096() {
        assert_eq!(size(&head()), Some(300 * 4096));
    }

    #[test]
    fn anything_else_is_refused() {
        for (offset, value) in [(1024, 0), (1036, 9), (1040, 0)] {
            let mut head = head();
            head[offset] = value;
            assert_eq!(size(&head), None, "byte {offset}");
        }
        assert_eq!(size(&[0; 100]), None);
    }

    #[test]
    fn compression_names_what_it_needs() {
        let says = |features: u8, algorithms: u8| {
            let mut head = head();
            (head[1024 + 80], head[1024 + 84]) = (features, algorithms);
            needs(&head)
        };
        assert_eq!(says(0, 0), None);
        assert_eq!(says(4, 0), None);
        assert!(says(3, 1).unwrap().contains("\"lz4\" needs Linux 5.13 or newer with CONFIG_EROFS_FS_ZIP"));
        assert!(says(0x27, 1).unwrap().contains("Linux 6.1 or"));
        assert!(says(0x23, 8).unwrap().contains("\"zstd\" needs Linux 6.10 or newer with CONFIG_EROFS_FS_ZIP_ZSTD"));
        assert_eq!(says(3, 2), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..HEAD)) {
            let _ = size(&bytes);
            let _ = needs(&bytes);
        }
    }
}
