//! Finds free ports of this computer.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Whether `port` of 127.0.0.1 can be listened on by this user now.
pub fn is_free(port: u16, protocol: &str) -> bool {
    match protocol {
        "udp" => UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok(),
        _ => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(),
    }
}

/// A port of 127.0.0.1 that nothing listens on. Another process can take it before QEMU does; the caller tries again then.
pub fn any(protocol: &str) -> std::io::Result<u16> {
    match protocol {
        "udp" => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr(),
        _ => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr(),
    }
    .map(|address| address.port())
}
