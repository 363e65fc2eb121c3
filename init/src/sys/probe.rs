//! System calls made only to see whether the kernel knows them. None of them can succeed in doing anything.

use std::io;

/// Whether the kernel knows the call: any error but ENOSYS says so.
fn known(result: libc::c_long) -> bool {
    result >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// `seccomp` in any form (`CONFIG_SECCOMP`).
pub fn seccomp() -> bool {
    // SAFETY: PR_GET_SECCOMP takes no pointers; it only reports the mode of this thread.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 }
}

/// `seccomp` filters (`CONFIG_SECCOMP_FILTER`).
pub fn seccomp_filter() -> bool {
    // SAFETY: the filter's address is null, which the kernel refuses with EFAULT, or with EINVAL if it has no filters.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, 0, 0, 0) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// `mount_setattr(2)` (5.12), which makes idmapped mounts.
pub fn mount_setattr() -> bool {
    // SAFETY: the attributes' address is null and their size 0, which the kernel refuses with EINVAL.
    known(unsafe { libc::syscall(libc::SYS_mount_setattr, -1, 0usize, 0, 0usize, 0usize) })
}

/// `fsopen(2)` and the rest of the new mount calls (5.2).
pub fn fsopen() -> bool {
    // SAFETY: the name's address is null, which the kernel refuses with EFAULT.
    known(unsafe { libc::syscall(libc::SYS_fsopen, 0usize, 0) })
}

/// `openat2(2)` (5.6).
pub fn openat2() -> bool {
    // SAFETY: the size 0 is refused with EINVAL before any address is looked at.
    known(unsafe { libc::syscall(libc::SYS_openat2, -1, 0usize, 0usize, 0usize) })
}

/// `clone3(2)` with `CLONE_INTO_CGROUP` (5.7).
pub fn clone_into_cgroup() -> bool {
    // struct clone_args: flags first, cgroup last.
    let arguments: [u64; 11] = [0x2_0000_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0, u64::MAX];
    // SAFETY: the address and size are those of a live array. The cgroup's fd is impossible: refused with EINVAL; kernels
    // before 5.7 refuse the eleventh field with E2BIG, so no process is made by any.
    let result = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// Programs for control groups (`CONFIG_CGROUP_BPF`), asked of the control group whose directory is `cgroup`.
pub fn cgroup_bpf(cgroup: std::os::fd::BorrowedFd<'_>) -> bool {
    const BPF_PROG_QUERY: libc::c_int = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    let target = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&cgroup)).unwrap_or(u32::MAX);
    // target_fd, attach_type, query_flags, attach_flags, prog_ids (u64), prog_cnt, padding
    let mut query = [target, BPF_CGROUP_DEVICE, 0, 0, 0, 0, 0, 0];
    // SAFETY: the address and size are those of a live array; `prog_ids` is null with a count of 0, so nothing else is written.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, query.as_mut_ptr(), size_of_val(&query)) };
    result >= 0
}

/// `pidfd_open(2)` (5.3).
pub fn pidfd() -> bool {
    // SAFETY: no pointers; the process id 0 is refused with EINVAL.
    known(unsafe { libc::syscall(libc::SYS_pidfd_open, 0, 0) })
}

/// `memfd_create(2)` (`CONFIG_MEMFD_CREATE`).
pub fn memfd() -> bool {
    // SAFETY: the name's address is null, which the kernel refuses with EFAULT.
    known(unsafe { libc::syscall(libc::SYS_memfd_create, 0usize, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_current_kernel_knows_them_all() {
        assert!(seccomp() && seccomp_filter() && mount_setattr() && fsopen() && openat2());
        assert!(clone_into_cgroup() && pidfd() && memfd());
    }

    #[test]
    fn an_unknown_call_is_told_apart() {
        // SAFETY: no such call exists, so nothing is done.
        assert!(!known(unsafe { libc::syscall(100_000) }));
    }
}
