//! One ring of recent lines per container, all in one memfd, so that they survive a crash of PID 1 and don't count as its memory.
//!
//! An entry is `length u16 · flags u8 · time u40 · text · length u16` (little-endian, time in milliseconds since boot). The length
//! at both ends lets a reader walk back from the newest entry; old entries are simply overwritten. A ring's header says how many
//! bytes were ever written to it, and how many of the container's were dropped before; and, before anything is overwritten, up to
//! where, for another process that reads along (`follower.rs`). The headers of all stand together before the rings: a container that
//! prints nothing takes no page, and a process that goes on after a crash reads them at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags};

use super::lines::{MAX_LINE, Piece};

/// A ring is never smaller, in bytes, whatever the budget: it holds a line of the greatest length.
const SMALLEST: u64 = 4 << 10;
/// Bytes of a ring's header: written, dropped, claimed, 40 bytes for later.
const HEADER: u64 = 64;
const PAGE: u64 = 4 << 10;
/// Bytes of an entry besides its text.
pub(super) const OVERHEAD: usize = 10;
const CONTINUES: u8 = 1;
const UNFINISHED: u8 = 2;

/// A line as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since boot.
    pub time_ms: u64,
    /// It goes on from the entry before.
    pub continues: bool,
    /// The rest of its line is in the next one, if that has come.
    pub unfinished: bool,
    /// As the container printed it.
    pub text: Vec<u8>,
}

/// What a ring's header says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    /// Bytes ever written.
    pub(super) written: u64,
    /// Bytes of the container's that were thrown away unseen.
    pub(super) dropped: u64,
    /// The same as `written`, of the batch that is just being written: what it overwrites can't be trusted.
    claimed: u64,
}

/// Where the rings lie in their memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of all headers.
    heads: u64,
    /// Bytes of one ring.
    room: u64,
}

impl Layout {
    pub(super) fn of(count: usize, budget: u64) -> Self {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let heads = count.saturating_mul(HEADER).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let share = budget.saturating_sub(heads).checked_div(count).unwrap_or(0).max(SMALLEST);
        Self { heads, room: share & !(PAGE.saturating_sub(1)) }
    }

    /// Bytes of a ring.
    pub(super) fn room(self) -> u64 {
        self.room
    }

    /// Where a ring begins.
    pub(super) fn start(self, index: usize) -> u64 {
        self.heads.saturating_add(u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(self.room))
    }

    /// Where its header is.
    pub(super) fn head_at(self, index: usize) -> u64 {
        u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(HEADER)
    }

    pub(super) fn head(self, fd: &OwnedFd, index: usize) -> Option<Head> {
        let mut bytes = [0; Head::SIZE];
        rustix::io::pread(fd, &mut bytes, self.head_at(index)).ok().filter(|n| *n == bytes.len())?;
        Head::decoded(&bytes)
    }

    /// All headers at once; of what can't be read there is nothing.
    fn all_heads(self, fd: &OwnedFd, count: usize) -> Vec<Head> {
        let mut bytes = vec![0; usize::try_from(self.head_at(count)).unwrap_or(0)];
        let read = rustix::io::pread(fd, &mut bytes, 0).unwrap_or(0);
        let (heads, _) = bytes.get(..read).unwrap_or_default().as_chunks::<{ HEADER as usize }>();
        let mut heads: Vec<Head> = heads.iter().map(|head| Head::decoded(head).unwrap_or_default()).collect();
        heads.resize(count, Head::default());
        heads
    }

    /// `length` bytes of a ring from the one on that was the `from`th to be written.
    pub(super) fn read(self, fd: &OwnedFd, index: usize, from: u64, length: u64) -> Option<Vec<u8>> {
        let data = self.start(index);
        let mut bytes = vec![0; usize::try_from(length.min(self.room())).ok()?];
        let mut done = 0_usize;
        while done < bytes.len() {
            let at = from.checked_add(u64::try_from(done).ok()?)?.checked_rem(self.room())?;
            let rest = bytes.get_mut(done..)?;
            let limit = usize::try_from(self.room().checked_sub(at)?).ok()?.min(rest.len());
            match rustix::io::pread(fd, rest.get_mut(..limit)?, data.checked_add(at)?).ok()? {
                0 => return None,
                n => done = done.checked_add(n)?,
            }
        }
        Some(bytes)
    }
}

impl Head {
    /// Bytes of it that mean something.
    const SIZE: usize = 24;

    fn decoded(bytes: &[u8]) -> Option<Self> {
        let [written, dropped, claimed] = bytes.first_chunk::<{ Self::SIZE }>()?.as_chunks::<8>().0 else {
            return None;
        };
        let [written, dropped, claimed] = [written, dropped, claimed].map(|number| u64::from_le_bytes(*number));
        Some(Self { written, dropped, claimed })
    }

    /// The oldest byte that no one is overwriting, by the number with which it was written.
    pub(super) fn oldest(self, layout: Layout) -> u64 {
        self.claimed.max(self.written).saturating_sub(layout.room())
    }
}

