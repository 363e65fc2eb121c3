//! Who has a processor first.

use std::io;

/// The least that setpriority(2) takes: before everything that isn't real-time.
const FIRST: libc::c_int = -20;

/// Puts this process before all others of the machine, but not the children that it makes from now on (sched(7),
/// `SCHED_RESET_ON_FORK`). It stays so over an exec.
pub fn go_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is initialised and outlives the call; 0 is the calling thread.
    check(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    })?;
    // SAFETY: no memory is touched; 0 is the calling process.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
