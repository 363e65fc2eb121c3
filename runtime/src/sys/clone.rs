//! clone3(2) as a fork: the child has its own copy of everything and never returns to the caller.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// `CLONE_INTO_CGROUP` (Linux 5.7); too wide for the C library's `c_int` constants.
pub(super) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND` (Linux 5.5): the launcher's signal handlers aren't the child's.
pub(super) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(super) const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;

/// `struct clone_args` up to and with `cgroup` (88 bytes, version 2).
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
    pub(super) set_tid: u64,
    pub(super) set_tid_size: u64,
    pub(super) cgroup: u64,
}

/// A new child.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id here.
    pub(crate) pid: i32,
    /// Its pid descriptor.
    pub(crate) pidfd: OwnedFd,
}

/// Ends the child if the code it runs ever unwinds: it must not come back as a second copy of the launcher.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        exit(127);
    }
}

/// Ends this process at once, without the C library's exit handlers, which are the launcher's.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions and doesn't return.
    unsafe { libc::_exit(status) }
}

/// Forks into new `namespaces` and, if given, into `cgroup`; `body` runs in the child and returns its exit status.
///
/// With `signal` 0 the parent gets no SIGCHLD for it. Only the calling thread exists in the child, so a caller with other
/// threads risks that one of them held the allocator's lock.
pub(crate) fn fork_into(
    namespaces: UnshareFlags,
    cgroup: Option<BorrowedFd<'_>>,
    signal: i32,
    body: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    fork(u64::from(namespaces.bits()), cgroup, signal, body)
}

/// Forks a child of this process's parent, which gets its SIGCHLD as for this process. For a process that has gone where its
/// parent doesn't want to be.
pub(crate) fn fork_sibling(namespaces: UnshareFlags, body: impl FnOnce() -> i32) -> Result<Child, Errno> {
    fork(libc::CLONE_PARENT as u64 | u64::from(namespaces.bits()), None, 0, body)
}

fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>, signal: i32, body: impl FnOnce() -> i32) -> Result<Child, Errno> {
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArgs {
        flags: flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::try_from(signal).map_err(|_| Errno::INVAL)?,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `arguments` is a valid clone_args of the size passed and `pidfd` outlives the call. Callers pass namespace flags
    // and CLONE_PARENT, which never share memory, stack or thread-local storage (no CLONE_VM, CLONE_SETTLS), so the child runs
    // on its own copy of this stack like after fork(2).
    let pid =
        super::check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        let _guard = NoWayBack;
        exit(body());
    }
    let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with CLONE_PIDFD a successful clone3 has stored a new descriptor there that nobody else owns.
    Ok(unsafe { own(pid, pidfd) })
}

/// A child that was just made.
///
/// # Safety
///
/// `pidfd` must be a new descriptor that nobody else owns.
pub(super) unsafe fn own(pid: i32, pidfd: i32) -> Child {
    // SAFETY: the caller's word.
    Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }
}

/// Waits for the end of a child that is ending, also for one made with signal 0.
pub(crate) fn reap(pid: i32) {
    loop {
        // SAFETY: a null status pointer is allowed by waitpid(2).
        let result = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        if super::check(result.into()) != Err(Errno::INTR) {
            return;
        }
    }
}

/// Runs `body` with every signal blocked for this thread, which a child that it makes inherits.
pub(super) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    // By the system call, as the C library keeps two signals unblocked.
    let change = |new: u64| {
        let mut old = 0_u64;
        // SAFETY: both are kernel signal sets of the size passed and outlive the call.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const new, &raw mut old, 8) };
        old
    };
    let before = change(u64::MAX);
    let result = body();
    change(before);
    result
}

/// Kills a child that is still the caller's and waits for its end.
pub(crate) fn kill_and_reap(child: &Child) {
    // It can only have ended already; reaping is right either way.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    reap(child.pid);
}

#[cfg(test)]
mod tests {
    use libc::c_int;

    use super::*;

    extern "C" fn ignore(_: c_int) {}

    #[test]
    fn a_child_doesn_t_run_the_launcher_s_handlers() {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR2, ignore as *const () as libc::sighandler_t) };
        // SAFETY: raise(3) and _exit(2) are all that the child does.
        let child = fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || unsafe { libc::raise(libc::SIGUSR2) });
        let mut status = 0;
        // SAFETY: the status pointer is valid.
        unsafe { libc::waitpid(child.unwrap().pid, &raw mut status, libc::__WALL) };
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGUSR2, "{status:#x}");
        // Control: here it is handled.
        // SAFETY: raise(3) has no preconditions.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
    }

    #[test]
    fn signals_are_blocked_for_as_long_as_it_takes() {
        let blocked = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = |text: &str| text.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned();
        let before = line(&blocked());
        // All but KILL and STOP.
        assert_eq!(with_signals_blocked(|| line(&blocked())), "SigBlk:\tfffffffffffbfeff");
        assert_eq!(line(&blocked()), before);
    }
}
