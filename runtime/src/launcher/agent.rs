//! The way to a seccomp agent, opened while the machine's paths can be reached.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::failure::{Context, Failure, Step};
use crate::launch::Seccomp;

/// A connection to the agent that the filter names, if it names one.
pub(super) fn connect_to(seccomp: Option<&Seccomp>) -> Result<Option<OwnedFd>, Failure> {
    let Some(listener) = seccomp.and_then(|seccomp| seccomp.listener.as_ref()) else { return Ok(None) };
    let path = listener.path.as_str();
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .at(Step::ReachAgent, || path)?;
    let address = SocketAddrUnix::new(path).at(Step::ReachAgent, || path)?;
    connect(&socket, &address).at(Step::ReachAgent, || path)?;
    Ok(Some(socket))
}
