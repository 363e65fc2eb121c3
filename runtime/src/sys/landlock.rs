//! landlock(7): rules that a process puts on itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `struct landlock_ruleset_attr` of `linux/landlock.h`.
#[repr(C)]
struct RulesetAttr {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    access: u64,
    port: u64,
}

/// The version of the interface that this kernel has; ENOSYS or EOPNOTSUPP: none.
pub(crate) fn version() -> Result<i64, Errno> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the attributes must be null and of no size.
    super::check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttr>(), 0, VERSION) })
}

/// A set of rules to be.
pub(crate) struct Ruleset(OwnedFd);

impl AsFd for Ruleset {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Ruleset {
    /// Of these kinds of access, all of which the kernel must know.
    pub(crate) fn new(access_fs: u64, access_net: u64, scoped: u64) -> Result<Self, Errno> {
        let attributes = RulesetAttr { access_fs, access_net, scoped };
        // An older kernel takes a longer structure if what it doesn't know of is zero.
        // SAFETY: `attributes` is laid out as the kernel's and passed with its size; the call only reads it.
        let fd = super::check(unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<RulesetAttr>(), 0)
        })?;
        let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
        // SAFETY: the successful call returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Allows `access` to `place` and, if it is a directory, everything beneath.
    pub(crate) fn allow_path(&self, place: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
        const PATH_BENEATH: i32 = 1;
        let rule = PathBeneath { access, parent: place.as_raw_fd() };
        // SAFETY: `rule` is laid out as the kernel's for this type; the call only reads it.
        super::check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
        })?;
        Ok(())
    }

    /// Allows `access` to a TCP port.
    pub(crate) fn allow_port(&self, port: u16, access: u64) -> Result<(), Errno> {
        const NET_PORT: i32 = 2;
        let rule = NetPort { access, port: port.into() };
        // SAFETY: `rule` is laid out as the kernel's for this type; the call only reads it.
        super::check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), NET_PORT, &raw const rule, 0)
        })?;
        Ok(())
    }

    /// Puts the rules in force for this thread and what it becomes. Needs no_new_privs or CAP_SYS_ADMIN.
    pub(crate) fn restrict(&self) -> Result<(), Errno> {
        // SAFETY: landlock_restrict_self(2) takes integers only.
        super::check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) })?;
        Ok(())
    }
}
