//! execve(2) with strings that were prepared before.

use std::ffi::{CStr, CString, c_char};

use rustix::io::Errno;

/// A null-terminated vector of strings, as execve takes it.
pub(crate) struct Strings {
    // Owns what `pointers` points to; the heap blocks of CStrings stay put when the vector moves.
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    /// From strings without NUL; EINVAL if one has one.
    pub(crate) fn new(strings: &[String]) -> Result<Self, Errno> {
        let owned: Vec<CString> =
            strings.iter().map(|s| CString::new(s.as_str()).map_err(|_| Errno::INVAL)).collect::<Result<_, _>>()?;
        Ok(Self::from(owned))
    }
}

impl From<Vec<CString>> for Strings {
    fn from(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _owned: owned, pointers }
    }
}

/// Replaces this process; returns only the error.
pub(crate) fn execve(path: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: `path` is NUL-terminated; both vectors end with a null pointer and their strings are owned alongside them.
    let result = unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    super::check(result.into()).err().unwrap_or(Errno::IO)
}

/// Replaces this process by the program that is open as `file`, with the same arguments and environment; returns only the error.
#[cfg(feature = "cli")]
pub(crate) fn execute_file(file: std::os::fd::BorrowedFd<'_>) -> Errno {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    let text = |bytes: std::ffi::OsString| CString::new(bytes.into_vec()).map_err(|_| Errno::INVAL);
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>().map(Strings::from);
    let environment = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Strings::from);
    let (Ok(arguments), Ok(environment)) = (arguments, environment) else { return Errno::INVAL };
    // SAFETY: the path is an empty NUL-terminated string; both vectors end with a null pointer and their strings are owned
    // alongside them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    super::check(result).err().unwrap_or(Errno::IO)
}
