//! The serial console: containers' lines, our own, and the status table. Writing never waits.

mod line;
mod queue;
pub mod table;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{ControlModes, InputModes, LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::escape::escape_into;
use crate::logs::Piece;
use line::Layout;
use queue::Queue;

/// A terminal, or whatever stands for one in a test.
#[derive(Debug)]
pub struct Console {
    fd: Option<OwnedFd>,
    queue: Queue,
    layout: Layout,
}

impl Console {
    /// Opens `/dev/console`. A machine without one works all the same: what is printed goes nowhere.
    pub fn open() -> Self {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Self::on(rustix::fs::open("/dev/console", flags, Mode::empty()).ok())
    }

    /// Writes to `fd`, which must not block.
    pub fn on(fd: Option<OwnedFd>) -> Self {
        let columns = fd.as_ref().and_then(|fd| rustix::termios::tcgetwinsize(fd).ok()).map_or(0, |size| size.ws_col);
        Self { fd, queue: Queue::default(), layout: Layout::new(usize::from(columns)) }
    }

    /// Writes to what a process before this one wrote to, which may have crashed in the middle of a line.
    pub fn adopt(fd: Option<OwnedFd>) -> Self {
        let mut console = Self::on(fd);
        console.queue.push_own("\n");
        console
    }

    /// Learns the containers' names, so that their lines stand below each other.
    pub fn align(&mut self, names: impl Iterator<Item = usize>) {
        self.layout.align(names);
    }

    /// Prints lines of our own: `text` may have several; each gets the prefix.
    pub fn say(&mut self, text: &str) {
        for line in text.lines() {
            let mut out = String::with_capacity(line.len().saturating_add(16));
            out.push_str("garboard: ");
            escape_into(&mut out, line.as_bytes());
            out.push('\n');
            self.queue.push_own(&out);
        }
    }

    /// Prints a container's line or part of one.
    pub fn container(&mut self, name: &str, piece: Piece<'_>) {
        let queue = &mut self.queue;
        if queue.refuses_foreign() {
            return;
        }
        self.layout.rows(name, piece, |row| queue.push_foreign(row));
    }

    /// Writes what the line takes without waiting. True: something is left; call again when it is writable.
    pub fn flush(&mut self) -> bool {
        let Some(fd) = &self.fd else {
            self.queue = Queue::default();
            return false;
        };
        // Bounded: a pipe or pseudo-terminal with a fast reader could otherwise keep us here.
        for _ in 0..16 {
            if self.queue.is_empty() {
                return false;
            }
            match rustix::io::write(fd, self.queue.front()) {
                Ok(0) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Ok(written) => self.queue.consume(written),
                Err(_) => {
                    // Hung up or broken; a hung-up line may come back, so only what waits is given up.
                    self.queue = Queue::default();
                    return false;
                }
            }
        }
        !self.queue.is_empty()
    }

    /// Its descriptor, to poll for room.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

/// Makes a terminal deaf: nobody reads from it, and what comes in must not matter. By default a single Ctrl-S, or a byte of line
/// noise that looks like one, holds all output back until a Ctrl-Q; everything else would be echoed.
pub fn ignore_input(terminal: impl AsFd) {
    // Whatever is no terminal has no input.
    let Ok(mut modes) = tcgetattr(&terminal) else { return };
    modes.input_modes.remove(InputModes::IXON | InputModes::IXOFF | InputModes::BRKINT);
    modes.input_modes.insert(InputModes::IGNBRK);
    modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
    // No receiver, and no cable that may hang up.
    modes.control_modes.remove(ControlModes::CREAD);
    modes.control_modes.insert(ControlModes::CLOCAL);
    let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

    /// A terminal, and the line to it.
    fn terminal() -> (OwnedFd, OwnedFd) {
        let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&line).unwrap();
        let name = ptsname(&line, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        (rustix::fs::open(name, flags, Mode::empty()).unwrap(), line)
    }

    /// What comes out of the line after noise went into it and the console said something.
    fn heard(deaf: bool) -> String {
        let (terminal, line) = terminal();
        if deaf {
            ignore_input(&terminal);
        }
        rustix::io::write(&line, b"noise\x13\n").unwrap();
        let mut arrival = [PollFd::new(&terminal, PollFlags::IN)];
        assert_eq!(poll(&mut arrival, None), Ok(1));
        let mut console = Console::on(Some(terminal));
        console.say("still here");
        console.flush();
        let mut buffer = [0; 1000];
        rustix::io::ioctl_fionbio(&line, true).unwrap();
        let n = rustix::io::read(&line, &mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn what_comes_in_neither_stops_the_console_nor_comes_back() {
        assert_eq!(heard(true), "garboard: still here\r\n");
        // The control: without that, the noise is echoed, and its Ctrl-S holds the line back.
        let control = heard(false);
        assert!(!control.contains("still here"), "{control}");
    }
}
