//! Logs that outlive the machine's memory: files on the data filesystem.
//!
//! `/data/.garboard/logs/NAME/` holds one container's: `log` is written to, `log.1` to `log.N` are older. No volume lies there, so
//! no container reaches it. A file is text of one line for each piece of a line that the container printed, in the format of
//! Kubernetes' CRI, which log collectors read and `cat` shows:
//!
//! ```text
//! # boot 6f1c9e9c-… began 2026-03-01T12:00:00.000Z
//! 2026-03-01T12:00:02.345Z stdout F listening on port 80
//! # missing 4096 bytes
//! ```
//!
//! `P` in place of `F`: the next line goes on where this one ends. All is `stdout`, as a container has one pipe for both streams. What
//! would steer a terminal is written out as on the console, but tabs stay. Lines with `#` are the appliance's own: whose lines
//! follow, by the kernel's boot id, and when that boot began by the machine's clock (one that was never set counts from 1970); and how
//! much was lost.
//!
//! The `keep` worker ([`crate::work::keep`]) writes; nobody else does. Files are only appended to, renamed and removed.

pub mod files;
pub mod format;
pub mod previous;
pub mod progress;
pub mod socket;
pub mod writer;

/// The directory of the data filesystem that is the appliance's own.
pub const OWN: &str = ".garboard";
/// In it, that of the logs.
pub const LOGS: &str = "logs";
/// The kernel's name of this boot: proc_sys_kernel_random(5).
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This boot's name.
pub fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map_or_else(|_| "unknown".to_owned(), |text| text.trim_end().to_owned())
}
