//! Who may do more than look: the passphrase, and how often it may be tried.

use serde::{Deserialize, Serialize};

/// A longer passphrase is cut, in bytes.
pub const LONGEST: usize = 128;
/// After a wrong one the next attempt waits so long, in milliseconds; twice as long after each further one.
const DELAY_MS: u64 = 1_000;
/// So many wrong ones in a row,
const WRONG: u32 = 5;
/// and none is taken for so many milliseconds.
const CLOSED_MS: u64 = 60_000;

/// What was typed. Overwritten when it is dropped.
pub struct Secret {
    /// Neither moved nor reallocated, so that no copy is left behind.
    bytes: Box<[u8; LONGEST]>,
    length: usize,
}

impl Default for Secret {
    fn default() -> Self {
        Self { bytes: Box::new([0; LONGEST]), length: 0 }
    }
}

impl Secret {
    /// One more byte; beyond [`LONGEST`] there is none.
    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
            self.length = self.length.saturating_add(1);
        }
    }

    /// One less.
    pub fn pop(&mut self) {
        self.length = self.length.saturating_sub(1);
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = 0;
        }
    }

    /// What was typed.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(self.bytes.as_mut_slice());
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Overwrites what was read from the line, or typed.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // The compiler must not think that nobody looks.
    std::hint::black_box(bytes);
}

/// How often it was wrong. Outlives the dashboard's closing and PID 1's crash: neither gives further attempts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    wrong: u32,
    not_before: u64,
}

impl Attempts {
    /// Milliseconds until the next attempt is taken, at `now`; 0: at once.
    pub fn wait_ms(&self, now: u64) -> u64 {
        self.not_before.saturating_sub(now)
    }

    /// An attempt is made at `now`.
    pub fn begin(&mut self, now: u64) {
        self.not_before = now.saturating_add(DELAY_MS);
    }

    /// It was the right one, or not.
    pub fn answer(&mut self, right: bool, now: u64) {
        if right {
            *self = Self::default();
            return;
        }
        self.wrong = self.wrong.saturating_add(1);
        let delay = if self.wrong >= WRONG {
            self.wrong = 0;
            CLOSED_MS
        } else {
            DELAY_MS << self.wrong.saturating_sub(1).min(WRONG)
        };
        self.not_before = now.saturating_add(delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_bounded_and_can_be_corrected() {
        let mut secret = Secret::default();
        b"abc".iter().for_each(|b| secret.push(*b));
        secret.pop();
        assert_eq!(secret.bytes(), b"ab");
        (0..500).for_each(|_| secret.push(b'x'));
        assert_eq!(secret.bytes().len(), LONGEST);
        (0..500).for_each(|_| secret.pop());
        assert_eq!((secret.bytes().len(), *secret.bytes), (0, [0; LONGEST]), "nothing is left of it");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn wrong_ones_take_longer_and_longer() {
        let mut attempts = Attempts::default();
        let mut now = 5_000;
        let mut waits = Vec::new();
        for _ in 0..6 {
            attempts.begin(now);
            assert_eq!(attempts.wait_ms(now), 1_000, "at most one a second, also while one is checked");
            attempts.answer(false, now);
            waits.push(attempts.wait_ms(now));
            now += attempts.wait_ms(now);
            assert_eq!(attempts.wait_ms(now), 0);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 60_000, 1_000]);
        attempts.answer(false, now);
        attempts.answer(true, now);
        assert_eq!(attempts, Attempts::default());
    }
}
