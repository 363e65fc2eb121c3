//! A shell in a container, for a person at the console: between the line and a terminal in the container bytes go to and fro.
//!
//! The line is standard input, read and written; PID 1 leaves it alone meanwhile. Ctrl-] ends the shell, as its own end does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use garboard_runtime::launch::Process;
use garboard_runtime::report::Report;
use garboard_runtime::start::{Console, Running, Stages, Started, Stdio, enter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::cgroup::Cgroup;
use super::{emit, has_ended, report};
use crate::boot;
use crate::clock::now_ms;
use crate::sys::signal;

/// What is executed.
const SHELL: &str = "/bin/sh";
/// What every terminal understands.
const TERM: &str = "TERM=vt102";
/// Control and `]`, as telnet has it.
const ESCAPE: u8 = 0x1d;
/// Its program begins within so many milliseconds, or never: a disk may have stopped answering.
const START_MS: u64 = 10_000;
/// Without a key for so many milliseconds it ends, as the dashboard does.
const IDLE_MS: u64 = 600_000;
/// Bytes that are passed on at once, from the line and to it.
const TYPED: usize = 256;
const SHOWN: usize = 2048;

/// Where the shell is to be.
struct Place<'a> {
    index: usize,
    plan: &'a Path,
    /// The container's first process.
    pid: Pid,
    /// Containers have cgroups of their own.
    cgroups: bool,
    /// Rows and columns of the line's terminal.
    size: (u16, u16),
}

/// The body of the worker. Its arguments are the container's index, the plan's path, the container's process, whether containers have
/// cgroups (`true`, `false`), columns and rows.
pub fn run(arguments: &[String]) -> i32 {
    let fault = match place(arguments) {
        Some(place) => open(&place).and_then(|(shell, terminal, typed)| relay(&shell, terminal, &typed)).err(),
        None => Some("wrong arguments".to_owned()),
    };
    emit(&report::Shell { fault })
}

fn place(arguments: &[String]) -> Option<Place<'_>> {
    let [index, plan, pid, cgroups, columns, rows] = arguments else { return None };
    Some(Place {
        index: index.parse().ok()?,
        plan: Path::new(plan),
        pid: Pid::from_raw(pid.parse().ok()?)?,
        cgroups: cgroups.parse().ok()?,
        size: (rows.parse().ok()?, columns.parse().ok()?),
    })
}

fn os<T>(what: &str, result: Result<T, Errno>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {}", std::io::Error::from(e)))
}

/// Starts the shell; the outer side of its terminal, and what was typed meanwhile.
fn open(place: &Place<'_>) -> Result<(Started, OwnedFd, Vec<u8>), String> {
    let plan = boot::read_plan_at(place.plan).map_err(|e| e.to_string())?;
    let container = plan.containers.get(place.index).ok_or("no such container")?;
    let pidfd = os("open its process", rustix::process::pidfd_open(place.pid, PidfdFlags::empty()))?;
    // The number may be another process's by now; but not any more once that is seen by descriptor.
    let cgroup = Cgroup::of(place.pid.as_raw_pid())?;
    let is_its = !place.cgroups || cgroup.is_of(&container.name);
    if !is_its || has_ended(pidfd.as_fd()) {
        return Err("it has ended".to_owned());
    }
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (theirs, ours) = os("make a socket pair", pair)?;
    let running = Running {
        pid: place.pid.as_raw_pid(),
        pidfd: pidfd.as_fd(),
        cgroup: cgroup.directory.as_ref().map(AsFd::as_fd),
        root: None,
    };
    let stages = Stages {
        console: Some(Console { socket: theirs.as_fd(), size: Some(place.size), plain_lines: false }),
        find_home: true,
        ..Stages::default()
    };
    let launch = container.launch.unpack().map_err(|failure| failure.to_string())?;
    let own = &launch.process;
    let env = own.env.iter().filter(|variable| !variable.starts_with("TERM=")).cloned().chain([TERM.to_owned()]);
    let process = Process { args: vec![SHELL.to_owned()], env: env.collect(), ..own.clone() };
    let none = Stdio { stdin: None, stdout: None, stderr: None };
    let shell =
        enter(&running, &process, launch.seccomp.as_ref(), none, &stages).map_err(|failure| failure.to_string())?;
    drop(theirs);
    let typed = begun(shell.report.as_fd(), std::io::stdin().as_fd(), START_MS).inspect_err(|_| {
        let _ = signal::send(&shell.pidfd, libc::SIGKILL);
    })?;
    match garboard_runtime::report::read(&shell.report) {
        Report::Failed(failure) => return Err(failure.to_string()),
        Report::Died => return Err(format!("{SHELL} was killed before it began")),
        Report::Executed | Report::Pending => {}
    }
    let sent = os("receive its terminal", garboard_runtime::descriptor::receive(ours.as_fd()))?;
    let terminal = sent.ok_or("it sent no terminal")?;
    os("set its terminal up", rustix::io::ioctl_fionbio(&terminal, true))?;
    Ok((shell, terminal, typed))
}

