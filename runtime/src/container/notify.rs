//! Readiness (sd_notify(3)): the container writes to a socket of its own, and `start` passes on that it is ready, and nothing
//! else: a container must not tell the service manager which process is the main one, or hand it descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

use super::error::{During, Result};
use super::store::Entry;
use crate::launch::{Attributes, EndLinks, IdMapping, Launch, Mount, MountFlags, MountSource};

/// The variable that names the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The directory of the container's socket in its state directory.
const DIRECTORY: &str = "notify";
/// The socket in the state directory.
pub(crate) const PLACE: &str = "notify/notify.sock";
/// The directory inside the container.
const INSIDE: &str = "/run/notify";
/// The socket in it.
const SOCKET: &str = "notify.sock";

/// Gives the container a directory for its socket, if whoever runs this wants to be notified.
pub(crate) fn prepare(entry: &Entry, launch: &mut Launch) -> Result<()> {
    if std::env::var_os(VARIABLE).is_none_or(|path| path.is_empty()) {
        return Ok(());
    }
    let made = rustix::fs::mkdirat(entry.directory(), DIRECTORY, Mode::from_raw_mode(0o755));
    made.during(|| format!("make {}", entry.path(DIRECTORY).display()))?;
    launch.process.env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
    launch.process.env.push(format!("{VARIABLE}={INSIDE}/{SOCKET}"));
    let denied = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    launch.mounts.push(Mount {
        target: INSIDE.to_owned(),
        source: MountSource::Bind {
            path: entry.path(DIRECTORY).display().to_string(),
            recursive: false,
            idmap: IdMapping::None,
            links: EndLinks::Followed,
            create: None,
        },
        flags: MountFlags { own: Attributes { set: denied, clear: 0 }, ..MountFlags::default() },
    });
    Ok(())
}

/// The container's socket, before its program runs. `None`: nobody wants to be notified.
pub(crate) fn listen(entry: &Entry) -> Result<Option<OwnedFd>> {
    if std::env::var_os(VARIABLE).is_none_or(|path| path.is_empty()) {
        return Ok(None);
    }
    let path = entry.path(DIRECTORY).join(SOCKET);
    if !entry.path(DIRECTORY).is_dir() {
        return Ok(None);
    }
    let make = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let directory = rustix::fs::open(
            entry.path(DIRECTORY),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let address = format!("/proc/self/fd/{}/{SOCKET}", std::os::fd::AsRawFd::as_raw_fd(&directory));
        bind(&socket, &SocketAddrUnix::new(address)?)?;
        // Whatever id the program runs with.
        rustix::fs::chmodat(&directory, SOCKET, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())?;
        Ok::<_, Errno>(socket)
    };
    make().map(Some).during(|| format!("make {}", path.display()))
}

/// Waits until the container says that it is ready, or ends, and passes the news on with its process id.
pub(crate) fn forward(socket: &OwnedFd, pidfd: BorrowedFd<'_>, pid: i32) -> Result<()> {
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.during(|| "wait for the container to be ready")?,
        };
        if fds.first().is_none_or(|fd| fd.revents().is_empty()) || take(socket, pid)? {
            return Ok(());
        }
    }
}

/// Takes one message of the container. Whether it was that it is ready, which is passed on. Where nobody takes it, that is no fault of the
/// container's, which goes on.
pub(crate) fn take(socket: &OwnedFd, pid: i32) -> Result<bool> {
    let mut buffer = [0_u8; 4096];
    let (n, _) = recv(socket.as_fd(), &mut buffer, RecvFlags::empty()).during(|| "read the container's readiness")?;
    let text = buffer.get(..n).unwrap_or(&[]);
    if !text.split(|b| *b == b'\n').any(|line| line == b"READY=1") {
        return Ok(false);
    }
    if let Err(error) = pass_on(&format!("MAINPID={pid}\nREADY=1\n")) {
        crate::cli::log::warn(&error.to_string());
    }
    Ok(true)
}

fn pass_on(message: &str) -> Result<()> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let send = || {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            name => SocketAddrUnix::new(name)?,
        };
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        sendto(&socket, message.as_bytes(), SendFlags::NOSIGNAL, &address)
    };
    send().map(drop).during(|| format!("notify {}", path.display()))
}
