//! `garboard-reaper`: a container's process 1 when it is declared with `init = true`.
//!
//! Starts `argv[1..]`, passes every signal it gets on to that program, reaps whatever is orphaned onto it, and ends as the
//! program ended: with its status, or 128 + the number of the signal that killed it, as shells report it. A program that
//! can't be started ends it with 127 (not found) or 126 (any other reason), as shells do too.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use garboard_init::sys::signal::{self, SignalFd};
use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, set_child_subreaper, wait};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("usage: garboard-reaper PROGRAM [ARGUMENT]...");
        return ExitCode::from(125);
    };
    // Not process 1 when the container shares a pid namespace; orphans shall come here all the same.
    let _ = set_child_subreaper(Some(getpid()));
    let signals = match SignalFd::replace_mask_blocking(&signal::forwardable()) {
        Ok(signals) => signals,
        Err(e) => {
            eprintln!("garboard-reaper: signalfd: {e}");
            return ExitCode::from(125);
        }
    };
    let child = match signal::unblock_in_child(Command::new(&program).args(args).arg0(&program)).spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(e) => {
            eprintln!("garboard-reaper: execute {}: {e}", program.display());
            return ExitCode::from(if e.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    // A descriptor can't come to mean another process, as a number could.
    let pidfd = pidfd_open(child, PidfdFlags::empty());
    loop {
        match signals.read() {
            Ok(Some(received)) if received.signal == libc::SIGCHLD => {
                if let Some(status) = reap(child) {
                    return ExitCode::from(status);
                }
            }
            Ok(Some(received)) => {
                // It may have ended in this moment: its exit is the next signal.
                let _ = pidfd.as_ref().map(|fd| signal::send(fd, received.signal));
            }
            Ok(None) => {}
            Err(e) => {
                eprintln!("garboard-reaper: read signals: {e}");
                return ExitCode::from(125);
            }
        }
    }
}

/// Takes every child that ended (one SIGCHLD may stand for many); the program's status if it is among them.
fn reap(program: Pid) -> Option<u8> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            let code = status.exit_status().or_else(|| status.terminating_signal().map(|s| s.saturating_add(128)));
            return Some(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(255));
        }
    }
    None
}