/// Waits until the program has begun or failed to, at most so many milliseconds, and no longer than the person wants; what else is typed
/// meanwhile, of which a little is kept.
fn begun(report: BorrowedFd<'_>, line: BorrowedFd<'_>, most_ms: u64) -> Result<Vec<u8>, String> {
    let (since, mut typed) = (now_ms(), Vec::new());
    loop {
        let left = most_ms.saturating_sub(now_ms().saturating_sub(since));
        if left == 0 {
            return Err(format!("{SHELL} did not begin in time"));
        }
        let left = Timespec { tv_sec: i64::try_from(left.div_ceil(1000)).unwrap_or(0), tv_nsec: 0 };
        let mut fds =
            [PollFd::from_borrowed_fd(report, PollFlags::empty()), PollFd::from_borrowed_fd(line, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return os("wait for the shell", Err(e)),
        }
        let [of_report, of_line] = fds.map(|fd| fd.revents());
        if !of_report.is_empty() {
            return Ok(typed);
        }
        if !of_line.is_empty() {
            let more = read_keys(line).ok_or("the line has hung up")?;
            if more.contains(&ESCAPE) {
                return Err("left before it began".to_owned());
            }
            typed.extend(more);
            typed.truncate(TYPED);
        }
    }
}

/// Passes bytes on until the shell or its terminal ends, or somebody wants it to.
fn relay(shell: &Started, terminal: OwnedFd, typed: &[u8]) -> Result<(), String> {
    let stdin = std::io::stdin();
    let line = stdin.as_fd();
    let _ = rustix::io::write(line, b"\r\nCtrl-] leaves this shell\r\n");
    let _ = rustix::io::write(&terminal, typed);
    let mut touched = now_ms();
    // Read from the terminal, and not yet taken by the line.
    let mut shown = Vec::new();
    let mut over = false;
    while !over || !shown.is_empty() {
        let left = IDLE_MS.saturating_sub(now_ms().saturating_sub(touched));
        if left == 0 {
            break;
        }
        let timeout = Timespec { tv_sec: i64::try_from(left.div_ceil(1000)).unwrap_or(0), tv_nsec: 0 };
        // What waits for the line goes first: an end that can't be acted on yet would be told again and again.
        let (wanted, watched) = if shown.is_empty() { (PollFlags::IN, 3) } else { (PollFlags::IN | PollFlags::OUT, 1) };
        let mut fds = [
            PollFd::new(&line, wanted),
            PollFd::from_borrowed_fd(terminal.as_fd(), PollFlags::IN),
            PollFd::new(&shell.pidfd, if over { PollFlags::empty() } else { PollFlags::IN }),
        ];
        match poll(fds.get_mut(..watched).unwrap_or_default(), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return os("wait for keys", Err(e)),
        }
        let [of_line, of_terminal, of_shell] = fds.map(|fd| fd.revents());
        if of_line.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            if !type_on(line, &terminal) {
                break;
            }
            touched = now_ms();
        }
        if !shown.is_empty() && of_line.contains(PollFlags::OUT) {
            match rustix::io::write(line, &shown) {
                Ok(n) => drop(shown.drain(..n.min(shown.len()))),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if shown.is_empty() && !of_terminal.is_empty() {
            let mut buffer = [0; SHOWN];
            match rustix::io::read(&terminal, &mut buffer) {
                Ok(n) if n > 0 => shown.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => over |= !of_shell.is_empty(),
                _ => over = true,
            }
        } else if !of_shell.is_empty() {
            over = shown.is_empty();
        }
    }
    // What runs in the foreground is hung up on.
    drop(terminal);
    let _ = signal::send(&shell.pidfd, libc::SIGKILL);
    let _ = rustix::process::waitid(WaitId::PidFd(shell.pidfd.as_fd()), WaitIdOptions::EXITED);
    Ok(())
}

/// From the line to the terminal; what a terminal that nobody reads doesn't take is lost. False: that is the end.
fn type_on(line: BorrowedFd<'_>, terminal: &OwnedFd) -> bool {
    let Some(typed) = read_keys(line) else { return false };
    let _ = rustix::io::write(terminal, &typed);
    !typed.contains(&ESCAPE)
}

/// What was typed, perhaps nothing; `None`: the line has hung up.
fn read_keys(line: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; TYPED];
    match rustix::io::read(line, &mut buffer) {
        Ok(n) if n > 0 => {
            buffer.truncate(n);
            Some(buffer)
        }
        Err(Errno::AGAIN | Errno::INTR) => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_does_not_begin_can_be_left() {
        let (report, running) = rustix::pipe::pipe().unwrap();
        let (line, keys) = rustix::pipe::pipe().unwrap();
        let wait = |most| begun(report.as_fd(), line.as_fd(), most);
        rustix::io::write(&keys, b"x\x1d").unwrap();
        assert_eq!(wait(60_000), Err("left before it began".to_owned()));
        assert!(wait(20).unwrap_err().contains("in time"));
        // The control: it begins, and what was typed is its.
        rustix::io::write(&keys, b"ls\n").unwrap();
        let begins = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(running);
        });
        assert_eq!(wait(60_000), Ok(b"ls\n".to_vec()));
        begins.join().unwrap();
        drop(keys);
        let (report, _running) = rustix::pipe::pipe().unwrap();
        assert!(begun(report.as_fd(), line.as_fd(), 60_000).unwrap_err().contains("hung up"));
    }
}
