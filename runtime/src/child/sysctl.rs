//! Sysctls of the container's namespaces, through the machine's own `/proc`, before the root is changed.
//!
//! What a sysctl file stands for follows the namespaces of whoever opens it, so the machine's `/proc` serves as well as the
//! container's, and nothing of the image can stand in its way.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::hide::expect_procfs;
use crate::failure::{Context, Failure, Step};
use crate::launch::sysctl_path;

/// Sets each `(dotted name, value)`.
pub(crate) fn set_all(sysctls: &[(String, String)]) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = super::open_directory("/proc")?;
    expect_procfs(proc.as_fd(), "/proc", Step::SetSysctl)?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for (name, value) in sysctls {
        let path = format!("sys/{}", sysctl_path(name));
        let written = rustix::fs::openat2(proc.as_fd(), path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)
            .and_then(|file| rustix::io::write(&file, value.as_bytes()))
            .and_then(|n| if n == value.len() { Ok(()) } else { Err(Errno::INVAL) });
        written.at(Step::SetSysctl, || format!("{name}={value}"))?;
    }
    Ok(())
}
