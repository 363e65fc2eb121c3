//! The serial console: containers' lines, our own, and the status table; for a person who presses a key, a dashboard in their
//! place. Writing never waits.
//!
//! | file | is |
//! |---|---|
//! | `line`, `table` | plain lines |
//! | `queue` | what waits for the line |
//! | `terminal`, [`keys`] | the other end: how it is set up, what its bytes mean |
//! | [`session`] | from the key that opens the dashboard to the one that closes it |
//! | [`dashboard`], `wish`, `pager`, [`access`] | what a key does |
//! | [`draw`], `overview`, `pages`, `meter` | what is to be seen |
//! | [`screen`], [`encode`] | cells, and the bytes that make a terminal show them |

pub mod access;
pub mod dashboard;
#[cfg(test)]
#[path = "tests.rs"]
mod dashboard_tests;
pub mod draw;
pub mod encode;
pub mod keys;
mod line;
mod meter;
mod overview;
mod pager;
mod pages;
mod queue;
pub mod screen;
pub mod session;
pub mod table;
mod terminal;
mod wish;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::logs::Piece;
use line::Layout;
use queue::Queue;
pub use terminal::ignore_input;

/// Where the kernel has its console.
pub const PATH: &str = "/dev/console";

/// A terminal, or whatever stands for one in a test.
#[derive(Debug)]
pub struct Console {
    fd: Option<OwnedFd>,
    queue: Queue,
    layout: Layout,
    /// While something else than lines is shown: how many were not.
    hidden: Option<u64>,
    /// The line has hung up or is broken: nothing goes out of it until it is opened anew.
    lost: bool,
}

impl Console {
    /// Opens [`PATH`]. A machine without one works all the same: what is printed goes nowhere.
    pub fn open() -> Self {
        Self::on(open(Path::new(PATH)))
    }

    /// Opens the line anew after it has hung up: what was opened before is dead for ever. False: it isn't there.
    pub fn reopen(&mut self, path: &Path) -> bool {
        let Some(fd) = open(path) else { return false };
        self.fd = Some(fd);
        self.lost = false;
        true
    }

    /// Whether the line is seen to have hung up, and was not opened anew since.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Nothing that comes in matters any more.
    pub fn ignore_input(&self) {
        if let Some(fd) = &self.fd {
            ignore_input(fd);
        }
    }

    /// Writes to `fd`, which must not block.
    pub fn on(fd: Option<OwnedFd>) -> Self {
        let columns = fd.as_ref().and_then(|fd| rustix::termios::tcgetwinsize(fd).ok()).map_or(0, |size| size.ws_col);
        Self { fd, queue: Queue::default(), layout: Layout::new(usize::from(columns)), hidden: None, lost: false }
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

    /// Lets keys come in; a descriptor to read them from. `None`: there are no keys. A process before this one may have left the
    /// terminal with a dashboard on it: it has lines again.
    pub fn listen(&mut self, resumed: bool) -> Option<OwnedFd> {
        let fd = self.fd.as_ref().filter(|fd| terminal::listen(fd))?;
        if resumed {
            self.queue.push_raw(terminal::CLOSE);
        }
        rustix::io::fcntl_dupfd_cloexec(fd, 3).ok()
    }

    /// The terminal shows bytes as they are, for whoever has it now; or lines again.
    pub fn pass_bytes(&self, raw: bool) {
        if let Some(fd) = &self.fd {
            terminal::end_lines(fd, !raw);
        }
    }

    /// Columns and rows of the terminal, where the kernel knows them.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.fd.as_ref().and_then(terminal::size)
    }

    /// Something else than lines is shown from now on, and begins with these bytes. Lines that still wait are not shown.
    pub fn hide_lines(&mut self, bytes: &str) {
        self.hidden = Some(self.queue.clear());
        self.queue.push_raw(bytes);
    }

    /// Lines are shown again, after these bytes; the first says what was missed.
    pub fn show_lines(&mut self, bytes: &str) {
        let Some(hidden) = self.hidden.take() else { return };
        // A frame may be cut in the middle: what follows begins anew whatever state that left.
        self.queue.clear();
        self.queue.push_raw(bytes);
        if hidden > 0 {
            self.say(&format!("{hidden} lines were not shown meanwhile; what containers printed is in their logs"));
        }
    }

    /// Sends bytes as they are, to be used for what an [`encode::Encoder`] made.
    pub fn send(&mut self, bytes: &str) {
        self.queue.push_raw(bytes);
    }

    /// Nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Prints lines of our own. What is foreign in them must have no line's end ([`crate::escape::one_line`]).
    pub fn say_lines(&mut self, text: &str) {
        text.lines().for_each(|line| self.say(line));
    }

    /// Prints a line of our own. Whatever it quotes, it is one: a foreign line's end in it, or the terminal's, would make the rest look
    /// like another one of ours.
    pub fn say(&mut self, text: &str) {
        if let Some(hidden) = &mut self.hidden {
            *hidden = hidden.saturating_add(1);
            return;
        }
        self.queue.push_own(&self.layout.own_rows(text));
    }

    /// Prints a container's line or part of one.
    pub fn container(&mut self, name: &str, piece: Piece<'_>) {
        if let Some(hidden) = &mut self.hidden {
            *hidden = hidden.saturating_add(1);
            return;
        }
        let queue = &mut self.queue;
        if queue.refuses_foreign() {
            return;
        }
        self.layout.rows(name, piece, |row| queue.push_foreign(row));
    }

    /// Writes what the line takes without waiting. True: something is left; call again when it is writable.
    pub fn flush(&mut self) -> bool {
        let Some(fd) = self.fd.as_ref().filter(|_| !self.lost) else {
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
                    self.lost = true;
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

fn open(path: &Path) -> Option<OwnedFd> {
    let open = |access| {
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    // Some consoles only print.
    open(OFlags::RDWR).or_else(|_| open(OFlags::WRONLY)).ok()
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
    fn what_a_line_quotes_is_no_line_of_its_own() {
        let mut console = Console::on(None);
        console.say("failed: open x\ngarboard: all is well");
        assert_eq!(console.queue.front(), b"garboard: failed: open x\\x0agarboard: all is well\n");
    }

    #[test]
    fn what_comes_in_neither_stops_the_console_nor_comes_back() {
        assert_eq!(heard(true), "garboard: still here\r\n");
        // The control: without that, the noise is echoed, and its Ctrl-S holds the line back.
        let control = heard(false);
        assert!(!control.contains("still here"), "{control}");
    }
}
