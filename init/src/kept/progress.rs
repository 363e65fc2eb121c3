//! How far the `keep` worker has got: memory that it shares with PID 1, so that the next worker goes on from there, and the status
//! tells what was lost, and neither wakes the other for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags};

use crate::logs::Place;

const RECORD: usize = 40;

/// The memory, with a record for each container.
#[derive(Debug)]
pub struct Progress(OwnedFd);

/// How far one container's log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// In its ring.
    pub place: Place,
    /// The file that was written last; 0: none in this boot.
    pub inode: u64,
    /// Bytes of it that belong to `place`: what stands after them was written by a worker that did not come to say so.
    pub size: u64,
}

impl Progress {
    /// For so many containers. The memory is there from the start, so that no later write fails for want of it.
    pub fn create(count: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("garboard-kept", MemfdFlags::CLOEXEC)?;
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, offset(count).max(1))?;
        Ok(Self(fd))
    }

    /// That of another process, or incarnation.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The record of the container with this index.
    pub fn load(&self, index: usize) -> Record {
        let mut bytes = [0; RECORD];
        if rustix::io::pread(&self.0, &mut bytes, offset(index)) != Ok(RECORD) {
            return Record::default();
        }
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        let place = Place { read: next(), missed: next(), dropped: next() };
        Record { place, inode: next(), size: next() }
    }

    /// Replaces it, in one go: a kill comes before or after.
    pub fn save(&self, index: usize, record: Record) {
        let Record { place: Place { read, missed, dropped }, inode, size } = record;
        let bytes = [read, missed, dropped, inode, size].map(u64::to_le_bytes);
        let _ = rustix::io::pwrite(&self.0, bytes.as_flattened(), offset(index));
    }
}

impl AsFd for Progress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn offset(index: usize) -> u64 {
    u64::try_from(index.saturating_mul(RECORD)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_there_for_the_next_one() {
        let progress = Progress::create(3).unwrap();
        let place = Place { read: 1, missed: 2, dropped: u64::MAX };
        let record = Record { place, inode: 4, size: 5 };
        progress.save(2, record);
        let again = Progress::adopt(progress.as_fd().try_clone_to_owned().unwrap());
        assert_eq!((again.load(2), again.load(1), again.load(99)), (record, Record::default(), Record::default()));
    }
}
