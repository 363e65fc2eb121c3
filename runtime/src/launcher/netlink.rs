//! The little of rtnetlink(7) that moving an interface needs. What the kernel answers is taken apart with bounds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Message types and flags of `linux/netlink.h` and `linux/rtnetlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_NEW: u16 = 0x600;
/// Attributes of `linux/if_link.h` and `linux/if_addr.h`.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
/// `IFA_F_PERMANENT`, `RT_SCOPE_UNIVERSE`, `IFF_UP`.
const PERMANENT: u32 = 0x80;
const UNIVERSE: u8 = 0;
const UP: u32 = 1;

/// `struct nlmsghdr`, `struct ifinfomsg` and `struct ifaddrmsg` in bytes.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// The kernel's answers come in pieces of at most this (netlink(7)).
const BUFFER: usize = 64 << 10;

/// A socket to the network of the namespace in which it was made, and which it keeps.
#[derive(Debug)]
pub(super) struct Network(OwnedFd);

/// An interface as it is.
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Whether it is up.
    pub(super) up: bool,
}

/// An address that an interface keeps when it moves.
#[derive(Debug)]
pub(super) struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// One message of an answer: its type, what follows its header.
type Message = (u16, Vec<u8>);

impl Network {
    /// Of the namespace that this thread is in.
    pub(super) fn here() -> Result<Self, Errno> {
        // Protocol 0 is NETLINK_ROUTE.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// The interface `name`; ENODEV: there is none.
    pub(super) fn link(&self, name: &str) -> Result<Link, Errno> {
        let mut body = vec![0; LINK];
        put(&mut body, IFLA_IFNAME, &terminated(name));
        let answer = self.ask(RTM_GETLINK, NLM_F_ACK, &body)?;
        let body = answer.iter().find(|(kind, _)| *kind == RTM_NEWLINK).map_or(&[][..], |(_, body)| body);
        let (Some(index), Some(flags)) = (u32_at(body, 4), u32_at(body, 8)) else { return Err(Errno::NODEV) };
        Ok(Link { index, up: flags & UP != 0 })
    }

    /// The numbers of all interfaces.
    pub(super) fn indices(&self) -> Result<Vec<u32>, Errno> {
        let answer = self.ask(RTM_GETLINK, NLM_F_DUMP, &[0; LINK])?;
        Ok(answer.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(|(_, body)| u32_at(body, 4)).collect())
    }

    /// The addresses of interface `index` that are permanent and of global scope.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let answer = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS])?;
        let of_index = answer.iter().filter(|(kind, body)| *kind == RTM_NEWADDR && u32_at(body, 4) == Some(index));
        Ok(of_index.filter_map(|(_, body)| address(body)).collect())
    }

    /// Moves interface `index` into the namespace of `target` under the name `name`. It is down then.
    pub(super) fn move_to(&self, index: u32, target: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;
        let mut body = link(index, 0, 0);
        put(&mut body, IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes());
        put(&mut body, IFLA_IFNAME, &terminated(name));
        self.ask(RTM_NEWLINK, NLM_F_ACK, &body).map(drop)
    }

    /// Gives interface `index` an address.
    pub(super) fn add(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let mut body = vec![address.family, address.prefix, 0, UNIVERSE];
        body.extend(index.to_ne_bytes());
        put(&mut body, IFA_FLAGS, &address.flags.to_ne_bytes());
        for (kind, value) in &address.attributes {
            put(&mut body, *kind, value);
        }
        self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_NEW, &body).map(drop)
    }

    /// Brings interface `index` up.
    pub(super) fn up(&self, index: u32) -> Result<(), Errno> {
        self.ask(RTM_NEWLINK, NLM_F_ACK, &link(index, UP, UP)).map(drop)
    }

    /// Sends one request and returns the messages up to the end of its answer.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Message>, Errno> {
        let length = u32::try_from(HEADER.saturating_add(body.len())).map_err(|_| Errno::MSGSIZE)?;
        let mut request = Vec::with_capacity(HEADER.saturating_add(body.len()));
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        request.extend([0; 8]);
        request.extend(body);
        send(self.0.as_fd(), &request, SendFlags::empty())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match recv(self.0.as_fd(), buffer.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => other?.0,
            };
            if take(buffer.get(..length).unwrap_or_default(), &mut answer)? {
                return Ok(answer);
            }
        }
    }
}

/// Adds the messages of one datagram to an answer; true at its end.
fn take(mut bytes: &[u8], answer: &mut Vec<Message>) -> Result<bool, Errno> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).map_err(|_| Errno::BADMSG)?;
        let body = bytes.get(HEADER..length).ok_or(Errno::BADMSG)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or(Errno::BADMSG)?.cast_signed();
                return if code == 0 { Ok(true) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) };
            }
            _ => answer.push((kind, body.to_vec())),
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// An address message, if it is of an address that moves along.
fn address(body: &[u8]) -> Option<Address> {
    let [family, prefix, flags, scope, ..] = *body else { return None };
    let mut attributes = Vec::new();
    let mut all_flags = u32::from(flags);
    let mut rest = body.get(ADDRESS..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        match kind {
            IFA_FLAGS => all_flags = u32_at(value, 0)?,
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY => attributes.push((kind, value.to_vec())),
            _ => {}
        }
        rest = rest.get(aligned(usize::from(length))..).unwrap_or_default();
    }
    let moves = scope == UNIVERSE && all_flags & PERMANENT != 0;
    moves.then_some(Address { family, prefix, flags: all_flags, attributes })
}

/// `struct ifinfomsg`
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

/// Adds an attribute (`struct rtattr`), padded.
fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Everything in netlink begins at a multiple of four.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let network = Network::here().unwrap();
        let index = network.link("lo").unwrap().index;
        assert!(network.indices().unwrap().contains(&index));
        assert_eq!(network.link("no-such-device").err(), Some(Errno::NODEV));
        // 127.0.0.1 is of the scope of the host, and ::1 too: nothing that would move.
        assert!(network.addresses(index).unwrap().is_empty());
    }

    #[test]
    fn attributes_are_padded() {
        let mut body = Vec::new();
        put(&mut body, 3, b"lo\0");
        assert_eq!(body, [&7_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"lo\0\0"].concat());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in proptest::collection::vec(0_u8.., 0..256)) {
            let mut answer = Vec::new();
            let _ = take(&bytes, &mut answer);
            let _ = address(&bytes);
        }
    }
}
