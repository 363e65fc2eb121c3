//! What a container would see: an image's layers merged.

use std::marker::PhantomData;

use crate::{Error, Result};

/// The layers of one image merged as overlayfs does it. Paths are resolved inside the image, symbolic links included.
#[derive(Debug)]
pub struct View<'a> {
    store: PhantomData<&'a ()>,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Bytes, of a file; 0 for others.
    pub size: u64,
}

/// The kinds of file, symbolic links excepted (they are followed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A device node, fifo or socket.
    Special,
}

impl View<'_> {
    /// What lies at `path` (absolute inside the image; a relative one is taken from `/`); `None` if nothing does.
    pub fn metadata(&self, path: &str) -> Result<Option<Metadata>> {
        let _ = self.store;
        Err(Error::unsupported(path, "can't be looked up yet"))
    }

    /// The content of the regular file at `path`; `None` if nothing lies there, an error if it is more than `limit` bytes
    /// or no regular file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let _ = limit;
        Err(Error::unsupported(path, "can't be read yet"))
    }
}
