//! A backend of the `log` crate that writes to the kernel's log. It can't panic, block or allocate without bound.
//!
//! Records are less urgent than the level that the console shows by default on our images (`quiet`): a line on an unread serial
//! line costs more than a second each. Ordinary user-space rules of `/dev/kmsg` apply: one write is one record.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The kernel cuts longer records (`PRINTKRB_RECORD_MAX` is 1,024 with its prefix).
const LONGEST: usize = 900;
/// `LOG_DAEMON` of syslog(3), as every user-space daemon's.
const FACILITY: u8 = 3 << 3;

struct KmsgLogger(OwnedFd);

/// Directs `log`'s records to `/dev/kmsg`. Without it, or when called twice, nothing changes: PID 1 works without a log.
pub fn install() {
    let Ok(file) = File::options().write(true).open("/dev/kmsg") else { return };
    // Leaked on purpose: it lives as long as the process.
    if log::set_logger(Box::leak(Box::new(KmsgLogger(file.into())))).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for KmsgLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // The kernel's own rate limit may refuse it (EINVAL, EAGAIN): a lost line is no fault.
            let _ = rustix::io::write(self.0.as_fd(), format(record.level(), record.args()).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One record: `<priority>garboard: text`, on one line.
fn format(level: Level, args: &std::fmt::Arguments<'_>) -> String {
    // Above KERN_ERR (3) is what `quiet` (loglevel=4) leaves on the console, so nothing of ours is.
    let severity = match level {
        Level::Error | Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let mut line = format!("<{}>garboard: ", FACILITY | severity);
    let mut bounded = Bounded(&mut line);
    let _ = bounded.write_fmt(*args);
    line
}

/// Takes text up to [`LONGEST`] bytes, control characters replaced: a line feed would begin a record of its own.
struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            if self.0.len().saturating_add(c.len_utf8()) > LONGEST {
                return Err(std::fmt::Error);
            }
            self.0.push(if c.is_control() { ' ' } else { c });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bounded_line_below_the_console_level() {
        assert_eq!(format(Level::Error, &format_args!("a\nb")), "<28>garboard: a b");
        assert_eq!(format(Level::Info, &format_args!("x")), "<30>garboard: x");
        assert!(format(Level::Warn, &format_args!("{}", "é".repeat(9999))).len() <= LONGEST);
    }
}
