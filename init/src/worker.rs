//! Whatever may block runs in a child process of the same binary: `garboard-worker KIND`, its results on a pipe, a deadline on it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use serde::{Deserialize, Serialize};

use crate::sys::signal;

/// The name by which a process of this binary knows that it is a worker.
pub const NAME: &str = "garboard-worker";
/// A worker's line is never longer, in bytes.
const LONGEST_LINE: usize = 64 << 10;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Loads the plan's modules; see [`crate::work`].
    Modules,
    /// Mounts the data filesystem.
    Data,
    /// Configures the uplink and keeps its lease.
    Network,
    /// Makes, fills and opens the volumes of the container with this index.
    Volumes(usize),
    /// Asks a container whether it works.
    Health {
        /// Its index.
        container: usize,
        /// Which of its runs.
        run: u32,
    },
    /// Says whether somebody at the console knows the passphrase.
    Passphrase,
    /// A shell in a container, on the console.
    Shell,
    /// Reads the last words of the boot before.
    Words,
    /// Starts containers in PID 1's place, while a crowd waits.
    Launch,
    /// Writes the logs that are kept.
    Keep,
    /// Reads one, for the port that has this ticket.
    Previous(u32),
    /// Keeps which containers a person has stopped.
    Stopped,
    /// Syncs and unmounts, the last thing before the machine goes.
    Stop,
}

impl Kind {
    /// The word on its command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Modules => "modules",
            Self::Data => "data",
            Self::Network => "network",
            Self::Volumes(_) => "volumes",
            Self::Health { .. } => "health",
            Self::Passphrase => "passphrase",
            Self::Shell => "shell",
            Self::Words => "words",
            Self::Launch => "launch",
            Self::Keep => "keep",
            Self::Previous(_) => "previous",
            Self::Stopped => "stopped",
            Self::Stop => "stop",
        }
    }

    /// The container that waits for it.
    pub fn container(self) -> Option<usize> {
        if let Self::Volumes(index) = self { Some(index) } else { None }
    }

    /// How long it may take, in milliseconds; `None`: it may stay.
    fn allowance_ms(self) -> Option<u64> {
        match self {
            Self::Modules => Some(60_000),
            // Growing and checking a large disk takes its time; containers without volumes don't wait for it.
            Self::Data => Some(600_000),
            Self::Network | Self::Shell | Self::Keep => None,
            // As long as a container's set-up takes; it holds up nobody else's.
            Self::Launch => None,
            // As long as the disks get further; see `shutdown::Patience`.
            Self::Stop => None,
            Self::Passphrase | Self::Stopped => Some(30_000),
            // As slow as a disk may be; nobody waits for it but who has asked.
            Self::Words | Self::Previous(_) => Some(600_000),
            // As large as an image may be; only the containers that wait for it wait.
            Self::Volumes(_) => Some(600_000),
            // Its check says.
            Self::Health { .. } => None,
        }
    }
}

/// A worker that was started.
#[derive(Debug)]
pub struct Worker {
    /// What it does.
    pub kind: Kind,
    /// Its process id.
    pub pid: i32,
    /// Its process; `None` for one that could not be opened.
    pub pidfd: Option<OwnedFd>,
    /// Read end of its standard output, non-blocking; `None` once it was closed at the other end.
    pub output: Option<OwnedFd>,
    /// When it is killed, in milliseconds since boot.
    pub deadline: Option<u64>,
    /// When it was started, in milliseconds since boot; 0: by the process before this one.
    pub since: u64,
    /// It has given a result.
    pub reported: bool,
    /// The process before this one started it, and may have heard what it said.
    pub adopted: bool,
    /// An unfinished line.
    partial: Vec<u8>,
}

impl Worker {
    /// Starts one, with more on its command line than its kind. Returns when it was executed, which takes well under a millisecond: the binary is in memory.
    pub fn spawn(kind: Kind, arguments: &[&OsStr], now: u64) -> io::Result<Self> {
        Self::spawn_with(kind, arguments, Stdio::null(), now)
    }

