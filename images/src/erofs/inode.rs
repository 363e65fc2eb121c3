//! Inodes on disk.

use super::format::{CHUNK_BASED, COMPACT_SIZE, COMPRESSED, EXTENDED_SIZE, FLAT_INLINE, FLAT_PLAIN};

/// An inode's fields, whichever of the two sizes it has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawInode {
    /// One of the numbers of layouts in [`super::format`].
    pub(super) layout: u16,
    /// As encoded: 0 for no attributes, else words behind the 12-byte header plus 1.
    pub(super) xattr_count: u16,
    /// With the file type.
    pub(super) mode: u16,
    pub(super) size: u64,
    /// First block, number of compressed blocks, device number or chunk format.
    pub(super) union: u32,
    /// A number for 32-bit programs.
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) links: u32,
    /// The 64-byte form, whether or not the 32-byte one would do.
    pub(super) extended: bool,
}

impl RawInode {
    /// The same in the smaller form that holds everything. The 32-byte form has no time of its own, only that of the
    /// filesystem's making, which is 0.
    pub(super) fn smallest(self) -> Self {
        let compact = self.mtime == (0, 0)
            && self.size <= u64::from(u32::MAX)
            && [self.uid, self.gid, self.links].iter().all(|&value| value <= u32::from(u16::MAX));
        Self { extended: !compact, ..self }
    }

    /// Bytes on disk.
    pub(super) fn disk_size(&self) -> usize {
        if self.extended { EXTENDED_SIZE } else { COMPACT_SIZE }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.disk_size()];
        let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(0, &(self.layout << 1 | u16::from(self.extended)).to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(16, &self.union.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        if !self.extended {
            put(6, &(self.links as u16).to_le_bytes());
            put(8, &(self.size as u32).to_le_bytes());
            put(24, &(self.uid as u16).to_le_bytes());
            put(26, &(self.gid as u16).to_le_bytes());
        } else {
            put(8, &self.size.to_le_bytes());
            put(24, &self.uid.to_le_bytes());
            put(28, &self.gid.to_le_bytes());
            put(32, &self.mtime.0.to_le_bytes());
            put(40, &self.mtime.1.to_le_bytes());
            put(44, &self.links.to_le_bytes());
        }
        bytes
    }

    /// From the 64 bytes at an inode's place, of which a compact one needs 32. `None` for what isn't understood.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let u16_at = |offset: usize| Some(u16::from_le_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?));
        let u32_at = |offset: usize| Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?));
        let u64_at = |offset: usize| Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?));
        let format = u16_at(0)?;
        let (layout, extended) = (format >> 1 & 7, format & 1 == 1);
        if format >> 4 != 0 || ![FLAT_PLAIN, COMPRESSED, FLAT_INLINE, CHUNK_BASED].contains(&layout) {
            return None;
        }
        let inode = Self {
            layout,
            xattr_count: u16_at(2)?,
            mode: u16_at(4)?,
            size: u64::from(u32_at(8)?),
            union: u32_at(16)?,
            number: u32_at(20)?,
            uid: u32::from(u16_at(24)?),
            gid: u32::from(u16_at(26)?),
            mtime: (0, 0),
            links: u32::from(u16_at(6)?),
            extended,
        };
        if !extended {
            return Some(inode);
        }
        Some(Self {
            size: u64_at(8)?,
            uid: u32_at(24)?,
            gid: u32_at(28)?,
            mtime: (u64_at(32)?.cast_signed(), u32_at(40)?),
            links: u32_at(44)?,
            ..inode
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: RawInode = RawInode {
        layout: FLAT_INLINE,
        xattr_count: 3,
        mode: 0o100_644,
        size: 5,
        union: 77,
        number: 2,
        uid: 1000,
        gid: 65535,
        mtime: (0, 0),
        links: 2,
        extended: false,
    };

    #[test]
    fn both_sizes_come_back() {
        let large = [
            RawInode { mtime: (-5, 3), ..SMALL },
            RawInode { uid: 65536, ..SMALL },
            RawInode { gid: 70000, ..SMALL },
            RawInode { size: 1 << 40, ..SMALL },
            RawInode { links: 1 << 17, ..SMALL },
        ];
        assert_eq!(SMALL.encode().len(), 32);
        assert_eq!(RawInode::decode(&SMALL.encode()), Some(SMALL));
        for inode in large.map(RawInode::smallest) {
            assert_eq!(inode.encode().len(), 64);
            assert_eq!(RawInode::decode(&inode.encode()), Some(inode));
            assert_eq!(RawInode::decode(&inode.encode()[..63 - 16]), None);
        }
    }
}
