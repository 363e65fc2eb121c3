//! What containers say of themselves: sd_notify(3), one datagram socket for each that declares it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recv, socket_with};

/// A datagram is never longer, in bytes; systemd's own limit.
pub const LONGEST: usize = 4096;
/// Of what a container says in words so much is kept, in bytes.
const LONGEST_STATUS: usize = 120;

/// One thing that a container says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `READY=1`
    Ready,
    /// `STOPPING=1`
    Stopping,
    /// `STATUS=…`, cut to a bounded length; what is not UTF-8 is replaced.
    Status(String),
    /// `WATCHDOG=1`
    Alive,
    /// `WATCHDOG=trigger`
    Trigger,
    /// `WATCHDOG_USEC=…`, in milliseconds; 0: there will be no more signs of life.
    Watchdog(u64),
    /// `EXTEND_TIMEOUT_USEC=…`, in milliseconds.
    Extend(u64),
}

/// Makes the socket of a container at `path`, in place of whatever an incarnation before has left there. Anybody may write to it
/// who can reach it: only its container can, where it is bound.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o666))?;
    Ok(socket)
}

/// The next datagram; `None`: there is none now. Descriptors that come with one are closed by the kernel, as nobody asks for them:
/// that is also what `BARRIER=1` waits for.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Vec<Message>> {
    let buffer = buffer.get_mut(..LONGEST)?;
    loop {
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((n, _)) => return Some(parse(buffer.get(..n).unwrap_or_default())),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The lines that mean something here; all others are for other service managers.
pub fn parse(datagram: &[u8]) -> Vec<Message> {
    datagram.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Message> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (line.get(..at)?, line.get(at.checked_add(1)?..)?);
    Some(match (name, value) {
        (b"READY", b"1") => Message::Ready,
        (b"STOPPING", b"1") => Message::Stopping,
        (b"WATCHDOG", b"1") => Message::Alive,
        (b"WATCHDOG", b"trigger") => Message::Trigger,
        (b"WATCHDOG_USEC", _) => Message::Watchdog(millis(value)?),
        (b"EXTEND_TIMEOUT_USEC", _) => Message::Extend(millis(value).filter(|ms| *ms > 0)?),
        (b"STATUS", _) => Message::Status(status(value)),
        _ => return None,
    })
}

/// Microseconds as whole milliseconds, at least one if there are any.
fn millis(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let micros = text.parse::<u64>().ok()?;
    Some(micros.checked_div(1000)?.max(micros.min(1)))
}

fn status(value: &[u8]) -> String {
    // No character has more than four bytes, and one that isn't whole becomes three.
    let most = value.get(..LONGEST_STATUS).unwrap_or(value);
    let mut text = String::from_utf8_lossy(most).into_owned();
    text.truncate(text.floor_char_boundary(LONGEST_STATUS));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn lines_mean_what_sd_notify_says() {
        let said =
            parse(b"READY=1\nSTATUS=Serving 3 clients=ok\nMAINPID=7\nWATCHDOG=1\nWATCHDOG_USEC=1500000\nSTOPPING=1\n");
        let status = Message::Status("Serving 3 clients=ok".into());
        let expected = [Message::Ready, status, Message::Alive, Message::Watchdog(1500), Message::Stopping];
        assert_eq!(said, expected);
        assert_eq!(parse(b"WATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=1"), [Message::Trigger, Message::Extend(1)]);
        for nothing in
            ["", "READY", "READY=0", "READY=11", "ready=1", " READY=1", "WATCHDOG_USEC=-1", "WATCHDOG_USEC=+1"]
        {
            assert_eq!(parse(nothing.as_bytes()), [], "{nothing:?}");
        }
        assert_eq!(parse(b"WATCHDOG_USEC=99999999999999999999999\nEXTEND_TIMEOUT_USEC=0"), []);
        assert_eq!(parse(b"WATCHDOG_USEC=0\nWATCHDOG_USEC=999"), [Message::Watchdog(0), Message::Watchdog(1)]);
    }

    #[test]
    fn words_are_cut() {
        let long = [b"STATUS=".as_slice(), "ä".repeat(500).as_bytes()].concat();
        let said = parse(&long);
        let [Message::Status(text)] = said.as_slice() else { panic!("{said:?}") };
        assert!(text.len() <= LONGEST_STATUS && text.starts_with("ää"), "{text}");
    }

    #[test]
    fn datagrams_are_received_one_by_one_and_in_part_if_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify/web.sock");
        drop(listen(&path).unwrap());
        let socket = listen(&path).unwrap();
        let mut buffer = vec![0; 65536];
        assert_eq!(receive(&socket, &mut buffer), None);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", &path).unwrap();
        sender.send_to(&[b"STATUS=x\n".as_slice(), &[b'.'; 10_000], b"\nREADY=1"].concat(), &path).unwrap();
        assert_eq!(receive(&socket, &mut buffer), Some(vec![Message::Ready]));
        assert_eq!(receive(&socket, &mut buffer), Some(vec![Message::Status("x".into())]));
        assert_eq!(receive(&socket, &mut buffer), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_messages_or_nothing(datagram in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..LONGEST)) {
            for message in parse(&datagram) {
                if let Message::Status(text) = message {
                    proptest::prop_assert!(text.len() <= LONGEST_STATUS);
                }
            }
        }
    }
}
