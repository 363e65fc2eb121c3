//! What to do when PID 1 itself fails: go on as a new incarnation, or start the machine over.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::sys::crash;

/// A second crash within this time starts the machine over.
pub const PROBATION_MS: u64 = 60_000;
/// As many bytes of a reason are kept.
const LONGEST_REASON: usize = 240;

/// What is known of crashes so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many there were since boot.
    pub count: u32,
    /// When the last one was, in milliseconds since boot.
    pub last_ms: u64,
    /// What it was.
    pub reason: String,
    /// What the one before that was.
    pub before: String,
}

impl History {
    /// Notes a crash. False: it came too soon after the one before, and going on would only crash again.
    pub fn note(&mut self, reason: &str, now: u64) -> bool {
        let soon = self.count > 0 && now.saturating_sub(self.last_ms) < PROBATION_MS;
        self.count = self.count.saturating_add(1);
        self.last_ms = now;
        // Both, and more, are one record.
        let reason = reason.get(..reason.floor_char_boundary(LONGEST_REASON)).unwrap_or_default();
        self.before = std::mem::replace(&mut self.reason, reason.to_owned());
        !soon
    }
}

/// Makes panics and fatal signals of this process execute it again. See [`crash::arm`].
pub fn install() -> std::io::Result<()> {
    crash::install()?;
    std::panic::set_hook(Box::new(|info| {
        let mut text = Bounded { bytes: [0; 200], used: 0 };
        let _ = write!(text, "panic");
        if let Some(at) = info.location() {
            let _ = write!(text, " at {}:{}", at.file(), at.line());
        }
        if let Some(message) = info.payload_as_str() {
            let _ = write!(text, ": {message}");
        }
        crash::restart(text.bytes.get(..text.used).unwrap_or_default());
    }));
    Ok(())
}

/// A text without allocation: the allocator may be what has failed.
struct Bounded {
    bytes: [u8; 200],
    used: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            let end = self.used.saturating_add(c.len_utf8());
            // No character is cut in two.
            c.encode_utf8(self.bytes.get_mut(self.used..end).ok_or(std::fmt::Error)?);
            self.used = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut text = Bounded { bytes: [0; 200], used: 0 };
        assert!(write!(text, "x{}", "é".repeat(200)).is_err());
        assert_eq!(std::str::from_utf8(&text.bytes[..text.used]), Ok(&*format!("x{}", "é".repeat(99))));
    }

    #[test]
    fn the_second_crash_within_a_minute_is_too_much() {
        let mut history = History::default();
        assert!(history.note("one", 10));
        assert!(history.note("two", 60_010));
        assert!(!history.note("three", 120_009));
        assert_eq!((history.count, &history.reason[..], &history.before[..]), (3, "three", "two"));
    }
}
