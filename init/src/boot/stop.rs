//! The end of a boot that can't go on: one clear message, then power off, start over or halt.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::system::RebootCommand;

use super::BootError;
use super::cmdline::Stop;
use crate::escape::escape_into;

/// How long the console may take to swallow the message: nobody may be reading it.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(3);
/// How long the message stays before the machine goes: a person reads it, a serial buffer drains.
const LINGER: Duration = Duration::from_secs(3);

/// Says on the console why the boot can't go on, then powers off, starts over or halts, as `garboard.stop=` says. By default a machine with
/// UEFI firmware starts over, so that boot counting falls back to the other system; any other powers off. Only for PID 1;
/// another process ends with status 1.
pub fn stop(error: &BootError) -> ! {
    say(&framed(error));
    if !rustix::process::getpid().is_init() {
        std::process::exit(1);
    }
    rustix::fs::sync();
    std::thread::sleep(LINGER);
    let stop = std::fs::read("/proc/cmdline").ok().and_then(|line| Stop::of(&line));
    let _ = match action(stop) {
        Stop::PowerOff => rustix::system::reboot(RebootCommand::PowerOff),
        Stop::Reboot => rustix::system::reboot(RebootCommand::Restart),
        Stop::Halt => Ok(()),
    };
    // Halted, or a machine that can't be switched off. PID 1 must not end.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// What to do with a machine that can't go on, given what `garboard.stop=` says.
pub fn action(stop: Option<Stop>) -> Stop {
    let by_firmware = || if Path::new("/sys/firmware/efi").exists() { Stop::Reboot } else { Stop::PowerOff };
    stop.unwrap_or_else(by_firmware)
}

/// The message between rules, so that it is found among the kernel's lines. The first line says it all.
fn framed(error: &BootError) -> String {
    let rule = "=".repeat(72);
    format!("\n{rule}\ngarboard: stopped: {}\n{rule}\n", printable(&error.to_string()))
}

/// Text from disks and firmware can't steer the terminal. It may have several lines.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        out.push_str(if number > 0 { "\n" } else { "" });
        escape_into(&mut out, line.as_bytes());
    }
    out
}

/// Writes text to the console without ever waiting long for a reader. Lines end as a raw terminal wants it.
pub fn say(text: &str) {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let Ok(mut console) = File::options().write(true).custom_flags(flags).open("/dev/console") else { return };
    let start = Instant::now();
    let mut rest = text.as_bytes();
    while !rest.is_empty() && start.elapsed() < CONSOLE_PATIENCE {
        match console.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_framed_and_can_not_steer_a_terminal() {
        let text = framed(&BootError::new("mount", "\x1b[2J", "EIO"));
        let lines: Vec<_> = text.trim().lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "garboard: stopped: mount \\x1b[2J: EIO");
        assert_eq!(lines[0], lines[2]);
    }
}
