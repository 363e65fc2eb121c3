//! Handing the listener of the seccomp filter to its agent (runtime spec, "The Container Process State").

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::failure::{Context, Failure, Step};
use crate::launch::Listener;

/// What the agent is told, put together while the machine's `/proc` is at hand: there this process has the number that the agent
/// knows it by.
pub(crate) fn message(listener: &Listener) -> Result<Vec<u8>, Failure> {
    let link = rustix::fs::readlink("/proc/self", Vec::new()).at(Step::ReachAgent, || "/proc/self")?;
    let pid = link.to_str().map_err(|_| Errno::INVAL).at(Step::ReachAgent, || "/proc/self")?;
    Ok(listener.message.join(pid).into_bytes())
}

/// Sends the whole message, the listener with its beginning. Allocates nothing and makes no other call than sendmsg, as the
/// filter is in force. The connection ends when the program is executed.
pub(crate) fn announce(agent: BorrowedFd<'_>, message: &[u8], listener: &OwnedFd) -> Result<(), Errno> {
    let fds = [std::os::fd::AsFd::as_fd(listener)];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    let mut rest = message;
    while !rest.is_empty() {
        match sendmsg(agent, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                ancillary.clear();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
