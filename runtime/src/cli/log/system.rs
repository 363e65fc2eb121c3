//! The machine's own logs: syslog(3)'s socket, and that of systemd's journal. A message is a datagram to either.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};

const SYSLOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    Syslog,
    Journal,
}

/// One of them, open.
#[derive(Debug)]
pub(super) struct SystemLog {
    socket: OwnedFd,
    kind: Kind,
    /// Who says it.
    identifier: String,
}

impl SystemLog {
    pub(super) fn open(kind: Kind, identifier: &str) -> Result<Self, Errno> {
        let path = match kind {
            Kind::Syslog => SYSLOG,
            Kind::Journal => JOURNAL,
        };
        Self::open_at(path, kind, identifier)
    }

    fn open_at(path: &str, kind: Kind, identifier: &str) -> Result<Self, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket, kind, identifier: identifier.to_owned() })
    }

    /// Says it. Nobody is waited for: a log that is full or gone holds no container up.
    pub(super) fn write(&self, level: &str, text: &str) {
        let priority = priority(level);
        let message = match self.kind {
            Kind::Syslog => syslog(priority, &self.identifier, std::process::id(), text),
            Kind::Journal => journal(priority, &self.identifier, text),
        };
        let _ = send(&self.socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// As syslog(3) numbers levels.
fn priority(level: &str) -> u8 {
    match level {
        super::ERROR => 3,
        super::WARNING => 4,
        _ => 7,
    }
}

/// RFC 3164 without a time, which whoever takes it from a socket of the same machine goes by the own clock for.
fn syslog(priority: u8, identifier: &str, pid: u32, text: &str) -> Vec<u8> {
    /// The facility of programs that are nothing special (`LOG_USER`).
    const USER: u8 = 1 << 3;
    format!("<{}>{identifier}[{pid}]: {text}", USER | priority).into_bytes()
}

/// The journal's own protocol (systemd.io, "Native Journal Protocol"). `ID` is what crun calls it, by the other `journalctl -t` finds it.
fn journal(priority: u8, identifier: &str, text: &str) -> Vec<u8> {
    let mut message = format!("PRIORITY={priority}\n").into_bytes();
    for (name, value) in [("SYSLOG_IDENTIFIER", identifier), ("ID", identifier), ("MESSAGE", text)] {
        // With its length in front, so that a line's end in it is none.
        message.extend_from_slice(name.as_bytes());
        message.push(b'\n');
        message.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    }
    message
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What comes at a socket when this is said, and then that.
    fn said(kind: Kind, messages: &[(&str, &str)]) -> Vec<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = SystemLog::open_at(path.to_str().unwrap(), kind, "mine").unwrap();
        messages.iter().for_each(|(level, text)| log.write(level, text));
        let receive = |_| {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        messages.iter().map(receive).collect()
    }

    #[test]
    fn syslog_hears_who_says_what() {
        let pid = std::process::id();
        let expected =
            [format!("<11>mine[{pid}]: create: no"), format!("<12>mine[{pid}]: odd"), format!("<15>mine[{pid}]: x")];
        let found = said(Kind::Syslog, &[("error", "create: no"), ("warning", "odd"), ("debug", "x")]);
        assert_eq!(found, expected.map(String::into_bytes));
    }

    #[test]
    fn a_line_s_end_begins_no_field_of_the_journal() {
        let found = said(Kind::Journal, &[("error", "no\nPRIORITY=0")]).concat();
        let expected = b"PRIORITY=3\nSYSLOG_IDENTIFIER\n\x04\0\0\0\0\0\0\0mine\nID\n\x04\0\0\0\0\0\0\0mine\nMESSAGE\n\x0d\0\0\0\0\0\0\0no\nPRIORITY=0\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_full_or_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let open = || SystemLog::open_at(path.to_str().unwrap(), Kind::Syslog, "mine");
        assert_eq!(open().unwrap_err(), Errno::NOENT);
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = open().unwrap();
        (0..10_000).for_each(|_| log.write("error", "again"));
        drop(socket);
        log.write("error", "and again");
    }
}