    /// The same, with something to read, which is at most as much as a pipe takes at once.
    pub fn spawn_with_input(kind: Kind, input: &[u8], now: u64) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if rustix::io::write(&writer, input)? != input.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        drop(writer);
        Self::spawn_with(kind, &[], reader.into(), now)
    }

    /// The same, with standard input.
    pub fn spawn_with(kind: Kind, arguments: &[&OsStr], stdin: Stdio, now: u64) -> io::Result<Self> {
        Self::spawn_between(kind, arguments, stdin, Stdio::piped(), now)
    }

    /// The same, with standard output.
    pub fn spawn_between(kind: Kind, arguments: &[&OsStr], stdin: Stdio, stdout: Stdio, now: u64) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).arg(kind.word()).args(arguments).env_clear();
        command.stdin(stdin).stdout(stdout).stderr(Stdio::null());
        let mut child = signal::unblock_in_child(&mut command).spawn()?;
        let pid = Pid::from_child(&child);
        let output = child.stdout.take().map(OwnedFd::from);
        if let Some(output) = &output {
            rustix::fs::fcntl_setfl(output, OFlags::NONBLOCK)?;
        }
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let deadline = kind.allowance_ms().map(|ms| now.saturating_add(ms));
        let pid = pid.as_raw_pid();
        Ok(Self {
            kind,
            pid,
            pidfd,
            output,
            deadline,
            since: now,
            reported: false,
            adopted: false,
            partial: Vec::new(),
        })
    }

    /// One that the process before this one started.
    pub fn adopt(kind: Kind, pid: i32, pidfd: Option<OwnedFd>, output: Option<OwnedFd>, deadline: Option<u64>) -> Self {
        Self { kind, pid, pidfd, output, deadline, since: 0, reported: false, adopted: true, partial: Vec::new() }
    }

    /// Reads what is there and gives out whole lines. False: nothing more will come.
    pub fn read(&mut self, buffer: &mut [u8], mut line: impl FnMut(&[u8])) -> bool {
        let Some(output) = &self.output else { return false };
        let n = match rustix::io::read(output, &mut *buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => return false,
        };
        for part in buffer.get(..n).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if self.partial.len() > LONGEST_LINE {
                self.partial.clear();
            }
            if let Some(whole) = self.partial.strip_suffix(b"\n") {
                line(whole);
                self.partial = Vec::new();
            }
        }
        true
    }

    /// Kills it; its exit is reaped as any other. Until then its number is nobody else's: who has none of its process, for want of memory
    /// or descriptors, does without.
    pub fn kill(&self) {
        let _ = match &self.pidfd {
            Some(pidfd) => signal::send(pidfd, libc::SIGKILL),
            None => signal::kill(self.pid, libc::SIGKILL),
        };
    }
}

/// Kills a worker, and what it has started at that moment: processes that lead groups of their own, and would go on without it. They are this
/// process's children by then, if any: nobody else has their numbers.
pub fn kill_with_children(worker: &Worker) {
    let pid = worker.pid;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    worker.kill();
    for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
        let _ = kill_process_group(child, Signal::KILL);
        let _ = kill_process(child, Signal::KILL);
    }
}

/// Whether a child is a worker, by its name; or is in a launch worker's memory, until its program is executed.
pub fn is_one(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).next() == Some(NAME.as_bytes())
}

/// Kills a child and waits up to so many milliseconds for its end, which is left to be reaped.
pub fn end(pid: i32, patience_ms: u64) {
    let _ = signal::kill(pid, libc::SIGKILL);
    let Some(pid) = Pid::from_raw(pid) else { return };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    for _ in 0..patience_ms {
        if !matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn one_without_a_descriptor_can_be_killed_too() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        Worker::adopt(Kind::Network, child.id().cast_signed(), None, None, None).kill();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_worker_is_known_by_its_name_and_its_end_waited_for() {
        let mut named = Command::new("sleep").arg0(NAME).arg("1000").spawn().unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let [a, b] = [&named, &other].map(|child| child.id().cast_signed());
        // The parent goes on a moment before the kernel has the new command line.
        while [a, b].iter().any(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty()) {
            std::thread::yield_now();
        }
        let known = [a, b, 0].map(is_one);
        end(a, 60_000);
        end(b, 60_000);
        // At its end, and not reaped.
        assert_eq!([&mut named, &mut other].map(|child| child.try_wait().unwrap().unwrap().signal()), [Some(9); 2]);
        assert_eq!(known, [true, false, false]);
    }
}
