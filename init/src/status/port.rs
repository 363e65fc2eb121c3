//! The port's descriptor: found by name, never waited for, in bounded pieces.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::outbox::Outbox;
use super::protocol::LONGEST_REQUEST;
use crate::clock::now_ms;

/// The device of the virtio-serial port with this name; `None`: there is none yet.
///
/// `/sys/class/virtio-ports/vport1p1/name`, see the kernel's `drivers/char/virtio_console.c`. The name arrives from the host a
/// little after the port.
pub fn find(class: &Path, name: &str) -> Option<PathBuf> {
    let ports = fs::read_dir(class).ok()?;
    let named =
        ports.flatten().find(|p| fs::read_to_string(p.path().join("name")).is_ok_and(|n| n.trim_end() == name))?;
    Some(Path::new("/dev").join(named.file_name()))
}

/// An open port.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
    /// What was read of requests not yet answered.
    input: Vec<u8>,
    /// The line being read is too long; the rest of it is skipped.
    skipping: bool,
    /// What was not yet written of replies and other lines.
    out: Outbox,
    /// A line was abandoned in its middle.
    torn: bool,
    /// The kernel takes no more for now.
    blocked: bool,
    /// When the reply that waits began to, or something was last written, in milliseconds since boot.
    moved_at: u64,
    /// The other end says no more.
    ended: bool,
    /// There is nobody at the other end.
    gone: bool,
}

impl Port {
    /// Opens a port's device.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(Self::on(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Talks on `fd`, which must not block.
    pub fn on(fd: OwnedFd) -> Self {
        Self {
            fd,
            input: Vec::new(),
            skipping: false,
            out: Outbox::default(),
            torn: false,
            blocked: false,
            moved_at: 0,
            ended: false,
            gone: false,
        }
    }

