//! What waits to be written to a port: a reply, and lines of a subscription, as far as there is room.

use super::protocol::{self, Answer};

/// Bytes of log lines that wait at most, besides a reply.
const ROOM: usize = 64 << 10;
/// Bytes that are kept for events: a flood of log lines, which may be missed, leaves room for these, which may not.
const ROOM_FOR_EVENTS: usize = 16 << 10;
/// Bytes of an event's line at most: its text has 600 bytes in the journal, each of them six in JSON at worst.
pub(super) const LONGEST_EVENT: usize = 4 << 10;

/// Bounded: one reply, and before and behind it [`ROOM`] and [`ROOM_FOR_EVENTS`] each.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// So much of it was written.
    written: usize,
    /// Where the newest reply ends.
    reply_end: usize,
    /// The last byte that was written.
    last: Option<u8>,
    /// Lines that there was no room for.
    missed: u64,
}

impl Outbox {
    /// Takes a reply.
    pub(super) fn reply(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.reply_end = self.bytes.len();
    }

    /// Takes a line that nobody waits for; one that there is no room for is counted.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.tell_missed() && self.has_room(line.len()) {
            self.bytes.extend_from_slice(line);
        } else {
            self.missed = self.missed.saturating_add(1);
        }
    }

    /// Whether [`Outbox::push`] would take so many bytes, if no line was missed before.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.waiting().saturating_add(length) <= ROOM
    }

    /// Bytes that wait besides a reply.
    fn waiting(&self) -> usize {
        self.rest().len().saturating_sub(self.reply_end.saturating_sub(self.written))
    }

    /// Takes an event, for which there must be room.
    pub(super) fn push_event(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
    }

    /// For so many events there is room, whatever was missed.
    pub(super) fn room_for_events(&self) -> usize {
        let room = ROOM.saturating_add(ROOM_FOR_EVENTS).saturating_sub(self.waiting());
        room.checked_div(LONGEST_EVENT).unwrap_or(0)
    }

    /// Says how many lines were missed, once the reader has caught up by half. False: they are still to be told.
    pub(super) fn tell_missed(&mut self) -> bool {
        if self.missed > 0 && self.waiting() <= ROOM.saturating_div(2) {
            let line = protocol::encode(None, Answer::Missed { lines: self.missed });
            self.bytes.extend_from_slice(&line);
            self.missed = 0;
        }
        self.missed == 0
    }

    /// What is still to be written.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// So many bytes of it were.
    pub(super) fn advance(&mut self, count: usize) {
        self.last = self.rest().get(..count).and_then(|done| done.last().copied()).or(self.last);
        self.written = self.written.saturating_add(count);
        if self.rest().is_empty() {
            (self.bytes, self.written, self.reply_end) = (Vec::new(), 0, 0);
        } else if self.written > ROOM {
            self.bytes.drain(..self.written);
            self.reply_end = self.reply_end.saturating_sub(self.written);
            self.written = 0;
        }
    }

    /// A reply is not yet written.
    pub(super) fn busy(&self) -> bool {
        self.written < self.reply_end
    }

    /// Forgets everything. True: half of a line was written.
    pub(super) fn clear(&mut self) -> bool {
        let torn = !self.rest().is_empty() && self.last.is_some_and(|byte| byte != b'\n');
        *self = Self::default();
        torn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_misses_lines_and_is_told_how_many() {
        let mut out = Outbox::default();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..1000 {
            out.push(&line);
        }
        assert!(out.rest().len() <= ROOM);
        let taken = out.rest().len();
        assert_eq!(taken, 65_000);
        // It has read a little: not yet.
        out.advance(1000);
        out.push(&line);
        assert_eq!(out.rest().len(), 64_000);
        out.advance(40_000);
        assert!(out.tell_missed());
        let text = String::from_utf8(out.rest().to_vec()).unwrap();
        assert!(text.ends_with("{\"v\":1,\"id\":null,\"type\":\"missed\",\"lines\":936}\n"), "{text}");
        out.push(b"next\n");
        assert!(out.rest().ends_with(b"next\n"));
    }

    #[test]
    fn a_flood_leaves_room_for_events() {
        let mut out = Outbox::default();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..75 {
            out.push(&line);
        }
        // Lines were missed, and of the others more than half still wait.
        out.advance(10_000);
        assert!(out.missed > 0 && out.room_for_events() > 0);
        out.push_event(b"event\n");
        out.push(&line);
        assert!(out.rest().ends_with(b"x\nevent\n"));
        let mut events = 0;
        while out.room_for_events() > 0 {
            out.push_event(&[b'e'; LONGEST_EVENT]);
            events += 1;
        }
        assert!(events >= 3 && out.rest().len() <= ROOM + ROOM_FOR_EVENTS, "{events}");
    }

    #[test]
    fn a_large_reply_takes_no_room_from_what_follows() {
        let mut out = Outbox::default();
        out.reply(&vec![b'r'; 4 * ROOM]);
        out.push(b"line\n");
        assert!(out.missed == 0 && out.has_room(1000) && out.room_for_events() > 0);
        out.advance(ROOM / 2);
        out.push(b"next\n");
        assert!(out.missed == 0 && out.rest().ends_with(b"line\nnext\n"));
        // Control: what is no reply does.
        let line = [&[b'x'; 999][..], b"\n"].concat();
        (0..100).for_each(|_| out.push(&line));
        assert!(out.missed > 0);
    }

    #[test]
    fn only_replies_hold_requests_up() {
        let mut out = Outbox::default();
        out.push(b"log\n");
        assert!(!out.busy());
        out.reply(b"reply\n");
        out.push(b"log\n");
        assert!(out.busy());
        out.advance(9);
        assert!(out.busy());
        out.advance(1);
        assert!(!out.busy() && out.rest() == b"log\n");
        assert!(!out.clear(), "a whole line was the last");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_it_is_bounded_and_in_lines(steps in proptest::collection::vec((0..4_u8, 0..70_000_usize), 0..200)) {
            let (mut out, mut read) = (Outbox::default(), Vec::new());
            for (what, size) in steps {
                match what {
                    0 if !out.busy() => out.reply(&[&vec![b'r'; size][..], b"\n"].concat()),
                    1 => out.push(&[&vec![b'p'; size / 30][..], b"\n"].concat()),
                    _ => {
                        let part = out.rest().get(..size.min(out.rest().len())).unwrap().to_vec();
                        out.advance(part.len());
                        read.extend(part);
                    }
                }
                proptest::prop_assert!(out.bytes.len() <= 70_001 + 3 * ROOM, "{}", out.bytes.len());
            }
            read.extend(out.rest());
            for line in read.split(|b| *b == b'\n') {
                let whole = line.windows(2).all(|w| w[0] == w[1]) || line.starts_with(b"{\"v\":1");
                proptest::prop_assert!(whole);
            }
        }
    }
}
