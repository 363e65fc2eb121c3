//! What a process sets about itself, or its parent about it.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::launch::Rlimit;

/// Sets one resource limit of this process exactly.
pub(crate) fn set_limit(limit: &Rlimit) -> Result<(), Errno> {
    prlimit(0, limit.resource, Some(libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard })).map(|_| ())
}

/// Makes one resource limit of process `pid` at least this large.
pub(crate) fn raise_limit(pid: i32, limit: &Rlimit) -> Result<(), Errno> {
    let old = prlimit(pid, limit.resource, None)?;
    let new = libc::rlimit64 { rlim_cur: old.rlim_cur.max(limit.soft), rlim_max: old.rlim_max.max(limit.hard) };
    prlimit(pid, limit.resource, Some(new)).map(|_| ())
}

/// Reads and, with `new`, then sets a limit of process `pid` (0: this one). See prlimit(2).
fn prlimit(pid: i32, resource: u32, new: Option<libc::rlimit64>) -> Result<libc::rlimit64, Errno> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structures outlive the call, which reads `new` and writes `old`; a null new limit is allowed.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            libc::c_long::from(resource),
            new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            &raw mut old,
        )
    })?;
    Ok(old)
}

/// `struct sigaction` as the kernel has it on x86-64 and arm64; all zeroes is SIG_DFL.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Gives every signal its default action and blocks none. Ignored and blocked signals would outlive exec.
pub(crate) fn reset_signals() {
    reset_these_signals(u64::MAX);
}

/// The same where only these may be ignored, one bit for each from signal 1 on.
///
/// By the system calls, as the C library keeps two signals (32, 33) from its callers, and a launcher may ignore those, too.
pub(crate) fn reset_these_signals(set: u64) {
    let (default, none) = (KernelSigaction::default(), 0_u64);
    for signal in (1..=64).filter(|signal| set & bit(*signal) != 0) {
        // KILL and STOP are refused, and always at their defaults.
        // SAFETY: SIG_DFL installs no code; `default` is a kernel sigaction and 8 the size of its mask; a null old one is
        // allowed.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null_mut::<libc::c_void>(), 8);
        }
    }
    // SAFETY: `none` is a kernel signal set of the size passed; a null old set is allowed.
    unsafe {
        let old = std::ptr::null_mut::<libc::c_void>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, old, 8);
    }
}

/// A signal in a kernel signal set.
fn bit(signal: i32) -> u64 {
    1 << signal.saturating_sub(1)
}

/// The signals that this process ignores, as [`reset_these_signals`] takes them.
pub(crate) fn ignored_signals() -> u64 {
    let is_ignored = |signal: &i32| {
        let mut now = KernelSigaction::default();
        // SAFETY: a null new action only asks; `now` is a kernel sigaction and 8 the size of its mask.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, *signal, std::ptr::null::<libc::c_void>(), &raw mut now, 8);
        }
        now.handler == libc::SIG_IGN
    };
    (1..=64).filter(is_ignored).fold(0, |set, signal| set | bit(signal))
}

/// Marks every descriptor from `first` up close-on-exec (close_range(2), the flag since Linux 5.11).
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: marking descriptors close-on-exec closes none, so no owner is left with a dead one.
    super::check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

/// Closes every descriptor from `first` up but these (close_range(2), Linux 5.9), and of those below, which the caller has left for the next
/// program, what exec would close: it stands where the caller had none. For a process that is about to execute another program, or to end by
/// exit: whoever owns one of them must not use it, or drop it, any more.
pub(crate) fn close_all_but(kept: &mut [RawFd], first: RawFd) -> Result<(), Errno> {
    let close = |from: RawFd, to: libc::c_uint| {
        // SAFETY: the caller's word that no owner uses one of them.
        super::check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
    };
    // SAFETY: fcntl(2) with F_GETFD only looks.
    let ends_with_exec = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == libc::FD_CLOEXEC;
    for fd in (3..first).filter(|fd| !kept.contains(fd)).filter(ends_with_exec) {
        close(fd, fd.unsigned_abs())?;
    }
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.iter().filter(|fd| **fd >= first) {
        if *fd > from {
            close(from, fd.saturating_sub(1).unsigned_abs())?;
        }
        from = from.max(fd.saturating_add(1));
    }
    close(from, libc::c_uint::MAX)
}

