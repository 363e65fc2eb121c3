//! The machine's watchdog: fed by the loop itself, once in a while at the end of a turn. A loop that stands still, wherever, feeds
//! nothing, and the machine starts over.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::Supervisor;
use crate::clock::now_ms;
use crate::supervise::Goal;
use crate::sys::watchdog::{has_reset, set_timeout};

/// It is fed this many times in the time that it may go unfed.
const TIMES: u64 = 4;

/// The device, once it is open.
#[derive(Debug)]
pub(super) struct Watchdog {
    pub(super) device: OwnedFd,
    /// In milliseconds.
    interval: u64,
    due: u64,
    /// The machine began because it was not fed.
    pub(super) has_reset: bool,
}

impl Supervisor {
    /// Opens the device, which sets it going, unless the incarnation before has. The modules that bring it are in by now.
    pub(super) fn start_watchdog(&mut self) {
        let Some(seconds) = self.plan.watchdog_seconds.filter(|_| self.watchdog.is_none()) else { return };
        let path = self.options.watchdog.clone();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(device) => self.use_watchdog(device, seconds),
            Err(errno) => {
                self.note(format!(
                    "no watchdog: open {}: {errno}; nothing starts the machine over if it hangs",
                    path.display()
                ));
            }
        }
    }

    /// Takes the device over, from the incarnation before or as it was opened.
    pub(super) fn use_watchdog(&mut self, device: OwnedFd, seconds: u32) {
        let granted = match set_timeout(&device, seconds) {
            Ok(granted) => granted,
            Err(error) => {
                self.note(format!("set the watchdog to {seconds} s: {error}; it is fed for that time all the same"));
                seconds
            }
        };
        if granted != seconds {
            self.note(format!("the watchdog bites after {granted} s, as it can't do {seconds} s"));
        }
        let interval = u64::from(granted).saturating_mul(1000).checked_div(TIMES).unwrap_or(1000);
        let has_reset = has_reset(&device);
        self.watchdog = Some(Watchdog { device, interval, due: 0, has_reset });
        self.common_dirty = true;
        self.feed_watchdog(now_ms());
    }

    /// Feeds it if it is time to. A full pipe in a test is nobody's fault.
    pub(super) fn feed_watchdog(&mut self, now: u64) {
        if let Some(watchdog) = &mut self.watchdog
            && now >= watchdog.due
        {
            watchdog.due = now.saturating_add(watchdog.interval);
            let _ = rustix::io::write(&watchdog.device, b".");
        }
    }

    pub(super) fn watchdog_due(&self) -> Option<u64> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due)
    }

    /// The machine is done. What starts over is watched until it has; what stays off, or halted, is not to be started over: the last
    /// byte says so (watchdog-api.rst, "magic close").
    pub(super) fn stop_watchdog(&mut self, goal: Goal) {
        if let Some(watchdog) = self.watchdog.take_if(|_| goal != Goal::Reboot) {
            let _ = rustix::io::write(&watchdog.device, b"V");
        }
    }
}
