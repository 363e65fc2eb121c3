//! How long to wait before a container is started again.

use serde::{Deserialize, Serialize};

/// The automaton's constants, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Delay after the first end.
    pub backoff_base_ms: u64,
    /// No delay is longer.
    pub backoff_cap_ms: u64,
    /// A run of this length starts the count of failures over.
    pub stable_ms: u64,
    /// A first run of this length counts as a start that worked; see [`super::State::as_declared`].
    pub settle_ms: u64,
    /// The same for a run after a failure.
    pub resettle_ms: u64,
    /// So much longer than its grace a stop takes at most when the container asks for more time.
    pub stop_extension_ms: u64,
    /// Between two attempts to kill.
    pub kill_retry_ms: u64,
    /// After so many attempts to kill, it goes on without.
    pub kill_attempts: u8,
}

impl Default for Policy {
    /// Docker's figures where it has one (base, cap of a minute, stable after ten seconds).
    fn default() -> Self {
        Self {
            backoff_base_ms: 100,
            backoff_cap_ms: 60_000,
            stable_ms: 10_000,
            settle_ms: 1_000,
            resettle_ms: 3_000,
            stop_extension_ms: 120_000,
            kill_retry_ms: 2_000,
            kill_attempts: 3,
        }
    }
}

impl Policy {
    /// The delay after the `streak`th end in a row (from 1): doubling, capped, less a random part of at most a quarter.
    pub(super) fn delay(&self, streak: u32, random: u64) -> u64 {
        let doublings = streak.saturating_sub(1).min(32);
        let full = self.backoff_base_ms.saturating_mul(1_u64 << doublings).min(self.backoff_cap_ms);
        let quarter = full >> 2;
        full.saturating_sub(random.checked_rem(quarter.saturating_add(1)).unwrap_or(0))
    }
}

/// The next number of a splitmix64 sequence. Determined by its state alone, so that a run can be repeated.
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let policy = Policy::default();
        let delays: Vec<u64> = (1..=12).map(|n| policy.delay(n, 0)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(policy.delay(u32::MAX, 0), 60_000);
    }

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let policy = Policy::default();
        let mut seed = 7;
        let delays: Vec<u64> = (0..1000).map(|_| policy.delay(3, next_random(&mut seed))).collect();
        assert!(delays.iter().all(|d| (300..=400).contains(d)));
        assert!(delays.contains(&300) && delays.contains(&400));
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let run = |mut seed| (0..5).map(|_| next_random(&mut seed)).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
