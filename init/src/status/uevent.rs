//! The kernel's word that a device came or changed (netlink(7), `NETLINK_KOBJECT_UEVENT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// What concerned us of what devices did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// A virtio port came, went or changed.
    pub ports: bool,
    /// A network interface of a device came or went.
    pub network: bool,
}

impl Changes {
    /// Adds what one message says: `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by a zero byte.
    fn add(&mut self, message: &[u8]) {
        let has = |word: &[u8]| message.windows(word.len()).any(|at| at == word);
        self.ports |= has(b"virtio-ports");
        // Those that only software makes are not the machine's uplink.
        let comes_or_goes = [&b"add@"[..], b"remove@"].iter().any(|action| message.starts_with(action));
        self.network |= comes_or_goes && has(b"\0SUBSYSTEM=net\0") && !has(b"@/devices/virtual/");
    }
}

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

    /// Takes what is queued, a bounded number. What was lost may have concerned anything.
    pub fn drain(&self) -> Changes {
        let mut buffer = [0_u8; 2048];
        let mut changes = Changes::default();
        for _ in 0..256 {
            match recv(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((n, _)) => changes.add(buffer.get(..n).unwrap_or_default()),
                // More came than the socket holds.
                Err(Errno::NOBUFS) => changes = Changes { ports: true, network: true },
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        changes
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
        assert_eq!(uevents.drain(), Changes::default());
    }

    #[test]
    fn what_concerns_us_is_told_from_the_rest() {
        let of = |message: &str| {
            let mut changes = Changes::default();
            changes.add(message.as_bytes());
            (changes.ports, changes.network)
        };
        let card = "/devices/pci0000:00/0000:00:03.0/virtio1/net/eth0\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=eth0\0";
        assert_eq!(of(&format!("add@{card}")), (false, true));
        assert_eq!(of(&format!("remove@{card}")), (false, true));
        assert_eq!(of(&format!("change@{card}")), (false, false));
        assert_eq!(of("add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net\0"), (false, false));
        let port = "/devices/pci0000:00/0000:00:02.0/virtio0/virtio-ports/vport0p1\0SUBSYSTEM=virtio-ports\0";
        assert_eq!(of(&format!("change@{port}")), (true, false));
        assert_eq!(of("add@/devices/virtual/block/dm-1\0SUBSYSTEM=block\0"), (false, false));
    }
}
