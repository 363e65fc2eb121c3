//! The gate: a listening socket in the state directory. The child of `create` waits on it right before its program; `start`
//! connects, says so, and reads on the same connection how it went on.
//!
//! The socket lives as long as the child waits: connecting to a gate that is open already, or whose child has died, is refused.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recv, send,
    socket_with,
};

use super::error::{During, Result};
use crate::report::{self, Report};
use crate::start::GateMessage;

/// Its name in the state directory.
const NAME: &str = "gate";

/// How many may have looked at the gate before the child looks after them. It doesn't while it is frozen or runs its last hooks.
const BACKLOG: i32 = 16;

/// Makes the gate and returns what the child waits on.
pub(crate) fn make(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    let make = || {
        let socket = stream()?;
        bind(&socket, &address(directory)?)?;
        listen(&socket, BACKLOG)?;
        Ok::<_, Errno>(socket)
    };
    make().during(|| "make the gate in the state directory")
}

/// Whether a child waits behind a gate. Waits for nobody itself.
pub(crate) fn is_closed(directory: BorrowedFd<'_>) -> bool {
    let look = || {
        let socket = stream()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        connect(&socket, &address(directory)?)
    };
    // Where so many have looked that it takes no more, it is there.
    matches!(look(), Ok(()) | Err(Errno::AGAIN))
}

/// Opens the gate and waits for the child's report on how it went on.
pub(crate) fn open(directory: BorrowedFd<'_>) -> Result<Report> {
    let connect = || {
        let socket = stream()?;
        connect(&socket, &address(directory)?)?;
        Ok::<_, Errno>(socket)
    };
    let socket: OwnedFd = connect().during(|| "open the gate in the state directory")?;
    send(&socket, &[GateMessage::Open as u8], SendFlags::NOSIGNAL).during(|| "open the gate")?;
    let mut told = Vec::new();
    let mut buffer = [0_u8; 4096];
    // No report is longer.
    while told.len() <= buffer.len() {
        match recv(&socket, &mut buffer, RecvFlags::empty()) {
            // The child's end is reset when it dies with something unread, which it never leaves while it lives.
            Ok((0, _)) | Err(Errno::CONNRESET) => break,
            Ok((n, _)) => told.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| "wait for the program to be executed"),
        }
    }
    Ok(report::judge(&told))
}

/// Removes it; there may be none.
pub(crate) fn remove(directory: BorrowedFd<'_>) {
    let _ = rustix::fs::unlinkat(directory, NAME, rustix::fs::AtFlags::empty());
}

fn stream() -> std::result::Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// By descriptor: a socket's path may have 107 bytes only, and a state directory's may be longer.
fn address(directory: BorrowedFd<'_>) -> std::result::Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()))
}