/// The rings.
#[derive(Debug)]
pub struct Rings {
    fd: OwnedFd,
    layout: Layout,
    heads: Vec<Head>,
    /// Entries of the present batch.
    batch: Vec<u8>,
}

impl Rings {
    /// `count` rings that share `budget` bytes. Memory is used as lines come.
    pub fn create(count: usize, budget: u64) -> io::Result<Self> {
        let layout = Layout::of(count, budget);
        let fd = rustix::fs::memfd_create("garboard-logs", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, layout.start(count))?;
        let heads = vec![Head::default(); count];
        let rings = Self { fd, layout, heads, batch: Vec::new() };
        if layout.heads > 0 {
            // So that counting never fails.
            rustix::fs::fallocate(&rings.fd, FallocateFlags::empty(), 0, layout.heads)?;
        }
        Ok(rings)
    }

    /// Bytes that so many rings take once they are full.
    pub fn memory(count: usize, budget: u64) -> u64 {
        Layout::of(count, budget).start(count)
    }

    /// Takes over the rings of the process before.
    pub fn adopt(fd: OwnedFd, count: usize, budget: u64) -> Self {
        let layout = Layout::of(count, budget);
        let heads = layout.all_heads(&fd, count);
        Self { fd, layout, heads, batch: Vec::new() }
    }

    /// Adds a line to the present batch; [`Rings::commit`] writes it.
    pub fn push(&mut self, piece: Piece<'_>, now: u64) {
        let text = piece.text.get(..MAX_LINE).unwrap_or(piece.text);
        let length = u16::try_from(text.len()).unwrap_or(0).to_le_bytes();
        let flags = if piece.continues { CONTINUES } else { 0 } | if piece.unfinished { UNFINISHED } else { 0 };
        let time = now.to_le_bytes();
        self.batch.extend_from_slice(&length);
        self.batch.push(flags);
        self.batch.extend_from_slice(time.get(..5).unwrap_or_default());
        self.batch.extend_from_slice(text);
        self.batch.extend_from_slice(&length);
    }

    /// Writes the batch to the ring of container `index`.
    pub fn commit(&mut self, index: usize) {
        let batch = std::mem::take(&mut self.batch);
        let Some(mut head) = self.heads.get(index).copied() else { return };
        let room = self.layout.room();
        let data = self.layout.start(index);
        // Who reads along must know before it happens what is not there any more; a crash in between takes nothing of that back.
        let end = head.written.saturating_add(u64::try_from(batch.len()).unwrap_or(0));
        head.claimed = head.claimed.max(end);
        self.save_head(index, head);
        let mut rest = &batch[..];
        // A batch larger than the ring leaves its own end in it, as if it had come line by line.
        while !rest.is_empty() {
            let at = head.written.checked_rem(room).unwrap_or(0);
            let until_end = usize::try_from(room.saturating_sub(at)).unwrap_or(0);
            let (now, later) = rest.split_at(until_end.min(rest.len()));
            // Fails only when the machine has no memory left: then these lines read as holes.
            let _ = rustix::io::pwrite(&self.fd, now, data.saturating_add(at));
            head.written = head.written.saturating_add(u64::try_from(now.len()).unwrap_or(0));
            rest = later;
        }
        self.save_head(index, head);
        self.batch = batch;
        self.batch.clear();
        self.batch.shrink_to(4096);
    }

    /// Notes that `bytes` of what a container printed were thrown away unseen.
    pub fn drop_bytes(&mut self, index: usize, bytes: u64) {
        if let Some(mut head) = self.heads.get(index).copied() {
            head.dropped = head.dropped.saturating_add(bytes);
            self.save_head(index, head);
        }
    }

    /// Bytes of a container's output that were thrown away unseen.
    pub fn dropped(&self, index: usize) -> u64 {
        self.heads.get(index).map_or(0, |h| h.dropped)
    }

    /// Bytes that are lost to a reader who has read so many of a container's ring.
    pub fn overwritten(&self, index: usize, read: u64) -> u64 {
        self.heads.get(index).map_or(0, |head| head.oldest(self.layout).saturating_sub(read))
    }

    /// The newest lines of a container, oldest first: at most `count`, and no more than take `bytes` of the ring, `OVERHEAD` included.
    pub fn tail(&self, index: usize, count: usize, bytes: usize) -> Vec<Entry> {
        let Some(head) = self.heads.get(index) else { return Vec::new() };
        let room = self.layout.room();
        // A ring may be large: no more of it is read than is asked for.
        let kept = head.written.min(room).min(u64::try_from(bytes).unwrap_or(u64::MAX));
        let linear = self.layout.read(&self.fd, index, head.written.saturating_sub(kept), kept).unwrap_or_default();
        let mut entries = Vec::new();
        let mut rest = &linear[..];
        while entries.len() < count
            && let Some((before, entry)) = split_last(rest)
        {
            entries.push(entry);
            rest = before;
        }
        entries.reverse();
        entries
    }

