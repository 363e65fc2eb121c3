//! Unsafe calls of the tests.
#![allow(unsafe_code)]

mod trace;

use std::os::unix::process::CommandExt;
use std::process::Command;

pub use trace::{kill_before_call, kill_child_before_call};

/// Leaves the parent's mount namespace.
pub fn unshare_mounts() {
    // SAFETY: unshare(2) takes plain flags; with NEWNS no descriptors are lost.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("unshare as root");
}

/// Ends this thread alone, also if it is the first.
pub fn end_thread() -> ! {
    // SAFETY: exit(2) takes a plain number and doesn't return; what the thread has borrowed to others is never freed.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("exit(2) has returned")
}

/// Descriptor 3 and the following of `command` become these; they stay open in this process.
pub fn pass_descriptors(command: &mut Command, descriptors: Vec<i32>) {
    // SAFETY: between fork and exec only fcntl(2) and dup2(2) are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            // First out of the way of the targets.
            let mut high = [0; 16];
            for (to, from) in high.iter_mut().zip(&descriptors) {
                *to = libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, 100);
            }
            for (number, from) in (3..).zip(high.iter().take(descriptors.len())) {
                libc::dup2(*from, number);
            }
            Ok(())
        });
    }
}

/// Limits `command`'s open descriptors.
pub fn limit_descriptors(command: &mut Command, most: u64) {
    // SAFETY: between fork and exec only setrlimit(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            Ok(())
        });
    }
}

/// Has `command` find no prctl(2) with this first argument, as on a kernel that is older.
pub fn without_prctl(command: &mut Command, option: u32) {
    const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned();
    // Offsets in struct seccomp_data: the call's number, and the lower half of its first argument. Jumps are to the last two.
    let mut program = [
        (0x20, 0, 0, 0),
        (0x15, 0, 2, libc::SYS_prctl as u32),
        (0x20, 0, 0, 16),
        (0x15, 1, 0, option),
        (0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        (0x06, 0, 0, DENY),
    ]
    .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe; the filter is copied before the array is gone.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog { len: 6, filter: program.as_mut_ptr() };
            match libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// Takes back that this mount is read-only (mount_setattr(2)).
pub fn make_writable(mount: &std::os::fd::OwnedFd) -> rustix::io::Result<()> {
    let change = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let fd = std::os::fd::AsRawFd::as_raw_fd(mount);
    // SAFETY: the path is an empty NUL-terminated string, and `change` is as large as is said.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of_val(&change),
        )
    };
    if done == 0 { Ok(()) } else { Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()) }
}

/// Gives this thread a session keyring of this name, which only those see who possess it.
pub fn join_private_keyring(name: &std::ffi::CStr) {
    // All rights for possessors, none for others (keyctl_setperm(3)).
    const POSSESSORS: libc::c_long = 0x3f00_0000;
    // SAFETY: `name` is NUL-terminated and outlives the call; the second call takes plain numbers.
    unsafe {
        let keyring = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr());
        assert!(keyring > 0);
        assert_eq!(libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, keyring, POSSESSORS), 0);
    }
}
