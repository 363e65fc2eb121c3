//! Starting a container: everything outside is prepared here, in the launcher; then one `clone3` child sets itself up.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::cgroup::AbsentController;
use crate::failure::Failure;
use crate::launch::Launch;

/// Where a container is started: what the launcher has at hand.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The cgroup v2 directory beneath which the container's own is made, its controllers enabled for children. `None`: the
    /// container stays in the launcher's cgroup, without limits (an ordinary user without delegation).
    pub cgroup_parent: Option<BorrowedFd<'a>>,
    /// What a setting of an absent controller means.
    pub absent_controller: AbsentController,
    /// The container's user namespace from [`crate::userns::create`], kept from start to start; `None`: made for this start.
    pub userns: Option<BorrowedFd<'a>>,
}

/// The program's standard streams; `None` is the machine's `/dev/null`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stdio<'a> {
    /// Standard input.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error.
    pub stderr: Option<BorrowedFd<'a>>,
}

/// A child that is setting itself up or has executed its program.
#[derive(Debug)]
pub struct Started {
    /// Its process id, as the launcher sees it. Reap it: SIGCHLD comes when it ends.
    pub pid: i32,
    /// Its pid descriptor, readable when it has ended.
    pub pidfd: OwnedFd,
    /// Read end of the report pipe, non-blocking; for [`crate::report::read`].
    pub report: OwnedFd,
    /// The container's cgroup directory. The caller removes the cgroup when the container has ended.
    pub cgroup: Option<OwnedFd>,
    /// Limits that were declared and couldn't be set ([`AbsentController::Record`]).
    pub degraded: Vec<String>,
}

/// Starts `launch` as the cgroup `name` of the site.
///
/// Returns as soon as the child exists: it never waits for it. The child is a fork, so a process with more than one thread is
/// refused. Temporary shortages are the caller's to retry: see [`Failure::is_temporary`]. On failure nothing is left behind.
pub fn start(launch: &Launch, name: &str, site: &Site<'_>, stdio: Stdio<'_>) -> Result<Started, Failure> {
    crate::launcher::start(launch, name, site, stdio)
}
