//! Joining existing namespaces: the launcher steps into them, makes the child there, and steps back.
//!
//! The child can't join them itself once it is in its own user namespace, and a joined pid namespace only takes children.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Namespace, Namespaces};

/// Runs `fork` while this thread is in the namespaces that are given by path.
pub(crate) fn during<T>(namespaces: &Namespaces, fork: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let entries = [
        (&namespaces.pid, LinkNameSpaceType::ProcessID, "pid_for_children"),
        (&namespaces.network, LinkNameSpaceType::Network, "net"),
        (&namespaces.ipc, LinkNameSpaceType::InterProcessCommunication, "ipc"),
        (&namespaces.uts, LinkNameSpaceType::HostNameAndNISDomainName, "uts"),
        (&namespaces.cgroup, LinkNameSpaceType::ControlGroup, "cgroup"),
    ];
    let mut visits = Vec::new();
    for (namespace, kind, own) in entries {
        if let Namespace::Path(path) = namespace {
            let path = path.as_str();
            let open = |path: &str| {
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(Step::Open, || path)
            };
            visits.push(Visit { back: open(&format!("/proc/self/ns/{own}"))?, kind, there: open(path)?, path, entered: false });
        }
    }
    let mut result = Ok(());
    for visit in &mut visits {
        result = move_into_link_name_space(visit.there.as_fd(), Some(visit.kind)).at(Step::JoinNamespace, || visit.path);
        if result.is_err() {
            break;
        }
        visit.entered = true;
    }
    let result = result.and_then(|()| fork());
    for visit in visits.iter().filter(|visit| visit.entered) {
        // Back to where this process was a moment ago: only want of memory can stand in the way, and only for a moment.
        while move_into_link_name_space(visit.back.as_fd(), Some(visit.kind)).is_err() {}
    }
    result
}

/// One namespace to step into, and the way back.
struct Visit<'a> {
    back: OwnedFd,
    kind: LinkNameSpaceType,
    there: OwnedFd,
    path: &'a str,
    entered: bool,
}
