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
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _owned: owned, pointers })
    }
}

/// Replaces this process; returns only the error.
pub(crate) fn execve(path: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: `path` is NUL-terminated; both vectors end with a null pointer and their strings are owned alongside them.
    let result = unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    super::check(result.into()).err().unwrap_or(Errno::IO)
}