/// Sends a signal by number, which may be 0 or a real-time one, to the process of a pid descriptor (pidfd_send_signal(2)).
#[cfg(feature = "cli")]
pub(crate) fn signal_pidfd(pidfd: std::os::fd::BorrowedFd<'_>, signal: u8) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; everything else is a plain number.
    super::check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::c_int::from(signal), none, 0)
    })?;
    Ok(())
}

/// Sends a signal by number to the process that has this id now. ESRCH also for ids that are no single process's.
#[cfg(feature = "cli")]
pub(crate) fn signal_pid(pid: i32, signal: u8) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: kill(2) takes plain numbers.
    super::check(unsafe { libc::kill(pid, signal.into()) }.into())?;
    Ok(())
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` of `linux/seccomp.h`.
pub(crate) const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, which is for filters with a listener only.
pub(crate) const WAIT_KILLABLE: u32 = 1 << 5;

/// A seccomp filter in the form that the kernel takes.
pub(crate) struct SeccompFilter {
    instructions: Vec<libc::sock_filter>,
    flags: u32,
}

impl SeccompFilter {
    /// From 8-byte `sock_filter` structures in the machine's byte order; EINVAL if they aren't whole or too many.
    pub(crate) fn new(bpf: &[u8], flags: u32) -> Result<Self, Errno> {
        let (chunks, rest) = bpf.as_chunks::<8>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > usize::from(u16::MAX) {
            return Err(Errno::INVAL);
        }
        let instructions = chunks
            .iter()
            .map(|[c0, c1, jt, jf, k @ ..]| libc::sock_filter {
                code: u16::from_ne_bytes([*c0, *c1]),
                jt: *jt,
                jf: *jf,
                k: u32::from_ne_bytes(*k),
            })
            .collect();
        Ok(Self { instructions, flags })
    }

    /// Puts it in force for this thread, for good (seccomp(2)). Returns the listener, if the flags ask for one.
    pub(crate) fn load(&self) -> Result<Option<OwnedFd>, Errno> {
        self.load_with(self.flags)
    }

    /// The same without a listener: calls that would be handed over fail with ENOSYS.
    pub(crate) fn load_unheard(&self) -> Result<(), Errno> {
        self.load_with(self.flags & !(NEW_LISTENER | WAIT_KILLABLE)).map(drop)
    }

    fn load_with(&self, flags: u32) -> Result<Option<OwnedFd>, Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.instructions.len()).map_err(|_| Errno::INVAL)?,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: `program` describes exactly the instructions that `self` owns; the kernel copies them.
        let result = super::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })?;
        if flags & NEW_LISTENER == 0 {
            return Ok(None);
        }
        let fd = RawFd::try_from(result).map_err(|_| Errno::BADF)?;
        // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the successful call returned a new descriptor that nobody else owns.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Leaves the launcher's session keyring for a new and empty one (keyctl_join_session_keyring(3)).
///
/// No keys in the kernel, or a filter that is in force already and denies them, is as good: then there are none to be had.
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    // SAFETY: the operation takes a name or null, for a keyring without one.
    let joined = super::check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    });
    match joined {
        Ok(_) | Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Leaves the parent's namespaces of these kinds (unshare(2)).
pub(crate) fn unshare(namespaces: rustix::thread::UnshareFlags) -> Result<(), Errno> {
    // SAFETY: callers pass namespace flags only, never CLONE_FILES, under which other threads would lose descriptors that
    // they own.
    unsafe { rustix::thread::unshare_unsafe(namespaces.difference(rustix::thread::UnshareFlags::FILES)) }
}
