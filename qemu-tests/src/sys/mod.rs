//! The unsafe calls of this crate.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the kernel kill the process that `command` starts as soon as the thread that starts it ends.
pub fn kill_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the forked child before exec, where only async-signal-safe calls are allowed. It makes one
    // system call, allocates nothing and takes no lock: an error code becomes an `io::Error` without allocation.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

/// Lets the process that `command` starts begin with these signals blocked: they are for the one that starts it.
pub fn block_signals(command: &mut Command, signals: &[i32]) {
    let signals = signals.to_vec();
    // SAFETY: as above: the calls are async-signal-safe, the set is the child's own, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signal in &signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(()),
                error => Err(std::io::Error::from_raw_os_error(error)),
            }
        });
    }
}

/// This processor's time stamp counter.
#[cfg(target_arch = "x86_64")]
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC; user space may be denied it only by prctl(PR_SET_TSC), which nothing here does.
    unsafe { core::arch::x86_64::_rdtsc() }
}
