//! In front of a program: signals go on to it, its terminal is shown, its end is this command's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitIdStatus, WaitOptions, WaitStatus};

use super::terminal::Relay;
use crate::container::error::During;
use crate::container::record::Record;
use crate::container::store::Entry;
use crate::container::{Result, life, notify};
use crate::hook;
use crate::sys::{process, signals};

/// Takes all signals, to be forwarded, and with `subreaper` orphans of the container, to be reaped.
pub(super) fn take_signals(subreaper: bool) -> Result<OwnedFd> {
    if subreaper {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).during(|| "become the reaper of the container's orphans")?;
    }
    signals::take_all().during(|| "take signals to forward")
}

/// Waits for the program's end and returns its exit status, or 128 + the signal that ended it.
pub(super) fn wait(
    signals: &OwnedFd,
    pidfd: &OwnedFd,
    terminal: Option<OwnedFd>,
    mut notify: Option<OwnedFd>,
    pid: i32,
) -> Result<u8> {
    let mut relay = terminal.map(Relay::begin).transpose()?;
    loop {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(socket) = &notify {
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        let first = fds.len();
        if let Some(relay) = &relay {
            relay.watch(&mut fds);
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.during(|| "wait for the container")?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let is_ready = |index: usize| ready.get(index).is_some_and(|flags| !flags.is_empty());
        let reaped = if is_ready(1) { forward(signals, pidfd, relay.as_ref(), pid)? } else { None };
        if first > 2
            && is_ready(2)
            && let Some(socket) = &notify
            && notify::take(socket, pid)?
        {
            notify = None;
        }
        if let Some(relay) = &mut relay {
            relay.pump(ready.get(first..).unwrap_or_default())?;
        }
        if reaped.is_some() || is_ready(0) {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            if let Some(status) = reaped {
                return Ok(as_a_shell_says(status.exit_status(), status.terminating_signal()));
            }
            let status = hook::wait(pidfd.as_fd()).during(|| "wait for the container's end")?;
            return Ok(exit_status(&status));
        }
    }
}

/// Destroys the container whose program has ended, or can be waited for no longer: nobody would look after it.
pub(super) fn finish(entry: &Entry, record: &Record, waited: Result<u8>) -> Result<u8> {
    let Ok(_lock) = entry.lock() else { return waited };
    // As it is by now: an update may have given it something.
    let destroyed = entry.record_now(record).and_then(|record| life::destroy(entry, &record));
    // The first error is the one to report.
    waited.and_then(|status| destroyed.map(|()| status))
}

/// What a shell would say.
pub(super) fn exit_status(status: &WaitIdStatus) -> u8 {
    as_a_shell_says(status.exit_status(), status.terminating_signal())
}

fn as_a_shell_says(exit_status: Option<i32>, signal: Option<i32>) -> u8 {
    let code = exit_status.or_else(|| signal.map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Sends on what has come, except what concerns this process alone. The end of program `pid`, if it was reaped.
fn forward(signals: &OwnedFd, pidfd: &OwnedFd, relay: Option<&Relay>, pid: i32) -> Result<Option<WaitStatus>> {
    let mut reaped = None;
    while let Some(signal) = signals::next(signals.as_fd()).during(|| "read a signal")? {
        match i32::from(signal) {
            libc::SIGCHLD => reaped = reaped.or(reap(pid)),
            libc::SIGPIPE | libc::SIGURG => {}
            libc::SIGWINCH if relay.is_some() => {
                if let Some(relay) = relay {
                    relay.resize();
                }
            }
            _ => match process::signal_pidfd(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                other => other.during(|| format!("forward signal {signal}"))?,
            },
        }
    }
    Ok(reaped)
}

/// Reaps whatever has ended, orphans and program `pid`, which may end at any moment: its end must not be lost among theirs.
fn reap(pid: i32) -> Option<WaitStatus> {
    let mut own = None;
    while let Ok(Some((reaped, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if reaped.as_raw_nonzero().get() == pid {
            own = Some(status);
        }
    }
    own
}
