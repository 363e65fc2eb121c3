//! Reads rings along with PID 1, from another process: each entry once, in order, as long as it keeps up.
//!
//! PID 1 knows nothing of its readers and waits for none. What it has overwritten before it was read is counted.

use std::os::fd::OwnedFd;

use super::ring::{Entry, Layout, OVERHEAD, split_first};

/// Bytes of a ring that are read at once: several entries of the greatest length.
const PIECE: u64 = 64 << 10;
/// So often is a piece read anew that was overwritten meanwhile. PID 1 writes a ring full no faster than it is read, but for once.
const ATTEMPTS: u64 = 4;

/// The rings of the process that writes them.
#[derive(Debug)]
pub struct Follower {
    fd: OwnedFd,
    layout: Layout,
}

/// How far a ring was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes of it that were read, or missed.
    pub read: u64,
    /// Of these, those that were overwritten before they could be read.
    pub missed: u64,
    /// Of the container's output, what was thrown away unseen, as far as that is known here.
    pub dropped: u64,
}

/// What was read at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// So many bytes are missing before the entries.
    pub gap: u64,
    /// In order.
    pub entries: Vec<Entry>,
    /// Where the entries begin.
    pub from: Place,
    /// What is missing can't be read at any later time either: there was no memory for it.
    pub lost: bool,
    /// There is more than a piece.
    pub more: bool,
}

impl Place {
    /// After that entry.
    pub fn after(self, entry: &Entry) -> Self {
        let length = entry.text.len().saturating_add(OVERHEAD);
        Self { read: self.read.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)), ..self }
    }
}

impl Follower {
    /// Reads the memory of so many rings that share `budget` bytes.
    pub fn new(fd: OwnedFd, count: usize, budget: u64) -> Self {
        Self { fd, layout: Layout::of(count, budget) }
    }

    /// The entries after `place`, a piece at a time; without any there are none.
    pub fn after(&self, index: usize, place: Place) -> Batch {
        for attempt in 0..ATTEMPTS {
            // While the oldest entry is looked for, it is overwritten where much is printed: some are left to that.
            let margin = self.layout.room().saturating_div(8).saturating_mul(attempt);
            if let Some(batch) = self.try_after(index, place, margin) {
                return batch;
            }
        }
        // It was overwritten again and again; or it isn't a ring. What comes next is read from its beginning.
        let head = self.layout.head(&self.fd, index).unwrap_or_default();
        self.gap(place, head.written.max(place.read), head.dropped)
    }

    /// `None`: it was overwritten while it was read, or can't be read.
    fn try_after(&self, index: usize, place: Place, margin: u64) -> Option<Batch> {
        let head = self.layout.head(&self.fd, index)?;
        let oldest = head.oldest(self.layout);
        let mut batch = self.gap(place, place.read, head.dropped);
        if place.read > head.written {
            return Some(self.gap(place, head.written, head.dropped));
        }
        if place.read < oldest {
            let first = self.first_after(index, head.written, oldest.saturating_add(margin))?;
            batch = self.gap(place, first, head.dropped);
        }
        let length = head.written.saturating_sub(batch.from.read);
        let bytes = self.layout.read(&self.fd, index, batch.from.read, length.min(PIECE))?;
        if self.layout.head(&self.fd, index)?.oldest(self.layout) > batch.from.read {
            return None;
        }
        let mut rest = &bytes[..];
        while let Some((entry, after)) = split_first(rest) {
            batch.entries.push(entry);
            rest = after;
        }
        // Something is there, and it is no entry: the machine had no memory for it.
        let lost = batch.entries.is_empty() && !bytes.is_empty();
        batch.more = length > PIECE;
        if lost { Some(Batch { lost, ..self.gap(place, head.written, head.dropped) }) } else { Some(batch) }
    }

    /// Goes on at `to`, with what is between missing.
    fn gap(&self, place: Place, to: u64, dropped: u64) -> Batch {
        let overwritten = to.saturating_sub(place.read);
        let gap = overwritten.saturating_add(dropped.saturating_sub(place.dropped));
        let from = Place { read: to, missed: place.missed.saturating_add(overwritten), dropped };
        Batch { gap, entries: Vec::new(), from, lost: false, more: false }
    }

    /// Where the oldest whole entry begins, found from the newest, as only the ends of entries are known.
    fn first_after(&self, index: usize, written: u64, oldest: u64) -> Option<u64> {
        let mut at = written;
        loop {
            let length = self.length_at(index, at.checked_sub(2)?)?;
            let start = at.checked_sub(u64::from(length))?.checked_sub(u64::try_from(OVERHEAD).ok()?)?;
            if start < oldest || self.length_at(index, start)? != length {
                return Some(at);
            }
            at = start;
        }
    }

