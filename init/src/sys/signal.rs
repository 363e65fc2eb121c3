//! Signals as file descriptors, and signals to processes named by one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A signal that was taken from a [`SignalFd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// Process that sent it; 0 for the kernel and for senders outside our pid namespace.
    pub sender: u32,
}

/// A queue of blocked signals (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Makes `signals` the calling thread's blocked signals, and no others (so that a fatal one inherited as blocked over
    /// an exec is unblocked), and opens a queue for them that doesn't block.
    pub fn replace_mask(signals: &[i32]) -> io::Result<Self> {
        Self::open(signals, libc::SFD_NONBLOCK)
    }

    /// As [`SignalFd::replace_mask`], but reading waits for a signal.
    pub fn replace_mask_blocking(signals: &[i32]) -> io::Result<Self> {
        Self::open(signals, 0)
    }

    fn open(signals: &[i32], flags: i32) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: `set` is an initialised set that outlives the call; a null third argument means that the old mask isn't wanted.
        let rc = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, flags | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd(2) has just made `fd` and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal; `Ok(None)` when none is queued.
    pub fn read(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is writable and `size` bytes long.
        let n = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        match usize::try_from(n) {
            Ok(n) if n == size => {
                // SAFETY: it was zeroed, which is a valid value of this all-integer structure, and the kernel filled it.
                let info = unsafe { info.assume_init() };
                Ok(Some(Received { signal: i32::try_from(info.ssi_signo).unwrap_or(0), sender: info.ssi_pid }))
            }
            Ok(_) => Ok(None),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => Ok(None),
                e => Err(e),
            },
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends signal number `signal` to a child that isn't reaped yet, so that its number is its own (kill(2)).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        // Groups of processes, to kill(2).
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: two integers; no memory of ours is touched.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends signal number `signal` (real-time ones included) to the process of a pidfd (pidfd_send_signal(2)).
pub fn send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let null: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the length of the call; a null siginfo asks for what kill(2) would send; flags are 0.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, null, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the program that `command` will execute begin with no signal blocked. The standard library passes our own mask on.
pub fn unblock_in_child(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs in a fork of this process and makes one system call on a set of its own: async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let none = set_of(&[]);
            match libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}

/// PID 1's last means: SIGKILL to every process but itself. Another process than PID 1 sends nothing.
pub fn kill_all_others() {
    if rustix::process::getpid().is_init() {
        // SAFETY: kill(2) has no memory-safety preconditions; -1 leaves out the caller and kernel threads.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// The number of the first real-time signal that the C library leaves to programs.
pub fn rt_min() -> i32 {
    libc::SIGRTMIN()
}

/// All signals that can be caught and that don't tell of a fault in the program itself.
pub fn forwardable() -> Vec<i32> {
    const NOT: [i32; 7] =
        [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];
    // 32 and 33 belong to the C library.
    (1..=64).filter(|s| !NOT.contains(s) && *s != 32 && *s != 33).collect()
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is valid for writing a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above; an invalid number is refused with an error and changes nothing.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: sigemptyset(3) initialised it.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_signals_reach_a_pidfd() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        send(&pidfd, rt_min()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(rt_min()));
        assert_eq!(send(&pidfd, 15).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn faults_are_not_forwarded() {
        let signals = forwardable();
        assert!(signals.contains(&libc::SIGTERM) && signals.contains(&libc::SIGCHLD) && signals.contains(&64));
        assert!(!signals.contains(&libc::SIGSEGV) && !signals.contains(&libc::SIGKILL));
    }
}
