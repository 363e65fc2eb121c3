//! Sockets between a virtual machine and its host (vsock(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The host's address, as its virtual machines see it.
pub const HOST: u32 = libc::VMADDR_CID_HOST;
/// Connections that wait to be accepted.
const BACKLOG: libc::c_int = 8;

/// Listens on a port of every address of this machine. Neither it nor what it accepts blocks.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let number = unsafe { libc::socket(libc::AF_VSOCK, kind, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket(2) has just made it, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let mut address = empty_address();
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    // SAFETY: the address and size are those of a live structure, which the kernel only reads.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Accepts a connection: the stream, and its other end's address (CID).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)> {
    let mut address = empty_address();
    let mut length = size();
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `length` bytes, the structure's size, and both are live.
    let number = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut length, flags) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4(2) has just made it, and nothing else owns it.
    Ok((unsafe { OwnedFd::from_raw_fd(number) }, address.svm_cid))
}

fn empty_address() -> libc::sockaddr_vm {
    // SAFETY: `sockaddr_vm` is a C structure of integers, for which zeroes are a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address
}

fn size() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default()
}