    fn save_head(&mut self, index: usize, head: Head) {
        let Some(slot) = self.heads.get_mut(index) else { return };
        *slot = head;
        let bytes = [head.written, head.dropped, head.claimed].map(u64::to_le_bytes);
        let _ = rustix::io::pwrite(&self.fd, bytes.as_flattened(), self.layout.head_at(index));
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The last entry of `bytes` and what stands before it; `None` when that was overwritten in part.
fn split_last(bytes: &[u8]) -> Option<(&[u8], Entry)> {
    let (before, trailer) = bytes.split_last_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*trailer));
    if length > MAX_LINE {
        return None;
    }
    let start = bytes.len().checked_sub(length.checked_add(OVERHEAD)?)?;
    let (older, entry) = before.split_at_checked(start)?;
    let (header, text) = entry.split_first_chunk::<8>()?;
    ([header[0], header[1]] == *trailer).then(|| (older, decoded(*header, text)))
}

/// The first entry of `bytes` and what stands after it; `None` when it isn't whole.
pub(super) fn split_first(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let length = [header[0], header[1]];
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(length)))?;
    let (trailer, rest) = rest.split_first_chunk::<2>()?;
    (text.len() <= MAX_LINE && *trailer == length).then(|| (decoded(*header, text), rest))
}

fn decoded(header: [u8; 8], text: &[u8]) -> Entry {
    let [_, _, flags, t0, t1, t2, t3, t4] = header;
    Entry {
        time_ms: u64::from_le_bytes([t0, t1, t2, t3, t4, 0, 0, 0]),
        continues: flags & CONTINUES != 0,
        unfinished: flags & UNFINISHED != 0,
        text: text.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Piece<'_> {
        Piece { text: text.as_bytes(), continues: false, unfinished: false }
    }

    fn texts(rings: &Rings, index: usize) -> Vec<String> {
        rings.tail(index, usize::MAX, usize::MAX).into_iter().map(|e| String::from_utf8(e.text).unwrap()).collect()
    }

    #[test]
    fn keeps_the_newest_and_survives_its_process() {
        let mut rings = Rings::create(2, 12 << 10).unwrap();
        for n in 0..1000 {
            rings.push(line(&format!("line {n}")), n);
            if n % 3 == 0 {
                rings.commit(1);
            }
        }
        rings.commit(1);
        rings.drop_bytes(1, 77);
        let rings = Rings::adopt(rings.fd, 2, 12 << 10);
        let kept = texts(&rings, 1);
        assert!(kept.len() > 200 && kept.len() < 300, "{}", kept.len());
        let expected: Vec<String> = (1000 - kept.len()..1000).map(|n| format!("line {n}")).collect();
        assert_eq!(kept, expected);
        assert_eq!(texts(&rings, 0), Vec::<String>::new());
        assert_eq!((rings.dropped(1), rings.dropped(0)), (77, 0));
        let last = rings.tail(1, 2, 100);
        assert_eq!((last.len(), last[1].time_ms, &last[1].text[..]), (2, 999, &b"line 999"[..]));
        assert_eq!(rings.tail(1, 9, 2 * (8 + OVERHEAD) + 3).len(), 2, "bounded by bytes");
    }

    #[test]
    fn a_batch_larger_than_the_ring_leaves_its_end() {
        let mut rings = Rings::create(1, 0).unwrap();
        let long = "x".repeat(MAX_LINE);
        for _ in 0..20 {
            rings.push(line(&long), 1);
        }
        rings.push(line("last"), 1);
        rings.commit(0);
        assert_eq!(texts(&rings, 0), [&long[..], &long, &long, "last"]);
    }

    #[test]
    fn the_budget_is_shared_and_bounded() {
        let room = |count, budget| Layout::of(count, budget).room();
        assert_eq!(room(1, 10 << 20), (10 << 20) - PAGE);
        assert_eq!(room(1000, 10 << 20), 8 << 10);
        assert_eq!(Rings::memory(4, 10 << 20), (10 << 20) - 3 * PAGE, "whole pages each");
        assert_eq!(Rings::memory(1000, 1 << 20), 16 * PAGE + 1000 * SMALLEST);
        assert_eq!((Rings::memory(0, 0), room(0, 0)), (0, SMALLEST));
    }

    #[test]
    fn who_prints_nothing_takes_no_memory() {
        let mut rings = Rings::create(1000, 64 << 20).unwrap();
        let taken = |rings: &Rings| rustix::fs::fstat(&rings.fd).unwrap().st_blocks * 512;
        assert_eq!(taken(&rings), 16 * PAGE as i64);
        rings.push(line("something"), 1);
        rings.commit(999);
        rings.drop_bytes(7, 1);
        assert_eq!(taken(&rings), 17 * PAGE as i64);
    }

    #[test]
    fn a_ring_holds_the_longest_line() {
        assert!(MAX_LINE + OVERHEAD <= usize::try_from(SMALLEST).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_walked(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4032), written in 0_u64..100_000) {
            let mut rings = Rings::create(1, 0).unwrap();
            rustix::io::pwrite(&rings.fd, &bytes, rings.layout.start(0)).unwrap();
            rings.save_head(0, Head { written, dropped: 0, claimed: 0 });
            rings.tail(0, usize::MAX, usize::MAX);
        }
    }
}
