//! This program kept from the container: executed once more from a mount that is read-only.
//!
//! While a container is made, its processes can reach this program as `/proc/PID/exe` (CVE-2019-5736). One in a user namespace
//! has no right to write to it; one of the machine's root has, unless the mount itself says no. That mount is this process's
//! alone and attached nowhere, so nobody can make it writable again once its descriptor is closed, which executing it does. As long as that
//! is open, whoever reaches the program and has CAP_SYS_ADMIN could.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::log;
use crate::sys::exec::execute_file;
use crate::sys::mount::{Change, set_attributes};

const OWN_PROGRAM: &str = "/proc/self/exe";

/// Comes back in a process, for a container with a user namespace or without, whose program is out of the container's reach, or which can't do more; the launch then tells.
pub(super) fn from(in_user_namespace: bool) {
    let is_readonly =
        |fs: rustix::io::Result<rustix::fs::StatVfs>| fs.is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    if in_user_namespace || is_readonly(rustix::fs::statvfs(OWN_PROGRAM)) {
        return;
    }
    // Looked at before it is executed: if it weren't read-only, this would go on for ever.
    if let Ok(program) = readonly_program()
        && is_readonly(rustix::fs::fstatvfs(&program))
    {
        let errno = execute_file(program.as_fd());
        log::debug(|| format!("execute the read-only copy of this program: {errno}"));
    }
}

fn readonly_program() -> rustix::io::Result<OwnedFd> {
    let program = open_tree(CWD, OWN_PROGRAM, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(program.as_fd(), Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() })?;
    Ok(program)
}
