//! The layer store: layers go in as tar streams, an EROFS image comes out.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::source::Image;
use crate::view::View;
use crate::{Error, Limits, Result};

/// Collects layers and files, then writes the EROFS image.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
}

/// What [`Store::finish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Size of the image in blocks of [`crate::erofs::BLOCK_SIZE`] bytes.
    pub blocks: u64,
    /// The filesystem's UUID, made from its content.
    pub uuid: [u8; 16],
    /// Files, directories, links and devices.
    pub inodes: u64,
    /// Different file contents stored in blocks of their own.
    pub contents: u64,
    /// Bytes those contents have, holes and padding not counted.
    pub content_bytes: u64,
    /// Bytes not stored because an equal content was there already.
    pub shared_bytes: u64,
    /// Bytes of inodes, directories, attributes and inline contents.
    pub metadata_bytes: u64,
}

impl Store {
    /// An empty store that keeps contents in a nameless file in the directory `scratch`, with the default [`Limits`].
    pub fn new(scratch: &Path) -> Result<Self> {
        Self::with_limits(scratch, Limits::default())
    }

    /// [`Store::new`] with other limits.
    pub fn with_limits(scratch: &Path, limits: Limits) -> Result<Self> {
        let _ = scratch;
        Ok(Self { limits })
    }

    /// Reads, verifies and checks layer `n` (0 is the bottom) of `image`, whose lower layers must have been added.
    ///
    /// A layer that is there already costs nothing. `progress` gets the number of bytes read from the source, each time
    /// some were. Returns the layer's directory in the image, `/layers/<diff id>`.
    pub fn add_layer(&mut self, image: &Image, n: usize, progress: &mut dyn FnMut(u64)) -> Result<String> {
        let _ = (n, progress, &self.limits);
        Err(Error::unsupported(image.reference.clone(), "layers can't be read yet"))
    }

    /// The layer directories to stack for `image`, the topmost first, as overlayfs wants them: no directory twice (it
    /// refuses that), none beneath a layer that hides everything below it.
    pub fn lowers(&self, image: &Image) -> Result<Vec<String>> {
        Err(Error::unsupported(image.reference.clone(), "layers can't be read yet"))
    }

    /// The merged view over the layers of `image`, all of which must have been added.
    pub fn view(&self, image: &Image) -> Result<View<'_>> {
        Err(Error::unsupported(image.reference.clone(), "layers can't be read yet"))
    }

    /// Adds a file owned by root at the absolute `path`, outside `/layers`; missing parents are made with mode 0755.
    ///
    /// Contents added here lie behind everything else in the order they were added: add last what changes most.
    pub fn add_file(&mut self, path: &str, mode: u32, content: impl Read) -> Result<()> {
        let _ = (mode, content);
        Err(Error::unsupported(path, "files can't be added yet"))
    }

    /// Adds an empty directory owned by root, or changes the mode of one that is there.
    pub fn add_dir(&mut self, path: &str, mode: u32) -> Result<()> {
        let _ = mode;
        Err(Error::unsupported(path, "directories can't be added yet"))
    }

    /// Writes the EROFS image to `out` from its beginning. `out` must be empty, readable and writable.
    pub fn finish(self, out: &mut File) -> Result<Summary> {
        let _ = out;
        Err(Error::unsupported("system image", "can't be written yet"))
    }
}
