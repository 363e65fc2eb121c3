//! The one clock of supervision.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`: since the kernel started, unmoved by whoever sets the time.
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec).unwrap_or(0).checked_div(1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(millis)
}
