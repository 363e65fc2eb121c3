//! A watchdog device: a timer in hardware, or in the kernel, that starts the machine over when nobody feeds it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `WDIOC_SETTIMEOUT` of `linux/watchdog.h`: `_IOWR('W', 6, int)`.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
/// `WDIOC_GETBOOTSTATUS`: `_IOR('W', 2, int)`.
const WDIOC_GETBOOTSTATUS: libc::c_ulong = 0x8004_5702;
/// `WDIOF_CARDRESET`: the last reset was the watchdog's.
const CARDRESET: libc::c_int = 0x0020;

/// Sets the time that it may go unfed, in seconds. Returns the time that the device took instead, as not each can do every.
pub fn set_timeout(device: &OwnedFd, seconds: u32) -> io::Result<u32> {
    let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int through the pointer, which points to a live one.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut value) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether it says that it reset the machine. Many can't tell, and say nothing.
pub fn has_reset(device: &OwnedFd) -> bool {
    let mut value: libc::c_int = 0;
    // SAFETY: WDIOC_GETBOOTSTATUS writes one int through the pointer, which points to a live one.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_GETBOOTSTATUS, &raw mut value) };
    result >= 0 && value & CARDRESET != 0
}
