//! Signals as a descriptor to read (signalfd(2)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Blocks every signal of this thread and returns the descriptor on which they come, non-blocking.
pub(crate) fn take_all() -> Result<OwnedFd, Errno> {
    // SAFETY: sigset_t is plain data that sigfillset then fills; the pointers are valid for the calls.
    let fd = super::check(unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into()
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the successful call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal's number, if one has come.
pub(crate) fn next(signals: BorrowedFd<'_>) -> Result<Option<u8>, Errno> {
    // SAFETY: signalfd_siginfo is plain data for which all zeroes is a valid value.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` is writable for the size passed and outlives the call.
        let read = unsafe { libc::read(signals.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
        match super::check(i64::try_from(read).unwrap_or(-1)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(u8::try_from(info.ssi_signo).ok()),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
