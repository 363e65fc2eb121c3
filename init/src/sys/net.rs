//! Network interfaces by the classic ioctls (`netdevice(7)`, `ipv6(7)`, `rtentry`): flags, addresses, default routes.
//!
//! They cover all that an uplink has: addresses and a few routes.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel copies whole `struct ifreq`s of 40 bytes: name, then the union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

/// The interface names the kernel can take: shorter than 16 bytes.
fn request(name: &str, value: &[u8]) -> io::Result<Request> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(invalid());
    }
    let mut request = Request { name: [0; libc::IFNAMSIZ], value: [0; 24] };
    request.name.get_mut(..name.len()).ok_or_else(invalid)?.copy_from_slice(name.as_bytes());
    request.value.get_mut(..value.len()).ok_or_else(invalid)?.copy_from_slice(value);
    Ok(request)
}

fn call(socket: BorrowedFd<'_>, code: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    // SAFETY: every SIOC* code of this module reads and writes one `struct ifreq`; `Request` has its size and is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), code, &raw mut *request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A `sockaddr_in` with port 0.
fn address_bytes(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let [f0, f1] = u16::try_from(libc::AF_INET).unwrap_or_default().to_ne_bytes();
    let [a, b, c, d] = address.octets();
    for (to, from) in bytes.iter_mut().zip([f0, f1, 0, 0, a, b, c, d]) {
        *to = from;
    }
    bytes
}

/// The same as a generic `sockaddr`.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    let mut generic = libc::sockaddr { sa_family: family, sa_data: [0; 14] };
    for (to, from) in generic.sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    generic
}

/// Sets the interface up. `socket` is any IP socket, as everywhere here.
pub fn set_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = request(name, &[])?;
    call(socket, libc::SIOCGIFFLAGS, &mut request)?;
    let flags = flags_of(&request) | u16::try_from(libc::IFF_UP).unwrap_or_default();
    if let Some(head) = request.value.first_chunk_mut() {
        *head = flags.to_ne_bytes();
    }
    call(socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Bytes of the longest packet that goes through the interface.
pub fn mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<u16> {
    let mut request = request(name, &[])?;
    call(socket, libc::SIOCGIFMTU, &mut request)?;
    let value = request.value.first_chunk().map_or(0, |head| i32::from_ne_bytes(*head));
    Ok(u16::try_from(value).unwrap_or(u16::MAX))
}

/// Sets it. EINVAL: the driver can't.
pub fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: u16) -> io::Result<()> {
    call(socket, libc::SIOCSIFMTU, &mut request(name, &i32::from(mtu).to_ne_bytes())?)
}

/// Whether the interface is up and has a carrier (`IFF_RUNNING`).
pub fn is_running(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let mut request = request(name, &[])?;
    call(socket, libc::SIOCGIFFLAGS, &mut request)?;
    Ok(flags_of(&request) & u16::try_from(libc::IFF_RUNNING).unwrap_or_default() != 0)
}

fn flags_of(request: &Request) -> u16 {
    request.value.first_chunk().map_or(0, |head| u16::from_ne_bytes(*head))
}

/// Gives the interface its IPv4 address and netmask; an address it had is replaced.
pub fn set_address(socket: BorrowedFd<'_>, name: &str, address: Ipv4Addr, netmask: Ipv4Addr) -> io::Result<()> {
    call(socket, libc::SIOCSIFADDR, &mut request(name, &address_bytes(address))?)?;
    call(socket, libc::SIOCSIFNETMASK, &mut request(name, &address_bytes(netmask))?)
}

/// Adds the default route over `gateway`. One that is already there is fine.
pub fn add_default_route(socket: BorrowedFd<'_>, name: &str, gateway: Ipv4Addr) -> io::Result<()> {
    add_route(socket, name, (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED), Some(gateway))
}

/// Adds the route to a network, given by address and netmask, over `gateway`; without one it is on the link. A route that is
/// already there is fine. So is a gateway outside the interface's own network: then that is on the link too, as with addresses
/// that are a network of their own (`/32`).
pub fn add_route(
    socket: BorrowedFd<'_>,
    name: &str,
    network: (Ipv4Addr, Ipv4Addr),
    gateway: Option<Ipv4Addr>,
) -> io::Result<()> {
    match (add_one_route(socket, name, network, gateway), gateway) {
        (Err(e), Some(gateway)) if e.raw_os_error() == Some(libc::ENETUNREACH) => {
            add_one_route(socket, name, (gateway, Ipv4Addr::BROADCAST), None)?;
            add_one_route(socket, name, network, Some(gateway))
        }
        (result, _) => result,
    }
}

