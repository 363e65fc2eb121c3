//! The end: disks, then the machine.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use garboard_runtime::plan::DATA;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use crate::clock::now_ms;
use crate::escape::escape_into;
use crate::last_words::{Cause, End, Places};
use crate::supervise::Goal;
use crate::sys::signal;
use crate::work::words;
use crate::worker::{Kind, Worker};

/// The end takes no longer than so many milliseconds,
const PATIENCE_MS: u64 = 20_000;
/// unless so many bytes were written meanwhile.
const PROGRESS: u64 = 1 << 20;

/// The body of the `stop` worker: writes everything back, keeps how this boot ends, if it is told, and unmounts the data filesystem.
/// May take as long as the disk does.
pub fn unmount(arguments: &[String]) -> i32 {
    rustix::fs::sync();
    words::end(arguments);
    let unmounted = match unmount_when_free() {
        Ok(()) => true,
        // Not a mount point: nothing is kept.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => true,
        // Somebody holds on to it: read-only is as good, its journal is closed then.
        Err(_) => rustix::mount::mount_remount(DATA, MountFlags::RDONLY, "").is_ok(),
    };
    rustix::fs::sync();
    i32::from(!unmounted)
}

/// Unmounts the data filesystem. Whoever used it has been killed, but may not be gone this moment.
fn unmount_when_free() -> rustix::io::Result<()> {
    for _ in 0..20 {
        match rustix::mount::unmount(DATA, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    Err(rustix::io::Errno::BUSY)
}

/// How long the end may take: as long as the disks get further.
#[derive(Debug)]
pub struct Patience {
    until: u64,
    left: u64,
}

impl Patience {
    /// From `now`, in milliseconds since boot.
    pub fn begin(now: u64) -> Self {
        Self { until: now.saturating_add(PATIENCE_MS), left: u64::MAX }
    }

    /// When to ask again.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Whether time is up at `now`, and what is `unwritten` (in bytes) hardly less than when it was last up.
    pub fn is_over(&mut self, now: u64, unwritten: impl FnOnce() -> u64) -> bool {
        if now < self.until {
            return false;
        }
        let left = unwritten();
        let further = left > 0 && left <= self.left.saturating_sub(PROGRESS);
        *self = Self { until: now.saturating_add(PATIENCE_MS), left };
        !further
    }
}

/// Bytes that wait for a disk, of the whole machine.
pub fn unwritten() -> u64 {
    std::fs::read_to_string("/proc/meminfo").map_or(0, |text| unwritten_in(&text))
}

/// The lines `Dirty` and `Writeback` of proc_meminfo(5), which are in KiB.
fn unwritten_in(meminfo: &str) -> u64 {
    let line = |line: &str| {
        let amount = line.strip_prefix("Dirty:").or_else(|| line.strip_prefix("Writeback:"))?;
        amount.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    meminfo.lines().filter_map(line).fold(0, u64::saturating_add).saturating_mul(1024)
}

/// Switches off, starts over or halts. A process that isn't PID 1 ends with status 0, 10 or 11 instead.
pub fn carry_out(goal: Goal) -> ! {
    if !rustix::process::getpid().is_init() {
        std::process::exit(match goal {
            Goal::PowerOff => 0,
            Goal::Reboot => 10,
            Goal::Halt => 11,
        });
    }
    let command = match goal {
        Goal::PowerOff => RebootCommand::PowerOff,
        Goal::Reboot => RebootCommand::Restart,
        Goal::Halt => RebootCommand::Halt,
    };
    let _ = rustix::system::reboot(command);
    // It can't be switched off (or halted: the call doesn't return then). PID 1 must not end.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Starts the machine over when supervision can't go on: says why, has that kept for the next boot and the disks written back, which
/// get a moment for it, and never hangs. That may take longer than the machine's watchdog waits, if it has one, so that is fed meanwhile.
/// A process that isn't PID 1 ends with status 70.
pub fn give_up(why: &str, places: &Places, watchdog: Option<OwnedFd>) -> ! {
    let text = last_words(why);
    crate::boot::stop::say(&format!("\r\n{text}\r\n"));
    let own = rustix::process::getpid().is_init();
    if own {
        // Kills whatever runs, ourselves excepted; what was written is then written back by a child, as a disk may hang.
        signal::kill_all_others();
    } else {
        eprintln!("{text}");
    }
    // Whether the data filesystem is there is not known any more: what is none keeps nothing.
    let end = places.arguments(true, &End::now(Cause::Crash, why));
    let end = end.each_ref().map(OsString::as_os_str);
    let mut patience = Patience::begin(now_ms());
    let mut worker = None;
    while !patience.is_over(now_ms(), unwritten) {
        if let Some(device) = &watchdog {
            let _ = rustix::io::write(device, b".");
        }
        if worker.is_none() {
            // Memory may come free only now that the others are killed.
            worker = Worker::spawn(Kind::Stop, &end, 0).ok();
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) if worker.as_ref().is_some_and(|worker| worker.pid == pid.as_raw_pid()) => break,
            Ok(Some(_)) => {}
            _ => std::thread::sleep(Duration::from_millis(if own { 100 } else { 1 })),
        }
    }
    if !own {
        std::process::exit(70);
    }
    carry_out(Goal::Reboot)
}

/// What a panic says may quote a container.
fn last_words(why: &str) -> String {
    let mut text = "garboard: ".to_owned();
    escape_into(&mut text, why.as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_steer_no_terminal() {
        assert_eq!(last_words("panic: \x1b[2J\ngarboard: x"), "garboard: panic: \\x1b[2J\\x0agarboard: x");
    }

    #[test]
    fn the_end_takes_as_long_as_the_disks_get_further() {
        let mut patience = Patience::begin(1000);
        assert!(!patience.is_over(20_999, || panic!("too early to look")));
        assert!(!patience.is_over(21_000, || 500 << 20));
        assert_eq!(patience.until(), 41_000);
        assert!(!patience.is_over(41_000, || 400 << 20));
        assert!(patience.is_over(61_000, || (400 << 20) - 5), "a disk that hangs");
    }

    #[test]
    fn nothing_left_to_write_is_nothing_to_wait_for() {
        assert!(Patience::begin(0).is_over(20_000, || 0));
    }

    #[test]
    fn what_waits_for_disks_is_found() {
        let text =
            "MemFree: 9 kB\nDirty:               300 kB\nWriteback:            12 kB\nWritebackTmp:       7 kB\n";
        assert_eq!(unwritten_in(text), 312 << 10);
        assert_eq!(unwritten_in("Dirty: x kB\nWriteback: 3"), 0);
    }
}
