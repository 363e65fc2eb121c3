//! System calls by number, for asking the kernel what a container may do.
#![allow(unsafe_code)]

/// Makes a system call with arguments that the kernel must refuse or that are harmless; returns the errno, 0 if it was allowed.
pub fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass integers and null or invalid pointers only, which the kernel checks; none maps or writes memory of
    // this process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

/// Makes (`create`) or finds a System V shared memory segment; its id or the errno.
pub fn shared_memory(key: i32, create: bool) -> Result<i32, i32> {
    let flags = if create { libc::IPC_CREAT | libc::IPC_EXCL | 0o666 } else { 0 };
    // SAFETY: shmget(2) takes integers only.
    let id = unsafe { libc::shmget(key, 4096, flags) };
    if id == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)) } else { Ok(id) }
}

/// Removes a System V shared memory segment.
pub fn remove_shared_memory(id: i32) {
    // SAFETY: IPC_RMID ignores the pointer.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
}

/// Enters a new mount namespace.
pub fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: only the mount namespace changes; no descriptor table is taken apart.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}
