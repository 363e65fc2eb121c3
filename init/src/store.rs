//! State that outlives a crash: numbered records in a memfd, written as they change.
//!
//! Records are written in batches, and a batch counts when it is committed: then all of its records do, before that none. Each record has
//! two slots. A write goes to the one that is not the newest of those that count, with the batch's number and a checksum; a commit writes
//! that number to a place of its own, in a single `pwrite`. A reader takes the newest slot that counts and whose checksum holds. So a crash
//! in the middle of anything leaves every record as it was before.
//! Nothing stays mapped: a stray pointer in PID 1 can't reach it, and it doesn't count as PID 1's own memory.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::map::Mapped;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// Bytes of a slot of an ordinary record.
const SLOT: usize = 1536;
/// Bytes of a slot of record 0, which holds what is many: features, trace, addresses.
const LARGE_SLOT: usize = 64 << 10;
/// The batch's number, length, checksum: eight bytes each.
const HEADER: usize = 24;
/// Behind the last record: the number of the newest batch that counts.
const COMMITTED: u64 = 8;

/// The number of the large record.
pub const LARGE: usize = 0;

/// The records.
#[derive(Debug)]
pub struct Store {
    fd: OwnedFd,
    /// All of it, while a process reads what the one before has left: there are as many records as containers, and each call that reads
    /// one would be waited for. Without memory for that they are read one by one.
    before: Option<Mapped>,
    /// The newest slot of each record: its batch and which of the two it is. `None`: it hasn't been looked at since the
    /// process before, which is done once, when it is first read or written.
    newest: Vec<Cell<Option<(u64, bool)>>>,
    /// What is written now belongs to this one.
    batch: u64,
    /// Something was.
    written: bool,
}

impl Store {
    /// Makes room for records `0..records`. All of it is allocated here: no later write can fail for want of memory.
    pub fn create(records: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create("garboard-state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, size(records))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(Self { fd, before: None, newest: vec![Cell::new(Some((0, false))); records], batch: 1, written: false })
    }

    /// Takes over the records that [`Store::create`] made before this process executed itself.
    pub fn adopt(fd: OwnedFd, records: usize) -> io::Result<Self> {
        let store = Self::open(fd, records)?;
        let committed = store.number(committed_at(records)).unwrap_or(0);
        store.discard_after(committed)?;
        Ok(Self { batch: committed.saturating_add(1), ..store })
    }

    /// The same records as the next process would find them; nothing is to be written to those.
    pub fn reopened(&self, records: usize) -> io::Result<Self> {
        Self::open(self.fd.try_clone()?, records)
    }

    fn open(fd: OwnedFd, records: usize) -> io::Result<Self> {
        let found = rustix::fs::fstat(&fd)?.st_size;
        if u64::try_from(found).ok() != Some(size(records)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("state of {found} bytes is not for this plan"),
            ));
        }
        let before = Mapped::of(&fd, usize::try_from(found).unwrap_or_default()).ok();
        Ok(Self { fd, before, newest: vec![Cell::new(None); records], batch: 0, written: false })
    }

    /// Takes away what the process before has written and not committed: it would count with the next batch.
    fn discard_after(&self, committed: u64) -> io::Result<()> {
        for slot in (0..self.newest.len()).flat_map(|record| [false, true].map(|second| offset(record, second))) {
            if self.number(slot).is_some_and(|batch| batch > committed) {
                rustix::io::pwrite(&self.fd, &[0; 8], slot)?;
            }
        }
        Ok(())
    }

    fn number(&self, at: u64) -> Option<u64> {
        self.bytes(at, 8)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    /// Replaces a record, as of the next [`Store::commit`]. One that doesn't fit its slot is refused and stays as it was.
    pub fn write(&mut self, record: usize, payload: &[u8]) -> io::Result<()> {
        let slot = slot_size(record);
        if payload.len() > slot.saturating_sub(HEADER) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("record of {} bytes", payload.len())));
        }
        let Some(known) = self.newest.get(record).map(Cell::get) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such record"));
        };
        let found = || self.newest_slot(record).map(|(sequence, second, _)| (sequence, second));
        let (batch, second) = known.or_else(found).unwrap_or_default();
        // What this batch has written already doesn't count yet; the other one does.
        let second = if batch == self.batch { second } else { !second };
        let sequence = self.batch;
        let length = u64::try_from(payload.len()).unwrap_or(0);
        let sum = checksum(sequence, payload);
        let mut bytes = Vec::with_capacity(payload.len().saturating_add(HEADER));
        for word in [sequence, length, sum] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        let written = rustix::io::pwrite(&self.fd, &bytes, offset(record, second))?;
        if written != bytes.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "short write of state"));
        }
        self.written = true;
        self.found(record, sequence, second);
        Ok(())
    }

    /// Has everything count that was written since the last call.
    pub fn commit(&mut self) -> io::Result<()> {
        if !self.written {
            return Ok(());
        }
        let number = self.batch.to_le_bytes();
        if rustix::io::pwrite(&self.fd, &number, committed_at(self.newest.len()))? != number.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "short write of state"));
        }
        (self.batch, self.written) = (self.batch.saturating_add(1), false);
        Ok(())
    }

    /// The newest whole payload of a record; `None` when it was never written.
    pub fn read(&self, record: usize) -> Option<Vec<u8>> {
        let (sequence, second, payload) = self.newest_slot(record)?;
        self.found(record, sequence, second);
        Some(payload)
    }

    fn found(&self, record: usize, sequence: u64, second: bool) {
        if let Some(entry) = self.newest.get(record) {
            entry.set(Some((sequence, second)));
        }
    }

    /// Everything was read that the process before has left: it takes no memory any more.
    pub fn forget(&mut self) {
        self.before = None;
    }

    fn newest_slot(&self, record: usize) -> Option<(u64, bool, Vec<u8>)> {
        let slot = |second| self.slot(record, second).map(|(sequence, payload)| (sequence, second, payload));
        [slot(false), slot(true)].into_iter().flatten().max_by_key(|(sequence, ..)| *sequence)
    }

    /// Sequence number and payload of a slot that was written to its end.
    fn slot(&self, record: usize, second: bool) -> Option<(u64, Vec<u8>)> {
        let at = offset(record, second);
        let header = self.bytes(at, HEADER)?;
        let word = |at: usize| header.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word));
        let (sequence, length, sum) = (word(0)?, usize::try_from(word(8)?).ok()?, word(16)?);
        if sequence == 0 || length > slot_size(record).saturating_sub(HEADER) {
            return None;
        }
        let payload = self.bytes(at.saturating_add(u64::try_from(HEADER).ok()?), length)?;
        (payload.len() == length && sum == checksum(sequence, &payload)).then_some((sequence, payload))
    }

    /// What is there, at most so many bytes.
    fn bytes(&self, at: u64, most: usize) -> Option<Vec<u8>> {
        if let Some(before) = &self.before {
            return Some(before.bytes(usize::try_from(at).ok()?, most));
        }
        let mut bytes = vec![0; most];
        let read = rustix::io::pread(&self.fd, &mut bytes, at).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }
}

