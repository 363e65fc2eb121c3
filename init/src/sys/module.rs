//! Loads a part of a file as a kernel module, without a copy of it in this process.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// `init_module(2)` with the first `length` bytes of `file`.
pub fn load_prefix(file: &File, length: usize, parameters: &CStr) -> io::Result<()> {
    // SAFETY: the kernel chooses an address that nothing else uses; `file` is open for the call.
    let mapping =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel reads at most `length` bytes at `mapping`, which is mapped that far; bytes that can't be read (a file
    // that became shorter, a disk error) make it fail with EFAULT, for it is the kernel that touches them. The parameters
    // are a live, NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_init_module, mapping, length, parameters.as_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: this is the mapping made above, and nothing keeps a reference into it.
    let _ = unsafe { libc::munmap(mapping, length) };
    if result < 0 { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_no_module_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"not a module").unwrap();
        assert!(load_prefix(&file, 12, c"").is_err());
        assert!(load_prefix(&file, 0, c"").is_err(), "nothing to map");
    }
}
