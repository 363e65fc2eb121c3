//! What a process sets about itself, or its parent about it.

use std::os::fd::RawFd;

use rustix::io::Errno;

use crate::launch::Rlimit;

/// Sets one resource limit of another process (prlimit(2)).
pub(crate) fn set_limit(pid: i32, limit: &Rlimit) -> Result<(), Errno> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `new` is an rlimit64 that outlives the call, which only reads it; a null old limit is allowed.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            libc::c_long::from(limit.resource),
            &raw const new,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })?;
    Ok(())
}

/// Gives every signal its default action and blocks none. Ignored and blocked signals would outlive exec.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // KILL, STOP and the C library's own two are refused, and are at their defaults.
        // SAFETY: SIG_DFL installs no code; changing a disposition has no memory effects.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain data for which all zeroes is a valid value; sigemptyset then sets it.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is a valid signal set for both calls; a null old set is allowed.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Marks every descriptor from `first` up close-on-exec (close_range(2), the flag since Linux 5.11).
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: marking descriptors close-on-exec closes none, so no owner is left with a dead one.
    super::check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

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

    /// Puts it in force for this thread, for good (seccomp(2)).
    pub(crate) fn load(&self) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.instructions.len()).map_err(|_| Errno::INVAL)?,
            filter: self.instructions.as_ptr().cast_mut(),
        };
        // SAFETY: `program` describes exactly the instructions that `self` owns; the kernel copies them.
        super::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &raw const program)
        })?;
        Ok(())
    }
}

/// Leaves the parent's namespaces of these kinds (unshare(2)).
pub(crate) fn unshare(namespaces: rustix::thread::UnshareFlags) -> Result<(), Errno> {
    // SAFETY: callers pass namespace flags only, never CLONE_FILES, under which other threads would lose descriptors that
    // they own.
    unsafe { rustix::thread::unshare_unsafe(namespaces.difference(rustix::thread::UnshareFlags::FILES)) }
}