impl AsFd for Store {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many records a descriptor of unknown origin has room for; `None` when it is not such a memfd.
pub fn records_in(fd: impl AsFd) -> Option<usize> {
    let size = usize::try_from(rustix::fs::fstat(fd).ok()?.st_size).ok()?;
    size.checked_sub(LARGE_SLOT.saturating_mul(2))?.checked_div(SLOT.saturating_mul(2))?.checked_add(1)
}

fn slot_size(record: usize) -> usize {
    if record == LARGE { LARGE_SLOT } else { SLOT }
}

fn offset(record: usize, second: bool) -> u64 {
    let start = match record.checked_sub(1) {
        None => 0,
        Some(before) => LARGE_SLOT.saturating_mul(2).saturating_add(before.saturating_mul(SLOT.saturating_mul(2))),
    };
    let offset = if second { start.saturating_add(slot_size(record)) } else { start };
    u64::try_from(offset).unwrap_or(u64::MAX)
}

fn committed_at(records: usize) -> u64 {
    offset(records.max(1), false)
}

fn size(records: usize) -> u64 {
    committed_at(records).saturating_add(COMMITTED)
}

/// FNV-1a: it has to tell a torn record from a whole one, not to withstand anybody.
fn checksum(sequence: u64, payload: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let bytes = sequence.to_le_bytes();
    bytes.iter().chain(payload).fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of one.
    fn keep(store: &mut Store, record: usize, payload: &[u8]) {
        store.write(record, payload).unwrap();
        store.commit().unwrap();
    }

    fn again(store: &Store, records: usize) -> Store {
        Store::adopt(store.as_fd().try_clone_to_owned().unwrap(), records).unwrap()
    }

    #[test]
    fn the_newest_record_is_read_also_by_the_next_process() {
        let mut store = Store::create(3).unwrap();
        assert_eq!(store.read(1), None);
        for text in ["one", "two", "three"] {
            keep(&mut store, 1, text.as_bytes());
            keep(&mut store, LARGE, text.repeat(1000).as_bytes());
            assert_eq!(again(&store, 3).read(1).unwrap(), text.as_bytes());
        }
        let mut next = again(&store, 3);
        keep(&mut next, 1, b"four");
        assert_eq!(
            (next.read(1).unwrap(), next.read(LARGE).unwrap().len(), next.read(2)),
            (b"four".to_vec(), 5000, None)
        );
    }

    #[test]
    fn what_was_not_read_is_written_all_the_same() {
        let mut store = Store::create(2).unwrap();
        keep(&mut store, 1, b"one");
        keep(&mut store, 1, b"two");
        let mut next = again(&store, 2);
        next.forget();
        keep(&mut next, 1, b"three");
        assert_eq!((again(&store, 2).read(1).unwrap(), next.newest_slot(1).unwrap().0), (b"three".to_vec(), 3));
        // It went over the oldest: torn, it leaves the one before.
        let (_, second) = next.newest[1].get().unwrap();
        rustix::io::pwrite(&next.fd, &[0xff], offset(1, second)).unwrap();
        assert_eq!(again(&store, 2).read(1).unwrap(), b"two");
    }

    #[test]
    fn a_torn_write_leaves_the_older_record() {
        let mut store = Store::create(2).unwrap();
        keep(&mut store, 1, b"whole");
        keep(&mut store, 1, b"newer");
        let (_, second) = store.newest[1].get().unwrap();
        for at in 0..29 {
            let mut next = again(&store, 2);
            keep(&mut next, 1, b"torn!");
            let torn = offset(1, !second) + at;
            let mut byte = [0];
            rustix::io::pread(&next.fd, &mut byte, torn).unwrap();
            rustix::io::pwrite(&next.fd, &[byte[0] ^ 0x40], torn).unwrap();
            assert_eq!(again(&store, 2).read(1).unwrap(), b"newer", "byte {at}");
        }
    }

    #[test]
    fn a_batch_counts_as_a_whole_or_not_at_all() {
        let mut store = Store::create(4).unwrap();
        let read = |store: &Store| [1, 2, 3].map(|record| store.read(record).map(|b| String::from_utf8(b).unwrap()));
        store.write(1, b"a").unwrap();
        store.write(2, b"b").unwrap();
        assert_eq!(read(&again(&store, 4)), [None, None, None]);
        let mut store = Store::create(4).unwrap();
        keep(&mut store, 1, b"a");
        keep(&mut store, 2, b"b");
        // Twice in a batch, which a crash ends; and so is the next one's, which has the same number.
        for text in [b"x", b"y"] {
            store.write(1, text).unwrap();
            store.write(1, text).unwrap();
            store.write(3, text).unwrap();
            store = again(&store, 4);
            assert_eq!(read(&store), [Some("a".into()), Some("b".into()), None]);
        }
        // What is committed later brings none of that back.
        keep(&mut store, 2, b"c");
        keep(&mut store, 2, b"d");
        let mut next = again(&store, 4);
        assert_eq!(read(&next), [Some("a".into()), Some("d".into()), None]);
        next.write(3, b"one").unwrap();
        next.write(3, b"two").unwrap();
        next.write(1, b"e").unwrap();
        next.commit().unwrap();
        next.commit().unwrap();
        assert_eq!(read(&again(&next, 4)), [Some("e".into()), Some("d".into()), Some("two".into())]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut store = Store::create(2).unwrap();
        keep(&mut store, 1, &[7; SLOT - HEADER]);
        assert!(store.write(1, &[8; SLOT - HEADER + 1]).is_err());
        assert!(store.write(2, b"").is_err());
        assert_eq!(store.read(1).unwrap(), [7; SLOT - HEADER]);
        assert_eq!(records_in(&store), Some(2));
        assert!(Store::adopt(store.fd, 3).is_err());
    }

    #[test]
    fn a_torn_large_record_leaves_the_older_one_whatever_its_header_says() {
        let mut store = Store::create(1).unwrap();
        keep(&mut store, LARGE, &[1; 3000]);
        keep(&mut store, LARGE, &[2; 5000]);
        let (_, second) = store.newest[LARGE].get().unwrap();
        for length in [0, 1, 4999, 5001, LARGE_SLOT as u64, u64::MAX] {
            rustix::io::pwrite(&store.fd, &length.to_le_bytes(), offset(LARGE, second) + 8).unwrap();
            assert_eq!(again(&store, 1).read(LARGE).unwrap(), [1; 3000], "{length}");
        }
        rustix::io::pwrite(&store.fd, &5000_u64.to_le_bytes(), offset(LARGE, second) + 8).unwrap();
        assert_eq!(again(&store, 1).read(LARGE).unwrap(), [2; 5000]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_no_record(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2 * SLOT)) {
            let store = Store::create(2).unwrap();
            rustix::io::pwrite(&store.fd, &bytes, offset(1, false)).unwrap();
            proptest::prop_assert_eq!(again(&store, 2).read(1), None);
        }
    }
}
