//! EROFS, the read-only filesystem of the system image: a writer and a bounded reader.
//!
//! On-disk format as in the kernel's `fs/erofs/erofs_fs.h` and its documentation; `FORMAT.md` says which parts are used.

mod clusters;
mod codec;
mod dirents;
pub(crate) mod format;
mod inode;
mod layout;
mod order;
mod output;
mod pack;
mod reader;
mod unpack;
mod write;
pub(crate) mod xattr;

pub use codec::Algorithm;
pub use reader::{Entry, FileKind, Inode, Reader};
pub(crate) use write::write;

/// Bytes of a block. Also the page size of x86-64, which every kernel mounts.
pub const BLOCK_SIZE: u64 = 4096;
