//! The one thing a new network namespace needs: its loopback interface up.

use std::ffi::c_void;
use std::os::fd::IntoRawFd;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCSIFFLAGS` (netdevice(7)).
struct SetFlags(libc::ifreq);

// SAFETY: the operation only reads the ifreq that it is given, and returns nothing.
unsafe impl Ioctl for SetFlags {
    type Output = ();

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        libc::SIOCSIFFLAGS as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Brings `lo` of the current network namespace up (netdevice(7)), without the C library.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // Interface ioctls work on a socket of any family; this one is in every kernel.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // A new interface has no other flag that could be lost by this.
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::INVAL)?;
    // SAFETY: as `SetFlags` says.
    let done = unsafe { ioctl(&socket, SetFlags(request)) };
    // SAFETY: the descriptor was its owner's and is nobody's any more.
    unsafe { rustix::io::close(socket.into_raw_fd()) };
    done
}
