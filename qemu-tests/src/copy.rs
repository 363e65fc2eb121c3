//! Copies disk images without their holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Copies `from` to the new file `to`, blocks of zeros becoming holes, and makes it at least `size` bytes long.
pub fn sparse(from: &Path, to: &Path, size: u64) -> io::Result<()> {
    let length = std::fs::metadata(from)?.len();
    let mut to = File::options().write(true).create_new(true).open(to)?;
    to.set_len(length.max(size))?;
    range(from, 0, length, &mut to, 0)?;
    // Whoever gives it its name relies on what is in it.
    to.sync_all()
}

/// Copies `length` bytes of `from` at `start` to `to` at `at`, where there is a hole.
pub fn range(from: &Path, start: u64, length: u64, to: &mut File, at: u64) -> io::Result<()> {
    let mut from = File::open(from)?;
    from.seek(SeekFrom::Start(start))?;
    let mut from = from.take(length);
    to.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let filled = from.read(&mut buffer)?;
        let piece = &buffer[..filled];
        if piece.is_empty() {
            return Ok(());
        }
        if piece.iter().all(|&byte| byte == 0) {
            to.seek(SeekFrom::Current(filled as i64))?;
        } else {
            to.write_all(piece)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn keeps_contents_and_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        let mut file = File::create(&a).unwrap();
        file.write_all(b"first").unwrap();
        file.seek(SeekFrom::Start(8 << 20)).unwrap();
        file.write_all(b"last").unwrap();
        sparse(&a, &b, 16 << 20).unwrap();
        let (wanted, mut found) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        assert_eq!(found.len(), 16 << 20);
        assert!(found.split_off(wanted.len()).iter().all(|&byte| byte == 0));
        assert!(wanted == found);
        assert!(std::fs::metadata(&b).unwrap().blocks() * 512 < 2 << 20);
        assert!(sparse(&a, &b, 0).is_err(), "an existing file is not overwritten");
    }
}
