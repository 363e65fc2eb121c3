//! mount_setattr(2) (Linux 5.12).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// A change to a mount's attributes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub(crate) set: u64,
    /// Bits to clear, before.
    pub(crate) clear: u64,
    /// Propagation (`MS_PRIVATE`, …), 0 to leave it.
    pub(crate) propagation: u64,
    /// Map the mount's ids by this user namespace (`MOUNT_ATTR_IDMAP`).
    pub(crate) userns: Option<BorrowedFd<'a>>,
    /// Also the mounts beneath.
    pub(crate) recursive: bool,
}

/// Changes the mount that `mount` stands on.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, change: Change<'_>) -> Result<(), Errno> {
    let mut attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    if let Some(userns) = change.userns {
        attributes.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::try_from(userns.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, `attributes` a mount_attr passed with its size, both outlive the
    // call, which only reads them.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}
