//! clone3(2) as a fork: the child has its own copy of everything and never returns to the caller.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// `CLONE_INTO_CGROUP` (Linux 5.7); too wide for the C library's `c_int` constants.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;

/// `struct clone_args` up to and with `cgroup` (88 bytes, version 2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A new child.
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
fn exit(status: i32) -> ! {
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
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArgs {
        flags: u64::from(namespaces.bits()) | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::try_from(signal).map_err(|_| Errno::INVAL)?,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `arguments` is a valid clone_args of the size passed and `pidfd` outlives the call. Namespace flags never
    // share memory, stack or thread-local storage (no CLONE_VM, CLONE_SETTLS), so the child runs on its own copy of this
    // stack like after fork(2).
    let pid =
        super::check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        let _guard = NoWayBack;
        exit(body());
    }
    let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with CLONE_PIDFD a successful clone3 has stored a new descriptor there that nobody else owns.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
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

/// A child that does nothing but hold its namespaces open; killed and reaped when dropped.
pub(crate) struct Helper(Child);

impl Helper {
    /// Starts it in new `namespaces`.
    pub(crate) fn start(namespaces: UnshareFlags) -> Result<Self, Errno> {
        fork_into(namespaces, None, 0, || {
            loop {
                // SAFETY: pause(2) has no preconditions.
                unsafe { libc::pause() };
            }
        })
        .map(Self)
    }

    /// Its process id here.
    pub(crate) fn pid(&self) -> i32 {
        self.0.pid
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        kill_and_reap(&self.0);
    }
}

/// Kills a child that is still the caller's and waits for its end.
pub(crate) fn kill_and_reap(child: &Child) {
    // It can only have ended already; reaping is right either way.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    reap(child.pid);
}
