//! The one thing a new network namespace needs: its loopback interface up.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Brings `lo` of the current network namespace up (netdevice(7)).
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // Interface ioctls work on a socket of any family; this one is in every kernel.
    // SAFETY: socket(2) takes plain integers.
    let fd = super::check(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the successful call returned a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // A new interface has no other flag that could be lost by this.
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS only reads the ifreq passed.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())?;
    Ok(())
}
