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

/// Makes a System V shared memory segment that everybody may use; its errno if it can't.
pub fn create_shared_memory(key: i32) -> Result<(), i32> {
    shared_memory(key, libc::IPC_CREAT | libc::IPC_EXCL | 0o666)
}

/// Finds a System V shared memory segment; its errno if there is none.
pub fn find_shared_memory(key: i32) -> Result<(), i32> {
    shared_memory(key, 0)
}

fn shared_memory(key: i32, flags: i32) -> Result<(), i32> {
    // SAFETY: shmget(2) takes integers only.
    errno(unsafe { libc::shmget(key, 4096, flags) }.into())
}

/// Gives this process a session keyring of its own with a key of this description.
pub fn add_session_key(description: &std::ffi::CStr) -> Result<(), i32> {
    // SAFETY: the name may be null.
    errno(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) })?;
    let (kind, payload) = (c"user".as_ptr(), b"secret".as_ptr());
    // SAFETY: both strings are terminated, and the payload has the length given.
    errno(unsafe {
        libc::syscall(libc::SYS_add_key, kind, description.as_ptr(), payload, 6, libc::KEY_SPEC_SESSION_KEYRING)
    })
}

/// Looks for a key of this description in the session keyring.
pub fn find_session_key(description: &std::ffi::CStr) -> Result<(), i32> {
    let (keyring, kind) = (libc::KEY_SPEC_SESSION_KEYRING, c"user".as_ptr());
    // SAFETY: both strings are terminated; nothing is written.
    errno(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SEARCH, keyring, kind, description.as_ptr(), 0) })
}

fn errno(result: libc::c_long) -> Result<(), i32> {
    if result == -1 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)) } else { Ok(()) }
}

/// Calls of the 32-bit table that take no arguments; the last is newer than any kernel's.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum I386 {
    Getpid = 20,
    Vhangup = 111,
    Newer = 999,
}

/// What one gives; a negative errno where there is none.
#[cfg(target_arch = "x86_64")]
pub fn i386_call(call: I386) -> i32 {
    let result: i32;
    // SAFETY: none of the calls takes arguments or touches memory; the entry may clobber r8 to r11, which are named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") call as i32 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Enters a new mount namespace.
pub fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: only the mount namespace changes; no descriptor table is taken apart.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

/// `struct seccomp_notif` and `struct seccomp_notif_resp` of `linux/seccomp.h`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: [u64; 8],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Takes one call from a seccomp listener and answers it with an error; false when nobody calls any more.
pub fn answer_notification(listener: &std::os::fd::OwnedFd, errno: i32) -> bool {
    use std::os::fd::AsRawFd;
    /// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`.
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    let mut waiting = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&raw mut waiting, 1, 30_000) };
    if waiting.revents & libc::POLLIN == 0 {
        return false;
    }
    let mut call = Notification::default();
    // SAFETY: the ioctl fills a seccomp_notif of the size that its number says.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) } != 0 {
        return false;
    }
    let answer = Answer { id: call.id, value: 0, error: -errno, flags: 0 };
    // SAFETY: the ioctl reads a seccomp_notif_resp of the size that its number says.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) == 0 }
}
