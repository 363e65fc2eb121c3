//! What waits for the serial line.

use std::collections::VecDeque;

/// Bytes that containers' lines may fill.
const FOREIGN: usize = 24 << 10;
/// Bytes in all: what is above is kept for our own lines.
const ALL: usize = 40 << 10;
/// Less room than this is none.
const NEARLY: usize = 128;

/// A bounded queue of whole lines. What doesn't fit is dropped and counted.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    /// Containers' lines that were dropped and not yet told of.
    foreign: u64,
    /// The same of our own.
    own: u64,
}

impl Queue {
    /// Adds one of Garboard's own lines.
    pub fn push_own(&mut self, line: &str) {
        self.tell();
        self.own = self.own.saturating_add(u64::from(!self.push(line, ALL)));
    }

    /// Adds a container's line. When lines before it were dropped, a line says how many as soon as there is room.
    pub fn push_foreign(&mut self, line: &str) {
        self.tell();
        self.foreign = self.foreign.saturating_add(u64::from(!self.push(line, FOREIGN)));
    }

    /// Adds what is no line, and may have nothing put before it.
    pub fn push_raw(&mut self, bytes: &str) {
        self.push(bytes, ALL);
    }

    /// Says how many lines were dropped, as soon as there is room.
    fn tell(&mut self) {
        if self.bytes.len() >= FOREIGN >> 1 {
            return;
        }
        let (foreign, own) = (std::mem::take(&mut self.foreign), std::mem::take(&mut self.own));
        if foreign > 0 {
            let note = format!("garboard: {foreign} lines were too fast for this console; they are kept in the log\n");
            self.push(&note, ALL);
        }
        if own > 0 {
            self.push(&format!("garboard: {own} lines of my own were too fast for this console and are lost\n"), ALL);
        }
    }

    /// Whether a container's line would be dropped; then it is counted as that, and need not even be put together.
    pub fn refuses_foreign(&mut self) -> bool {
        let full = self.bytes.len() >= FOREIGN.saturating_sub(NEARLY);
        self.foreign = self.foreign.saturating_add(u64::from(full));
        full
    }

    /// False: there is no room.
    fn push(&mut self, line: &str, limit: usize) -> bool {
        let fits = self.bytes.len().saturating_add(line.len()) <= limit;
        if fits {
            self.bytes.extend(line.bytes());
        }
        fits
    }

    /// The bytes to write next; empty when there is nothing.
    pub fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// So many bytes of [`Queue::front`] were written.
    pub fn consume(&mut self, written: usize) {
        self.bytes.drain(..written.min(self.bytes.len()));
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4096);
        }
    }

    /// Gives up what waits; how many lines that was.
    pub fn clear(&mut self) -> u64 {
        let lines = self.bytes.iter().filter(|byte| **byte == b'\n').count();
        self.bytes = VecDeque::new();
        u64::try_from(lines).unwrap_or(0)
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> String {
        let mut all = Vec::new();
        while !queue.is_empty() {
            let part = queue.front().to_vec();
            queue.consume(part.len());
            all.extend(part);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_flood_is_bounded_counted_and_told_and_leaves_room_for_our_lines() {
        let mut queue = Queue::default();
        let line = format!("{}\n", "x".repeat(99));
        (0..1000).for_each(|_| queue.push_foreign(&line));
        queue.push_own("garboard: here\n");
        assert!(queue.bytes.len() <= ALL);
        let text = drain(&mut queue);
        assert_eq!(text.lines().filter(|l| l.starts_with('x')).count(), FOREIGN / 100);
        assert!(text.ends_with("garboard: here\n"));
        queue.push_foreign("next\n");
        assert_eq!(
            drain(&mut queue),
            format!(
                "garboard: {} lines were too fast for this console; they are kept in the log\nnext\n",
                1000 - FOREIGN / 100
            )
        );
    }

    #[test]
    fn our_own_lines_are_counted_apart() {
        let mut queue = Queue::default();
        let line = format!("garboard: {}\n", "x".repeat(89));
        (0..1000).for_each(|_| queue.push_own(&line));
        drain(&mut queue);
        queue.push_own("garboard: next\n");
        let lost = 1000 - ALL / 100;
        let told = format!("garboard: {lost} lines of my own were too fast for this console and are lost\n");
        assert_eq!(drain(&mut queue), format!("{told}garboard: next\n"));
    }
}
