//! A container's life as the OCI runtime specification has it: made from a bundle, started, signalled, deleted; written down in
//! a state directory in between, as no process of the runtime stays with it.

mod annotations;
pub mod bundle;
mod bus;
mod caller;
pub(crate) mod cgroup;
pub mod checkpoint;
pub mod create;
pub mod criu;
pub mod error;
pub mod exec;
mod gate;
mod hook_output;
mod ids;
pub(crate) mod in_place;
pub mod life;
pub(crate) mod notify;
pub(crate) mod process;
pub mod record;
pub mod restore;
mod scope;
pub mod stats;
pub mod storage;
pub mod store;
mod subgroup;
mod systemd;
pub mod update;

use std::sync::OnceLock;

pub use error::{Error, Result};

/// The inode number of the machine's own user namespace (`linux/nsfs.h`; the same since Linux 3.8).
const INITIAL_USER: u64 = 0xefff_fffd;

/// Whether this process is an ordinary user's, decided once.
static ORDINARY: OnceLock<bool> = OnceLock::new();

/// Whether this process may not do what only the machine's root may: it isn't root, or only of a user namespace.
#[must_use]
pub fn is_ordinary_user() -> bool {
    *ORDINARY.get_or_init(|| {
        // A kernel without user namespaces has no such file.
        let initial =
            || rustix::fs::stat("/proc/self/ns/user").map_or(true, |namespace| namespace.st_ino == INITIAL_USER);
        !rustix::process::geteuid().is_root() || !initial()
    })
}

/// Decides it by what the caller says: `true`, `false`, or `auto` and nothing for what is the case.
pub fn declare_rootless(value: Option<&str>) -> Result<()> {
    let ordinary = match value {
        None | Some("auto" | "") => return Ok(()),
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(other) => return Err(Error::new(format!("--rootless={other}: it must be true, false or auto"))),
    };
    // Declared once, by main, before anybody asks.
    let _ = ORDINARY.set(ordinary);
    Ok(())
}