    /// Goes on where a process that crashed was talking: half of a reply may be out.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self { torn: true, ..Self::on(fd) }
    }

    /// Reads what is there, at most a piece. True: there may be more.
    pub fn read(&mut self, buffer: &mut [u8]) -> bool {
        // Requests wait for their turn in the kernel, not here.
        if self.input.len() >= LONGEST_REQUEST.saturating_mul(2) || self.busy() {
            return false;
        }
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(0) => {
                self.ended = true;
                false
            }
            Ok(n) => {
                self.ended = false;
                self.input.extend_from_slice(buffer.get(..n).unwrap_or_default());
                true
            }
            Err(Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// The next whole request line, if every reply before it was written. A line that is too long comes as `Err`.
    pub fn request(&mut self) -> Option<Result<Vec<u8>, ()>> {
        if self.busy() {
            return None;
        }
        // What was passed over is taken away once: a line at a time, the rest would be moved as often.
        let mut begin = 0_usize;
        loop {
            let rest = self.input.get(begin..).unwrap_or_default();
            let Some(line) = rest.iter().position(|b| *b == b'\n').and_then(|end| rest.get(..end)) else {
                self.input.drain(..begin);
                if self.input.len() > LONGEST_REQUEST {
                    self.input = Vec::new();
                    return (!std::mem::replace(&mut self.skipping, true)).then_some(Err(()));
                }
                return None;
            };
            begin = begin.saturating_add(line.len()).saturating_add(1);
            // An asker's way to find the place again is an empty line.
            if std::mem::take(&mut self.skipping) || line.trim_ascii().is_empty() && line.len() <= LONGEST_REQUEST {
                continue;
            }
            let request = if line.len() > LONGEST_REQUEST { Err(()) } else { Ok(line.to_vec()) };
            self.input.drain(..begin);
            return Some(request);
        }
    }

    /// Takes a reply line to write.
    pub fn reply(&mut self, line: &[u8]) {
        self.close_torn();
        if !self.busy() {
            self.moved_at = now_ms();
        }
        self.out.reply(line);
    }

    /// Takes a line that nobody waits for. When there is no room for it, a line says later how many were missed.
    pub fn push(&mut self, line: &[u8]) {
        self.close_torn();
        if !self.out.has_room(line.len()) {
            // The reader may be quicker than the turn of the loop in which so much comes at once.
            self.write();
        }
        self.out.push(line);
    }

    /// Takes an event's line, for which there must be [room](Self::room_for_events).
    pub fn push_event(&mut self, line: &[u8]) {
        self.close_torn();
        self.out.push_event(line);
    }

    /// For so many events there is room.
    pub fn room_for_events(&self) -> usize {
        self.out.room_for_events()
    }

    /// What comes after half of a line begins a new one.
    fn close_torn(&mut self) {
        if std::mem::take(&mut self.torn) {
            self.out.reply(b"\n");
        }
    }

    /// The kernel may take more again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Writes what is taken without waiting.
    pub fn write(&mut self) {
        self.out.tell_missed();
        // Bounded as the output is; the kernel takes at most 32 KiB at a time.
        while !self.blocked && !self.out.rest().is_empty() {
            match rustix::io::write(&self.fd, self.out.rest()) {
                Ok(0) | Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => return,
                Ok(n) => {
                    self.out.advance(n);
                    self.moved_at = now_ms();
                }
                Err(_) => self.hang_up(),
            }
        }
    }

    /// The asker went away: what it asked and what it was being told is void.
    pub fn hang_up(&mut self) {
        self.torn |= self.out.clear();
        self.input = Vec::new();
        self.skipping = false;
        self.gone = true;
    }

    /// Somebody is at the other end again.
    pub fn greet(&mut self) {
        self.gone = false;
    }

    /// Nobody is at the other end.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The other end says no more, and everything that it asked was answered.
    pub fn is_done(&self) -> bool {
        self.ended && self.is_idle() && !self.input.contains(&b'\n')
    }

    /// Everything is written.
    pub fn is_idle(&self) -> bool {
        self.out.rest().is_empty()
    }

    /// Since when nothing was written, while a reply waits.
    pub fn stuck_since(&self) -> Option<u64> {
        self.busy().then_some(self.moved_at)
    }

    /// Bytes that wait, if a reply is among them.
    pub fn owed(&self) -> usize {
        if self.busy() { self.out.rest().len() } else { 0 }
    }

    /// A reply is not yet written.
    pub fn busy(&self) -> bool {
        self.out.busy()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Port::on(ours.into()), theirs)
    }

    fn read_all(port: &mut Port) -> Vec<Result<Vec<u8>, ()>> {
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while port.read(&mut buffer) {
            all.extend(std::iter::from_fn(|| port.request()));
        }
        all
    }

    #[test]
    fn requests_come_whole_and_in_order() {
        let (mut port, mut host) = pair();
        host.write_all(b"\nfir").unwrap();
        assert_eq!(read_all(&mut port), []);
        host.write_all(b"st\n \nsecond\nthi").unwrap();
        assert_eq!(read_all(&mut port), [Ok(b"first".to_vec()), Ok(b"second".to_vec())]);
    }

    #[test]
    fn the_next_request_waits_for_the_reply_to_the_one_before() {
        let (mut port, mut host) = pair();
        host.write_all(b"one\ntwo\n").unwrap();
        port.read(&mut [0; 100]);
        assert_eq!(port.request(), Some(Ok(b"one".to_vec())));
        port.reply(b"reply\n");
        assert_eq!(port.request(), None);
        port.write();
        assert_eq!(port.request(), Some(Ok(b"two".to_vec())));
        let mut reply = [0; 6];
        host.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"reply\n");
    }

    #[test]
    fn a_great_many_empty_lines_cost_little() {
        let (mut port, _host) = pair();
        port.input = vec![b'\n'; 2 * LONGEST_REQUEST];
        port.input.extend_from_slice(b"request\nnext");
        let begun = crate::clock::cpu_us();
        assert_eq!(port.request(), Some(Ok(b"request".to_vec())));
        let used = crate::clock::cpu_us() - begun;
        assert!(used < 50_000, "{used} µs");
        assert_eq!((port.request(), &port.input[..]), (None, &b"next"[..]));
    }

    #[test]
    fn who_reads_as_fast_as_it_comes_misses_nothing() {
        let (mut port, host) = pair();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        (0..1000).for_each(|_| port.push(&line));
        port.write();
        drop(port);
        let mut all = String::new();
        std::io::BufReader::new(host).read_to_string(&mut all).unwrap();
        assert_eq!(all.len(), 100_000);
        assert!(!all.contains("missed"));
    }

    #[test]
    fn endless_lines_are_refused_once_and_skipped() {
        let (mut port, mut host) = pair();
        let writer = std::thread::spawn(move || {
            host.write_all(&vec![b'x'; 5 * LONGEST_REQUEST]).unwrap();
            host.write_all(b"end\nnext\n").unwrap();
            host
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(read_all(&mut port));
            assert!(port.input.len() <= 2 * LONGEST_REQUEST);
        }
        assert_eq!(seen, [Err(()), Ok(b"next".to_vec())]);
        drop(writer.join().unwrap());
    }

    #[test]
    fn a_torn_reply_is_closed_by_a_line_feed() {
        let (mut port, mut host) = pair();
        port.reply(&vec![b'y'; 10 << 20]);
        port.write();
        assert!(port.busy());
        port.hang_up();
        port.reply(b"whole\n");
        host.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        for _ in 0..1000 {
            let _ = host.read_to_end(&mut all);
            port.unblock();
            port.write();
        }
        assert!(all.ends_with(b"y\nwhole\n"));
    }

    #[test]
    fn a_reply_torn_by_a_crash_is_closed_by_a_line_feed() {
        let (mut port, mut host) = pair();
        port.reply(b"half of");
        port.write();
        let mut port = Port::adopt(port.fd);
        for _ in 0..2 {
            port.reply(b"whole\n");
            port.write();
        }
        drop(port);
        let mut all = String::new();
        host.read_to_string(&mut all).unwrap();
        assert_eq!(all, "half of\nwhole\nwhole\n");
    }

    #[test]
    fn is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path(), "a.b"), None);
        for (port, name) in [("vport1p1", "other\n"), ("vport1p2", "a.b\n"), ("vport0p1", "")] {
            fs::create_dir(dir.path().join(port)).unwrap();
            fs::write(dir.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(dir.path(), "a.b"), Some("/dev/vport1p2".into()));
    }
}
