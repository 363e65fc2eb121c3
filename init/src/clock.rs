//! The one clock of supervision, and the one of PID 1's own work.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`: since the kernel started, unmoved by whoever sets the time.
pub fn now_ms() -> u64 {
    now_us().checked_div(1000).unwrap_or(0)
}

/// The same in microseconds.
pub fn now_us() -> u64 {
    micros(clock_gettime(ClockId::Boottime))
}

/// Microseconds of processor time that this thread has used.
pub fn cpu_us() -> u64 {
    micros(clock_gettime(ClockId::ThreadCPUTime))
}

fn micros(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0).checked_div(1000).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(rest)
}
