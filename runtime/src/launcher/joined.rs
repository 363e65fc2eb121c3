//! Joining existing namespaces: the launcher steps into them, makes the child there, and steps back.
//!
//! The child can't join them itself once it is in its own user namespace, and a joined pid namespace only takes children. Where
//! there is no way back (root of a user namespace has left namespaces that aren't its own), a stage goes in the launcher's place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Namespace, Namespaces, TimeNamespace};

/// `f_type` of namespace files (`linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Tries to step back. Only want of memory can stand in the way, and PID 1 must not try for ever.
const TRIES: u32 = 1000;

/// The namespaces that are given by path, all opened before the first is entered.
pub(crate) struct Visits<'a>(Vec<Visit<'a>>);

impl<'a> Visits<'a> {
    pub(crate) fn open(namespaces: &'a Namespaces) -> Result<Self, Failure> {
        visits(namespaces).map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether whoever enters them can't come back. Joining one's own namespace changes nothing and takes the same right.
    pub(super) fn are_one_way(&self) -> bool {
        let barred = |visit: &Visit<'_>| move_into_link_name_space(visit.back.as_fd(), Some(visit.kind));
        self.0.iter().any(|visit| barred(visit) == Err(Errno::PERM))
    }

    /// Enters them for good.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        enter_all(&self.0).1
    }

    /// Runs `fork` while this thread is in them. `undo` takes a child back.
    ///
    /// They are left in reverse order. If one can't be left, the launcher is in a namespace that isn't its own; there is no child
    /// then, and the failure says so.
    pub(crate) fn during<T>(
        &self,
        fork: impl FnOnce() -> Result<T, Failure>,
        undo: impl FnOnce(T),
    ) -> Result<T, Failure> {
        let (entered, result) = enter_all(&self.0);
        let result = result.and_then(|()| fork());
        let back = leave_all(entered, |there, kind| move_into_link_name_space(there, Some(kind)));
        match (result, back) {
            (Ok(made), Err(failure)) => {
                undo(made);
                Err(failure)
            }
            // The worse of two failures: after it the launcher is where it shouldn't be.
            (Err(_), Err(failure)) => Err(failure),
            (result, Ok(())) => result,
        }
    }
}

/// One namespace to step into, and the way back.
struct Visit<'a> {
    back: OwnedFd,
    kind: LinkNameSpaceType,
    there: OwnedFd,
    path: &'a str,
}

fn visits(namespaces: &Namespaces) -> Result<Vec<Visit<'_>>, Failure> {
    let entries = [
        (&namespaces.pid, LinkNameSpaceType::ProcessID, "/proc/self/ns/pid_for_children"),
        (&namespaces.network, LinkNameSpaceType::Network, "/proc/self/ns/net"),
        (&namespaces.ipc, LinkNameSpaceType::InterProcessCommunication, "/proc/self/ns/ipc"),
        (&namespaces.uts, LinkNameSpaceType::HostNameAndNISDomainName, "/proc/self/ns/uts"),
        (&namespaces.cgroup, LinkNameSpaceType::ControlGroup, "/proc/self/ns/cgroup"),
    ];
    let mut visits = Vec::new();
    for (namespace, kind, own) in entries {
        if let Namespace::Path(path) = namespace {
            visits.push(Visit { back: open(own)?, kind, there: open(path)?, path });
        }
    }
    if let TimeNamespace::Path(path) = &namespaces.time {
        let back = open("/proc/self/ns/time")?;
        visits.push(Visit { back, kind: LinkNameSpaceType::Time, there: open(path)?, path });
    }
    Ok(visits)
}

/// Opens a namespace's file; whatever else has that name is refused, and a pipe nobody writes to holds nobody up.
pub(super) fn open(path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).at(Step::Open, || path)?;
    if rustix::fs::fstatfs(&file).at(Step::Open, || path)?.f_type == NSFS_MAGIC {
        return Ok(file);
    }
    Err(Failure::check(format!("{path} on the machine is no namespace")))
}

/// Enters them in order, up to the first that refuses. Which were entered, and how it went.
fn enter_all<'a, 'b>(visits: &'a [Visit<'b>]) -> (&'a [Visit<'b>], Result<(), Failure>) {
    for (number, visit) in visits.iter().enumerate() {
        if let Err(errno) = move_into_link_name_space(visit.there.as_fd(), Some(visit.kind)) {
            let entered = visits.get(..number).unwrap_or_default();
            return (entered, Err(Failure::new(Step::JoinNamespace, visit.path, errno)));
        }
    }
    (visits, Ok(()))
}

/// Leaves them in reverse order, all that can be left. The failure is the first.
fn leave_all(
    entered: &[Visit<'_>],
    mut enter: impl FnMut(BorrowedFd<'_>, LinkNameSpaceType) -> Result<(), Errno>,
) -> Result<(), Failure> {
    let mut result = Ok(());
    for visit in entered.iter().rev() {
        let mut left = enter(visit.back.as_fd(), visit.kind);
        for _ in 1..TRIES {
            if left.is_ok() {
                break;
            }
            left = enter(visit.back.as_fd(), visit.kind);
        }
        let left = left.at(Step::JoinNamespace, || format!("of the launcher again, after {}", visit.path));
        result = result.and(left);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(path: &str) -> Visit<'_> {
        let own = || open("/proc/self/ns/uts").unwrap();
        Visit { back: own(), kind: LinkNameSpaceType::HostNameAndNISDomainName, there: own(), path }
    }

    #[test]
    fn a_way_back_that_stays_barred_is_a_failure_not_a_hang() {
        let mut tries = 0;
        let failure = leave_all(&[visit("/first"), visit("/second")], |_, _| {
            tries += 1;
            Err(Errno::NOMEM)
        });
        let text = failure.unwrap_err().to_string();
        assert!(text.contains("join namespace of the launcher again, after /second: cannot allocate memory (ENOMEM)"), "{text}");
        // The other is tried all the same.
        assert_eq!(tries, 2 * TRIES);
    }

    #[test]
    fn a_shortage_on_the_way_back_is_sat_out() {
        let mut tries = 0;
        let mut short_for_a_while = |_: BorrowedFd<'_>, _| {
            tries += 1;
            if tries < 10 { Err(Errno::NOMEM) } else { Ok(()) }
        };
        assert_eq!(leave_all(&[visit("/first")], &mut short_for_a_while), Ok(()));
        assert_eq!(tries, 10);
    }
}
