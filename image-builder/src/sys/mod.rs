//! System calls without a safe wrapper elsewhere, each behind a safe function.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connects to a port of a virtual machine, or of this one (vsock(7)).
pub fn connect_vsock(cid: u32, port: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let number = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket(2) has just made it, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: `sockaddr_vm` is a C structure of integers, for which zeroes are a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address and size are those of a live structure, which the kernel only reads.
    if unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
