//! Writes a cpio archive in the "newc" format that the kernel unpacks as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Own code rather than a crate: a header is thirteen hexadecimal numbers, and every field that could differ between two
//! builds (inode numbers, times, owners) has to be fixed here anyway.

use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// An archive being written. Entries keep the order they are added in; parents must come before what is in them.
pub struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// Adds a directory, owned by root.
    pub fn directory(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.entry(path, S_IFDIR | permissions, (0, 0), &[])
    }

    /// Adds a regular file, owned by root.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(path, S_IFREG | permissions, (0, 0), contents)
    }

    /// Adds a character device node with major and minor number, owned by root.
    pub fn character_device(&mut self, path: &str, permissions: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, S_IFCHR | permissions, number, &[])
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header(TRAILER, 0, (0, 0), 0)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::other(format!("{path}: {} bytes; cpio's limit is 4 GiB", contents.len())))?;
        self.header(path.trim_start_matches('/'), mode, device, size)?;
        self.write(contents)?;
        self.pad()
    }

    fn header(&mut self, name: &str, mode: u32, device: (u32, u32), size: u32) -> io::Result<()> {
        // c_namesize counts the terminating zero.
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::Error::other("name too long for cpio"))?;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = MAGIC.to_owned();
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Names and contents end at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.directory("/dev", 0o755).unwrap();
        archive.character_device("/dev/console", 0o600, (5, 1)).unwrap();
        archive.file("/init", 0o755, b"#!/bin/x\n").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn cpio_reads_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("archive");
        std::fs::write(&file, sample()).unwrap();
        let list = std::process::Command::new("cpio").args(["-itv", "--numeric-uid-gid", "-F"]).arg(&file).output();
        let list = list.expect("cpio runs (Debian: cpio)");
        let text = String::from_utf8(list.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("drwxr-xr-x   2 0        0 "), "{text}");
        assert!(lines[1].starts_with("crw-------   1 0        0          5,   1 Jan  1  1970 dev/console"), "{text}");
        assert!(lines[2].starts_with("-rwxr-xr-x   1 0        0               9 Jan  1  1970 init"), "{text}");
    }

    #[test]
    fn every_part_is_aligned_and_the_trailer_ends_it() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        let magics = bytes.windows(6).enumerate().filter(|(_, w)| *w == b"070701").map(|(at, _)| at);
        assert!(magics.clone().all(|at| at % 4 == 0), "{:?}", magics.collect::<Vec<_>>());
        assert!(bytes.windows(TRAILER.len()).any(|w| w == TRAILER.as_bytes()));
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        assert_eq!(sample(), sample());
    }
}
