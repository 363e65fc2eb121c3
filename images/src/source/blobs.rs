//! Named pieces of bytes: files of a directory or members of an archive.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{Error, Result};

/// Where an image's pieces are.
pub(super) trait Blobs: Send + Sync {
    /// Opens a piece by its path in the source; also its size.
    fn open(&self, name: &str) -> Result<(Section, u64)>;
}

/// Reads a part of a file without moving a shared position.
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    pub(super) fn new(file: Arc<File>, at: u64, length: u64) -> Self {
        Self { file, at, end: at.saturating_add(length) }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A layout directory.
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Blobs for Directory {
    /// `name` is one of this crate's own making (`index.json`, `blobs/sha256/<hex>`), never taken from the image.
    fn open(&self, name: &str) -> Result<(Section, u64)> {
        let path = self.root.join(name);
        let shown = path.display().to_string();
        // Asked before opening: opening a fifo would wait for its writer.
        let metadata = std::fs::metadata(&path).map_err(Error::io("open", &shown))?;
        if !metadata.is_file() {
            return Err(Error::malformed(shown, "not a regular file"));
        }
        let file = File::open(&path).map_err(Error::io("open", &shown))?;
        let size = file.metadata().map_err(Error::io("open", &shown))?.len();
        Ok((Section::new(Arc::new(file), 0, size), size))
    }
}
