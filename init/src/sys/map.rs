//! Files as memory, to be read.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use rustix::fs::SealFlags;

/// The beginning of a sealed memfd. It takes memory of the process's own only while it lives.
#[derive(Debug)]
pub struct Mapped {
    start: *const u8,
    length: usize,
}

impl Mapped {
    /// Maps the first `length` bytes of a file that can't become shorter than that: a memfd with F_SEAL_SHRINK (memfd_create(2)).
    pub fn of(file: impl AsFd, length: usize) -> io::Result<Self> {
        let file = file.as_fd();
        let sealed = rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK);
        let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or_default();
        if !sealed || size < length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is affected.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// A copy of what is there, at most so many bytes. What is written to the file meanwhile may be in it in part.
    pub fn bytes(&self, at: usize, most: usize) -> Vec<u8> {
        let count = self.length.saturating_sub(at).min(most);
        let mut bytes = vec![0; count];
        if count > 0 {
            // SAFETY: `at + count` is within the mapping, all of which the file has (see `of`), and the vector has so many bytes. This
            // thread writes nothing to the file meanwhile; who else did would make the copy untrue, and no more than that.
            unsafe { ptr::copy_nonoverlapping(self.start.add(at), bytes.as_mut_ptr(), count) };
        }
        bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping from `of`; nothing points into it.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    #[test]
    fn what_can_become_shorter_is_not_mapped() {
        let file = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&file, b"hello").unwrap();
        assert!(Mapped::of(&file, 5).is_err());
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        assert!(Mapped::of(&file, 6).is_err());
        let mapped = Mapped::of(&file, 5).unwrap();
        let read = |at, most| String::from_utf8(mapped.bytes(at, most)).unwrap();
        assert_eq!([read(0, 5), read(3, 9), read(5, 1), read(usize::MAX, 1)], ["hello", "lo", "", ""]);
    }
}
