//! Sysctls of the container's namespaces, before the root is changed.
//!
//! What a sysctl file stands for follows the namespaces of whoever opens it, so any `/proc` will do. The container's own comes first:
//! in the machine's the kernel keeps an entry of the same name for every container that has set one, and looks through them all for
//! each that is next. Where it can't be done there (it is read-only, or there is none), the machine's serves as well.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::hide::expect_procfs;
use super::paths::{self, Links};
use crate::failure::{Context, Failure, Step};
use crate::launch::sysctl_path;

/// Sets each `(dotted name, value)`; `root` is the container's, with everything mounted.
pub(crate) fn set_all(sysctls: &[(String, String)], root: BorrowedFd<'_>) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    // Whatever the image has in that place instead is left alone.
    let own = paths::resolve(root, "/proc", Links::Refuse).ok();
    let own = own.filter(|proc| expect_procfs(proc.as_fd(), "/proc", Step::SetSysctl).is_ok());
    for (name, value) in sysctls {
        let path = format!("sys/{}", sysctl_path(name));
        if own.as_ref().is_some_and(|proc| set(proc.as_fd(), &path, value).is_ok()) {
            continue;
        }
        let proc = super::open_directory("/proc")?;
        expect_procfs(proc.as_fd(), "/proc", Step::SetSysctl)?;
        set(proc.as_fd(), &path, value).at(Step::SetSysctl, || format!("{name}={value}"))?;
    }
    Ok(())
}

fn set(proc: BorrowedFd<'_>, path: &str, value: &str) -> Result<(), Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)?;
    let written = rustix::io::write(&file, value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(Errno::INVAL) }
}
