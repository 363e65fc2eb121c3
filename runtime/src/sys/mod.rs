//! System calls that rustix doesn't wrap, each behind a safe function. The only unsafe code of this crate.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod exec;
pub(crate) mod helper;
pub(crate) mod landlock;
pub(crate) mod lodge;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod schedule;
#[cfg(feature = "cli")]
pub(crate) mod signals;

use rustix::io::Errno;

/// The result of a raw `libc` call that returns -1 and sets errno.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        // The calling thread's errno was set by the call just made; a missing one (never) would read as EIO.
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result)
    }
}
