//! What the caller hands over and wants to have: descriptors for the program, sockets for a terminal and a pid descriptor, a file for
//! the process id.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::error::{During, Error, Result};
use crate::descriptor;
use crate::launch::Launch;
use crate::start::Console;

/// Descriptors for the program: those that the caller asks for, and sockets of its service manager (sd_listen_fds(3)).
pub(super) fn pass_descriptors(launch: &mut Launch, asked: u32) -> Result<u32> {
    let listening = match std::env::var("LISTEN_FDS") {
        Ok(text) => text.parse::<u32>().map_err(|_| Error::new(format!("LISTEN_FDS={text:?} isn't a number")))?,
        Err(_) => 0,
    };
    let count = preserved(listening, asked)?;
    if listening > 0 {
        let env = &mut launch.process.env;
        env.retain(|variable| !variable.starts_with("LISTEN_FDS=") && !variable.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={listening}"));
        env.push("LISTEN_PID=1".to_owned());
        env.extend(std::env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(count)
}

/// How many descriptors from 3 up are to be preserved: those `before`, and as many behind them as `--preserve-fds` asks for, up to the
/// last that the caller has opened. That one isn't among them is told to who wants to know everything, as with crun.
pub(super) fn preserved(before: u32, asked: u32) -> Result<u32> {
    let count = inherited(before.saturating_add(asked))?;
    if let Some(absent) = (before..before.saturating_add(asked)).find(|number| !is_inherited(number.saturating_add(3)))
    {
        let (number, fd) = (absent.saturating_sub(before), absent.saturating_add(3));
        crate::cli::log::debug(|| {
            format!(
                "--preserve-fds {asked}: please check that preserved-fd {number} (of {asked}) is present: descriptor {fd} isn't open"
            )
        });
    }
    Ok(count)
}

/// How many of `count` descriptors from 3 up the caller has opened, up to the last. What it hasn't opened between them is nobody's, or
/// this process's own, which exec closes.
fn inherited(count: u32) -> Result<u32> {
    if count == 0 {
        return Ok(0);
    }
    let list = std::fs::read_dir("/proc/self/fdinfo").during(|| "list the open descriptors")?;
    let numbers = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let last = numbers.filter(|fd| (3..=count.saturating_add(2)).contains(fd) && is_inherited(*fd)).max();
    Ok(last.map_or(0, |last| last.saturating_sub(2)))
}

/// Whether a descriptor came over exec, as only those do that aren't close-on-exec; this process opens none like that.
fn is_inherited(fd: u32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() == 0)
}

/// The terminal to be made. One that is held here is shown on standard output, whatever that is.
pub(super) fn console_of(socket: &OwnedFd, held: bool, size: Option<(u16, u16)>) -> Console<'_> {
    let plain_lines = held && !rustix::termios::isatty(std::io::stdout());
    Console { socket: socket.as_fd(), size, plain_lines }
}

/// The socket for the terminal's outer side, and the end of it that this process reads if it holds the terminal itself.
pub(super) fn open_console(socket: Option<&Path>, held: bool) -> Result<(OwnedFd, Option<OwnedFd>)> {
    if let Some(path) = socket {
        return connect(path).map(|socket| (socket, None));
    }
    if !held {
        return Err(Error::new("process.terminal: true: use --console-socket, as nobody here can hold the terminal"));
    }
    let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .during(|| "make a socket pair for the terminal")?;
    Ok((theirs, Some(ours)))
}

/// Connects to a caller's socket; by its directory's descriptor, as a socket's path may have 107 bytes only.
pub(super) fn connect(path: &Path) -> Result<OwnedFd> {
    let absolute = std::path::absolute(path).during(|| format!("connect to {}", path.display()))?;
    let connect = || {
        let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Err(Errno::INVAL) };
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
        let number = directory.as_raw_fd();
        let address = Path::new("/proc/self/fd").join(number.to_string()).join(name);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&address)?)?;
        Ok::<_, Errno>(socket)
    };
    connect().during(|| format!("connect to the socket {}", path.display()))
}

/// Takes the terminal that the child has sent.
pub(super) fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd> {
    let received = descriptor::receive(socket.as_fd()).during(|| "receive the terminal")?;
    received.ok_or_else(|| Error::new("receive the terminal: the child sent none"))
}

/// Hands the process's pid descriptor to whoever listens at `path`.
pub(super) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let socket = connect(path)?;
    descriptor::send(socket.as_fd(), b"pidfd", pidfd.as_fd())
        .during(|| format!("send the pid descriptor to {}", path.display()))
}

/// Writes a process id, whole or not at all, as callers poll for the file.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
        .during(|| format!("write the pid file {}", path.display()))
}