fn add_one_route(
    socket: BorrowedFd<'_>,
    name: &str,
    (destination, netmask): (Ipv4Addr, Ipv4Addr),
    gateway: Option<Ipv4Addr>,
) -> io::Result<()> {
    let mut device = request(name, &[])?.name;
    // SAFETY: `rtentry` is a C structure of integers, addresses and a pointer, for which zeroes are a value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(destination);
    route.rt_genmask = socket_address(netmask);
    route.rt_flags = libc::RTF_UP;
    if let Some(gateway) = gateway {
        route.rt_gateway = socket_address(gateway);
        route.rt_flags |= libc::RTF_GATEWAY;
    }
    if netmask == Ipv4Addr::BROADCAST {
        route.rt_flags |= libc::RTF_HOST;
    }
    route.rt_dev = device.as_mut_ptr().cast();
    // SAFETY: SIOCADDRT reads one `rtentry`, which is live, and the NUL-terminated name at `rt_dev`, whose array `device`
    // outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
    unless_there(result)
}

/// `struct in6_ifreq`
#[repr(C)]
struct Address6 {
    address: [u8; 16],
    prefix: u32,
    index: libc::c_int,
}

/// `struct in6_rtmsg`
#[repr(C)]
struct Route6 {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

/// Adds an IPv6 address to the interface. One that is already there is fine.
pub fn add_address6(name: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    let socket = UdpSocket::bind("[::]:0")?;
    let value = Address6 { address: address.octets(), prefix: u32::from(prefix), index: index(&socket, name)? };
    // SAFETY: on an IPv6 socket SIOCSIFADDR reads one `in6_ifreq`; `Address6` is laid out as it and is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw const value) };
    unless_there(result)
}

/// Adds the IPv6 default route over `gateway`. One that is already there is fine.
pub fn add_default_route6(name: &str, gateway: Ipv6Addr) -> io::Result<()> {
    let socket = UdpSocket::bind("[::]:0")?;
    let value = Route6 {
        destination: [0; 16],
        source: [0; 16],
        gateway: gateway.octets(),
        kind: 0,
        destination_length: 0,
        source_length: 0,
        metric: 1,
        info: 0,
        flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
        index: index(&socket, name)?,
    };
    // SAFETY: on an IPv6 socket SIOCADDRT reads one `in6_rtmsg`; `Route6` is laid out as it and is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const value) };
    unless_there(result)
}

/// The interface's number. One that went away and came back has another.
pub fn index(socket: &UdpSocket, name: &str) -> io::Result<libc::c_int> {
    let index = rustix::net::netdevice::name_to_index(socket, name)?;
    libc::c_int::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn unless_there(result: libc::c_int) -> io::Result<()> {
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

/// Removes the interface's IPv4 address and with it the routes that needed it.
pub fn clear_address(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    call(socket, libc::SIOCSIFADDR, &mut request(name, &address_bytes(Ipv4Addr::UNSPECIFIED))?)
}

/// Lets the socket send and receive on that interface only (`SO_BINDTODEVICE`).
pub fn bind_to_device(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = request(name, &[])?.name;
    let length = libc::socklen_t::try_from(name.len()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes at the pointer, the whole of a live array.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_runs_and_bad_names_are_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(is_running(socket.as_fd(), "lo").unwrap());
        assert_eq!(is_running(socket.as_fd(), "nosuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        for name in ["", "a\0b", "longer-than-fifteen"] {
            assert_eq!(set_up(socket.as_fd(), name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// A network namespace of a thread's own has a loopback interface that nobody else uses.
    #[test]
    fn a_gateway_outside_the_network_is_on_the_link() {
        let test = || {
            // SAFETY: only this thread, which ends with the test, leaves the others' network namespace.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("unshare as root");
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let socket = socket.as_fd();
            set_up(socket, "lo").unwrap();
            let before = mtu(socket, "lo").unwrap();
            set_mtu(socket, "lo", 1460).unwrap();
            assert!(before != 1460 && mtu(socket, "lo").unwrap() == 1460, "{before}");
            set_address(socket, "lo", [203, 0, 113, 7].into(), Ipv4Addr::BROADCAST).unwrap();
            let gateway = Ipv4Addr::new(172, 31, 1, 1);
            // The control: the kernel refuses such a gateway as it is.
            let default = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
            let refused = add_one_route(socket, "lo", default, Some(gateway)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENETUNREACH));
            for _ in 0..2 {
                add_default_route(socket, "lo", gateway).unwrap();
                add_route(socket, "lo", ([10, 0, 0, 0].into(), [255, 0, 0, 0].into()), None).unwrap();
            }
            let table = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
            // Interface, destination, gateway, flags, …, mask; addresses as numbers of this machine's byte order.
            let mut routes: Vec<Vec<&str>> = table.lines().skip(1).map(|l| l.split('\t').take(4).collect()).collect();
            routes.sort();
            let expected = [
                ["lo", "00000000", "01011FAC", "0003"],
                ["lo", "0000000A", "00000000", "0001"],
                ["lo", "01011FAC", "00000000", "0005"],
            ];
            assert_eq!(routes, expected, "{table}");
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn address_is_a_sockaddr_in() {
        assert_eq!(address_bytes(Ipv4Addr::new(10, 0, 2, 15))[..8], [2, 0, 0, 0, 10, 0, 2, 15]);
        assert_eq!(size_of::<Request>(), size_of::<libc::ifreq>());
        assert_eq!((size_of::<Address6>(), size_of::<Route6>()), (24, 80));
    }
}
