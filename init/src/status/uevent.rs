//! The kernel's word that a device came or changed (netlink(7), `NETLINK_KOBJECT_UEVENT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// A subscription to all of them.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Subscribes to the kernel's own group.
    pub fn subscribe() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Self(socket))
    }

    /// Takes what is queued, a bounded number. True: something concerned a virtio port, or may have (some were lost).
    pub fn drain(&self) -> bool {
        let mut buffer = [0_u8; 2048];
        let mut hit = false;
        for _ in 0..256 {
            match recv(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((n, _)) => {
                    let message = buffer.get(..n).unwrap_or_default();
                    hit |= message.windows(12).any(|w| w == b"virtio-ports");
                }
                // More came than the socket holds.
                Err(Errno::NOBUFS) => hit = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        hit
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_is_drained_at_once() {
        let uevents = Uevents::subscribe().unwrap();
        uevents.drain();
        assert!(!uevents.drain());
    }
}
