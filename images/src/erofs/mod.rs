//! EROFS, the read-only filesystem of the system image: a writer and a bounded reader.

/// Bytes of a block. Also the page size of x86-64, which every kernel mounts.
pub const BLOCK_SIZE: u64 = 4096;
