//! A part of a file, read as if it were all of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes `start..start + length` of a file. Clones share the file and have a position each.
#[derive(Debug, Clone)]
pub struct Window {
    file: Arc<File>,
    start: u64,
    length: u64,
    position: u64,
}

impl Window {
    /// A window on a file; its end may lie beyond the file's.
    pub fn new(file: Arc<File>, start: u64, length: u64) -> Self {
        Self { file, start, length, position: 0 }
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The part of this window from `offset` on.
    pub fn tail(&self, offset: u64) -> Self {
        let offset = offset.min(self.length);
        Self::new(Arc::clone(&self.file), self.start.saturating_add(offset), self.length - offset)
    }

    /// This window, at most `length` bytes long.
    pub fn limited(self, length: u64) -> Self {
        Self { length: self.length.min(length), ..self }
    }

    /// Up to `length` bytes from its beginning; fewer where the file ends.
    pub fn head(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.tail(0).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills the buffer from `offset` on.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.tail(offset).read_exact(buffer)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..wanted], self.start.saturating_add(self.position))?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn shows_its_part_only() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut window = Window::new(Arc::new(file), 2, 5);
        let mut text = String::new();
        window.read_to_string(&mut text).unwrap();
        assert_eq!(text, "23456");
        assert_eq!(window.seek(SeekFrom::End(-1)).unwrap(), 4);
        assert_eq!(window.head(2).unwrap(), b"23");
        assert_eq!(window.tail(3).head(9).unwrap(), b"56");
        assert_eq!(window.tail(1).limited(2).head(9).unwrap(), b"34");
        assert_eq!(window.tail(9).head(9).unwrap(), b"");
        assert!(window.seek(SeekFrom::Current(-5)).is_err());
    }
}
