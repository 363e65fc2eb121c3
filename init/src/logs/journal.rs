//! What happened and what the kernel said: two rings of PID 1's own, which survive its crash as the containers' do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FallocateFlags;

use super::{Entry, MAX_LINE, Piece, Rings};
use crate::events::{Event, Kind};

const EVENTS: usize = 0;
const KERNEL: usize = 1;
const RINGS: usize = 2;
/// Memory for both and their headers, in bytes: a thousand events of ordinary length, no fewer than 150 of the greatest.
const BUDGET: u64 = 260 << 10;
/// An event's text is never longer, in bytes: with its other parts it fits an entry of a ring.
const LONGEST_TEXT: usize = 600;
/// Bytes that an entry takes at most, its frame included.
const LONGEST_ENTRY: usize = MAX_LINE.saturating_add(16);

/// The events, numbered from 1, and the kernel's messages.
#[derive(Debug)]
pub struct Journal {
    rings: Rings,
    /// Number of the newest event; 0: none yet.
    last: u64,
    /// Not yet numbered.
    pending: Vec<Event>,
}

impl Journal {
    /// An empty one.
    ///
    /// Its memory is there from the beginning: an event that is numbered and not kept, as the machine has no memory left, would be waited
    /// for.
    pub fn create() -> io::Result<Self> {
        let rings = Rings::create(RINGS, BUDGET)?;
        rustix::fs::fallocate(&rings, FallocateFlags::empty(), 0, Rings::memory(RINGS, BUDGET))?;
        Ok(Self { rings, last: 0, pending: Vec::new() })
    }

    /// Goes on with that of the process before: its numbers are not used again.
    pub fn adopt(fd: OwnedFd) -> Self {
        let rings = Rings::adopt(fd, RINGS, BUDGET);
        let last = rings.tail(EVENTS, 1, LONGEST_ENTRY).first().and_then(decode).map_or(0, |event| event.number);
        Self { rings, last, pending: Vec::new() }
    }

    /// Takes an event. It gets its number when what follows from it is kept ([`Journal::commit`]), so that an event whose cause
    /// a crash brings about again is there once.
    pub fn add(&mut self, kind: Kind, container: Option<&str>, text: &str, now: u64) {
        let text = text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().to_owned();
        let container = container.map(|name| name.chars().take(63).collect());
        self.pending.push(Event { number: 0, time_ms: now, kind, container, text });
    }

    /// Numbers and keeps what was added.
    pub fn commit(&mut self) {
        for mut event in std::mem::take(&mut self.pending) {
            event.number = self.last.saturating_add(1);
            let Ok(bytes) = postcard::to_stdvec(&event) else { continue };
            self.rings.push(Piece { text: &bytes, continues: false, unfinished: false }, event.time_ms);
            self.rings.commit(EVENTS);
            self.last = event.number;
        }
    }

    /// Number of the newest event; 0: none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The first `count` events after number `since` of those that are still kept.
    pub fn after(&self, since: u64, count: usize) -> Vec<Event> {
        let new = usize::try_from(self.last.saturating_sub(since)).unwrap_or(usize::MAX);
        let mut events = self.newest(new);
        events.retain(|event| event.number > since);
        events.truncate(count);
        events
    }

    /// The newest `count` events, oldest first.
    pub fn newest(&self, count: usize) -> Vec<Event> {
        let bytes = count.saturating_mul(LONGEST_ENTRY);
        self.rings.tail(EVENTS, count, bytes).iter().filter_map(decode).collect()
    }

    /// Keeps a message of the kernel.
    pub fn kernel(&mut self, text: &[u8], time_ms: u64) {
        self.rings.push(Piece { text, continues: false, unfinished: false }, time_ms);
        self.rings.commit(KERNEL);
    }

    /// The kernel's newest messages, oldest first; see [`Rings::tail`].
    pub fn kernel_tail(&self, count: usize, bytes: usize) -> Vec<Entry> {
        self.rings.tail(KERNEL, count, bytes)
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.as_fd()
    }
}

fn decode(entry: &Entry) -> Option<Event> {
    postcard::from_bytes(&entry.text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_in_the_next_process() {
        let mut journal = Journal::create().unwrap();
        assert_eq!((journal.last(), journal.after(0, 9).len()), (0, 0));
        for n in 0..3 {
            journal.add(Kind::Note, None, &format!("event {n}"), n);
            journal.commit();
        }
        // One that never got its number is as if it had not been.
        journal.add(Kind::Note, None, "lost", 4);
        let mut journal = Journal::adopt(journal.as_fd().try_clone_to_owned().unwrap());
        journal.add(Kind::Crash, Some("web"), "after", 5);
        journal.commit();
        let numbers = |events: Vec<Event>| events.iter().map(|e| e.number).collect::<Vec<_>>();
        assert_eq!(numbers(journal.after(0, 99)), [1, 2, 3, 4]);
        assert_eq!(numbers(journal.after(1, 2)), [2, 3]);
        assert_eq!(numbers(journal.newest(2)), [3, 4]);
        assert_eq!(numbers(journal.after(4, 9)), [0; 0]);
        assert_eq!(numbers(journal.after(u64::MAX, 9)), [0; 0]);
        let last = &journal.newest(1)[0];
        assert_eq!(
            (last.kind, last.container.as_deref(), &last.text[..], last.time_ms),
            (Kind::Crash, Some("web"), "after", 5)
        );
    }

    #[test]
    fn its_memory_is_there_from_the_beginning() {
        let blocks = |fd: &dyn AsFd| u64::try_from(rustix::fs::fstat(fd.as_fd()).unwrap().st_blocks).unwrap() * 512;
        assert_eq!(blocks(&Journal::create().unwrap()), BUDGET);
        // The control: a container's log takes memory as it comes.
        assert!(blocks(&Rings::create(RINGS, BUDGET).unwrap()) < BUDGET);
    }

    #[test]
    fn a_great_many_leave_the_newest_and_the_longest_fits() {
        let mut journal = Journal::create().unwrap();
        let long = "é".repeat(2000);
        for n in 0..2000 {
            journal.add(Kind::LaunchFailed, Some(&"n".repeat(100)), &long, u64::MAX >> 24);
            journal.add(Kind::Ready, Some("web"), "short", n);
        }
        journal.commit();
        let kept = journal.after(0, usize::MAX);
        assert_eq!((journal.last(), kept.last().unwrap().number), (4000, 4000));
        assert!(kept.len() > 300, "{}", kept.len());
        assert!(kept.windows(2).all(|w| w[1].number == w[0].number + 1));
        assert_eq!(kept[kept.len() - 2].text.chars().count(), LONGEST_TEXT / 2);
    }

    #[test]
    fn the_kernel_floods_no_events_away() {
        let mut journal = Journal::create().unwrap();
        journal.add(Kind::Boot, None, "began", 1);
        journal.commit();
        for n in 0..10_000 {
            journal.kernel(b"blk_update_request: I/O error, dev vdb", n);
        }
        assert_eq!(journal.newest(5).len(), 1);
        assert_eq!(journal.kernel_tail(3, 4096).len(), 3);
    }
}