    fn length_at(&self, index: usize, at: u64) -> Option<u16> {
        let bytes = self.layout.read(&self.fd, index, at, 2)?;
        Some(u16::from_le_bytes(*bytes.first_chunk()?))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;
    use crate::logs::{Piece, Rings};

    fn follower(rings: &Rings, count: usize, budget: u64) -> Follower {
        Follower::new(rings.as_fd().try_clone_to_owned().unwrap(), count, budget)
    }

    fn push(rings: &mut Rings, text: &str) {
        rings.push(Piece { text: text.as_bytes(), continues: false, unfinished: text.ends_with('+') }, 7);
    }

    /// Everything after `place`, and the place after that.
    fn all(follower: &Follower, mut place: Place) -> (Vec<String>, Place, u64) {
        let (mut texts, mut gaps) = (Vec::new(), 0);
        loop {
            let batch = follower.after(1, place);
            place = batch.from;
            gaps += batch.gap;
            if batch.entries.is_empty() {
                return (texts, place, gaps);
            }
            for entry in batch.entries {
                place = place.after(&entry);
                assert_eq!(entry.unfinished, entry.text.ends_with(b"+"));
                texts.push(String::from_utf8(entry.text).unwrap());
            }
        }
    }

    #[test]
    fn each_entry_is_read_once_and_what_was_overwritten_is_counted() {
        let mut rings = Rings::create(2, 20 << 10).unwrap();
        let follower = follower(&rings, 2, 20 << 10);
        assert_eq!(all(&follower, Place::default()), (vec![], Place::default(), 0));
        push(&mut rings, "one");
        push(&mut rings, "two+");
        rings.commit(1);
        let (texts, place, gap) = all(&follower, Place::default());
        assert_eq!((texts, gap), (vec!["one".to_owned(), "two+".to_owned()], 0));
        assert_eq!(all(&follower, place), (vec![], place, 0));
        for n in 0..10_000 {
            push(&mut rings, &format!("{n:04}"));
            if n % 7 == 0 {
                rings.commit(1);
            }
        }
        rings.commit(1);
        rings.drop_bytes(1, 100);
        let overwritten = rings.overwritten(1, place.read);
        let (texts, end, gap) = all(&follower, place);
        assert_eq!(texts.last().unwrap(), "9999");
        assert!(texts.len() > 500 && texts.windows(2).all(|w| w[0] < w[1]), "{}", texts.len());
        let missed = (10_000 - texts.len() as u64) * 14;
        assert_eq!((end.missed, end.dropped, gap), (missed, 100, missed + 100));
        assert!((missed - 14..=missed).contains(&overwritten), "{overwritten} of {missed}");
        assert_eq!(rings.overwritten(1, end.read), 0);
        // A place that never was.
        let beyond = Place { read: u64::MAX, ..end };
        assert_eq!(follower.after(1, beyond).from.read, end.read);
    }

    #[test]
    fn what_a_batch_is_about_to_overwrite_is_not_trusted() {
        let mut rings = Rings::create(2, 20 << 10).unwrap();
        let follower = follower(&rings, 2, 20 << 10);
        push(&mut rings, &"x".repeat(1000));
        rings.commit(1);
        let place = Place::default();
        assert_eq!(follower.after(1, place).entries.len(), 1);
        // A crash in the middle of a batch: it is announced, and none of it is written.
        let claimed = (9000_u64).to_le_bytes();
        rustix::io::pwrite(rings.as_fd(), &claimed, follower.layout.head_at(1) + 16).unwrap();
        let batch = follower.after(1, place);
        assert_eq!((batch.entries.len(), batch.gap), (0, 1010));
    }

    #[test]
    fn a_reader_beside_the_writer_gets_nothing_wrong() {
        let mut rings = Rings::create(2, 20 << 10).unwrap();
        let follower = follower(&rings, 2, 20 << 10);
        let writer = std::thread::spawn(move || {
            for n in 0..200_000_u32 {
                push(&mut rings, &format!("{n:08} {}", "x".repeat(n as usize % 50)));
                if n % 5 == 0 {
                    rings.commit(1);
                }
            }
            push(&mut rings, "99999999 ");
            rings.commit(1);
        });
        let (mut place, mut last) = (Place::default(), String::new());
        while last != "99999999 " {
            let batch = follower.after(1, place);
            place = batch.from;
            for entry in batch.entries {
                place = place.after(&entry);
                let text = String::from_utf8(entry.text).unwrap();
                assert!(text > last, "{text:?} after {last:?}");
                let (number, rest) = text.split_at(9);
                let n: usize = number.trim_end().parse().unwrap();
                assert!(n == 99_999_999 || rest.len() == n % 50 && rest.bytes().all(|b| b == b'x'), "{text:?}");
                last = text;
            }
        }
        writer.join().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_followed(bytes in proptest::collection::vec(any::<u8>(), 0..4032),
                                     head in any::<[u64; 3]>(), read in any::<u64>(), small in any::<bool>()) {
            let rings = Rings::create(2, 0).unwrap();
            let follower = follower(&rings, 2, 0);
            let head = if small { head.map(|n| n % 10_000) } else { head };
            let read = if small { read % 10_000 } else { read };
            rustix::io::pwrite(rings.as_fd(), head.map(u64::to_le_bytes).as_flattened(), follower.layout.head_at(1)).unwrap();
            rustix::io::pwrite(rings.as_fd(), &bytes, follower.layout.start(1)).unwrap();
            let mut place = Place { read, ..Place::default() };
            for _ in 0..10 {
                let batch = follower.after(1, place);
                place = batch.entries.iter().fold(batch.from, |place, entry| place.after(entry));
            }
        }
    }
}
