//! clone3(2) as a fork: the child has its own copy of everything and never returns to the caller.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::UnshareFlags;

/// `CLONE_INTO_CGROUP` (Linux 5.7); too wide for the C library's `c_int` constants.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND` (Linux 5.5): the launcher's signal handlers aren't the child's.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
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

/// The helper makes two system calls and nothing else.
const HELPER_STACK: usize = 4096;

/// Stack memory, aligned as the ABI wants a stack to be.
#[repr(align(16))]
struct Stack([u8; HELPER_STACK]);

/// A child that does nothing but hold its namespaces open; killed and reaped when dropped. One whose launcher ends, or executes
/// another program without the launcher's descriptors, ends by itself.
///
/// It shares the launcher's memory, as copying that for a child that needs none of it would be most of the work.
pub(crate) struct Helper {
    child: Child,
    /// Both ends of a pipe; the child waits for the second one's close.
    _pipe: (OwnedFd, OwnedFd),
    // Freed after `drop` has reaped the child that uses them.
    _ends: Box<[c_int; 2]>,
    _stack: Box<Stack>,
}

impl Helper {
    /// Starts it in new `namespaces`.
    pub(crate) fn start(namespaces: UnshareFlags) -> Result<Self, Errno> {
        let mut stack = Box::new(Stack([0; HELPER_STACK]));
        let pipe = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ends = Box::new([pipe.0.as_raw_fd(), pipe.1.as_raw_fd()]);
        let mut pidfd: i32 = -1;
        // Without a signal at its end, so that nobody takes it for a container.
        let flags = i32::try_from(namespaces.bits()).map_err(|_| Errno::INVAL)? | libc::CLONE_VM | libc::CLONE_PIDFD;
        let pid = with_signals_blocked(|| {
            // SAFETY: `stack` is memory of that size that nothing else uses, kept until the child is reaped; its end is aligned.
            // So is `ends`, which it reads. `hold` touches no other memory of the launcher: it has every signal blocked, so no
            // handler runs in it, and its calls succeed, so that errno, which it shares, is not written. CLONE_PIDFD stores the descriptor in `pidfd`, which outlives the call.
            super::check(
                unsafe {
                    let top = stack.0.as_mut_ptr_range().end;
                    libc::clone(hold, top.cast(), flags, ends.as_mut_ptr().cast(), &raw mut pidfd)
                }
                .into(),
            )
        })?;
        let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
        // SAFETY: with CLONE_PIDFD a successful clone has stored a new descriptor there that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { child: Child { pid, pidfd }, _pipe: pipe, _ends: ends, _stack: stack })
    }

    /// Its process id here.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        kill_and_reap(&self.child);
    }
}

/// Waits until nobody has the second end any more. The child's descriptors are copies of its own.
extern "C" fn hold(ends: *mut libc::c_void) -> c_int {
    // SAFETY: `start` passes these two numbers and keeps them until the child is reaped.
    let [reader, writer] = unsafe { *ends.cast::<[c_int; 2]>() };
    // SAFETY: the descriptor is the child's; by the bare call, as the C library's keeps accounts in memory that is shared.
    unsafe { libc::syscall(libc::SYS_close, writer) };
    let mut byte = 0_u8;
    // SAFETY: the buffer is writable for the one byte.
    unsafe { libc::syscall(libc::SYS_read, reader, &raw mut byte, 1_usize) };
    0
}

/// Runs `body` with every signal blocked for this thread, which a child that it makes inherits.
fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
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
    fn a_helper_that_was_forgotten_ends() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let ended = |helper: &Helper, seconds| {
            let mut ended = [PollFd::new(&helper.child.pidfd, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })) == Ok(1)
        };
        let mut helper = Helper::start(UnshareFlags::empty()).unwrap();
        assert!(!ended(&helper, 0));
        // As an exec closes them.
        let elsewhere = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(std::mem::replace(&mut helper._pipe, elsewhere));
        assert!(ended(&helper, 60));
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
