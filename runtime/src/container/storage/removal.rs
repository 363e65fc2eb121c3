//! Removing a container's directory, whoever owns what is in it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::clear;
use crate::child::identity;
use crate::failure::{Context, Failure, Step};
use crate::launch::{IdMap, Process};
use crate::{hook, report, sys, userns};

/// How such directories are opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes `name` in `place`, which is open as `own`, with everything in it. What other ids own goes in a user namespace that
/// has them. ETIMEDOUT: there was more than could be removed in time.
pub(super) fn remove(
    place: BorrowedFd<'_>,
    name: &str,
    own: BorrowedFd<'_>,
    ids: Option<&IdMap>,
    until: Option<Instant>,
) -> Result<(), Failure> {
    match (clear::everything_in(own, until), ids) {
        (Err(Errno::ACCESS | Errno::PERM), Some(ids)) => clear_as_root_of(ids, own, name, until)?,
        (cleared, _) => cleared.at(Step::RemoveStorage, || name)?,
    }
    rustix::fs::unlinkat(place, name, AtFlags::REMOVEDIR).at(Step::RemoveStorage, || name)
}

/// Empties `directory` by a child that is root of a user namespace with these ids.
fn clear_as_root_of(ids: &IdMap, directory: BorrowedFd<'_>, name: &str, until: Option<Instant>) -> Result<(), Failure> {
    let userns = userns::create(ids)?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Pipe, || "from a child")?;
    let child = sys::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
        let cleared = move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User))
            .at(Step::JoinNamespace, || "of the storage's ids")
            .and_then(|()| identity::become_root(&Process::default(), false))
            .and_then(|()| clear::everything_in(directory, until).at(Step::RemoveStorage, || name));
        match cleared {
            Ok(()) => 0,
            Err(failure) => {
                report::write(writer.as_fd(), &failure);
                1
            }
        }
    })
    .at(Step::Clone, || "to remove the storage")?;
    drop(writer);
    let status = hook::wait(child.pidfd.as_fd()).at(Step::RemoveStorage, || name)?;
    match report::read(&reader) {
        report::Report::Failed(failure) => Err(failure),
        _ if status.exit_status() == Some(0) => Ok(()),
        _ => Err(Failure::new(Step::RemoveStorage, format!("{name}: the child was killed"), Errno::SRCH)),
    }
}
