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

/// This processor's time stamp counter.
#[cfg(target_arch = "x86_64")]
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC; user space may be denied it only by prctl(PR_SET_TSC), which nothing here does.
    unsafe { core::arch::x86_64::_rdtsc() }
}
