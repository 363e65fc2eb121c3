//! A container's terminal shown on this process's own streams.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::log;
use crate::container::Result;
use crate::container::error::During;

/// Bytes moved at once; a terminal's own buffer is as large.
const BUFFER: usize = 4096;

/// Both directions, and this side's terminal as it was.
pub(super) struct Relay {
    outer: OwnedFd,
    /// Typed and not yet taken by the container.
    typed: Vec<u8>,
    input_ended: bool,
    output_ended: bool,
    /// This process's standard output takes nothing any more: what the container prints is read and dropped, so that it goes on.
    unheard: bool,
    before: Option<Termios>,
}

impl Relay {
    /// Begins: this side's terminal, if it is one, passes everything through from now on.
    pub(super) fn begin(outer: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&outer, true).during(|| "prepare the terminal")?;
        let stdin = std::io::stdin();
        let before = if isatty(&stdin) {
            let before = tcgetattr(&stdin).during(|| "read the terminal's settings")?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).during(|| "set the terminal")?;
            Some(before)
        } else {
            None
        };
        let relay = Self { outer, typed: Vec::new(), input_ended: false, output_ended: false, unheard: false, before };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of this one.
    pub(super) fn resize(&self) {
        if self.before.is_some()
            && let Ok(size) = tcgetwinsize(std::io::stdin())
        {
            let _ = tcsetwinsize(&self.outer, size);
        }
    }

    /// What to wait for: the container's terminal, then standard input.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut outer = PollFlags::empty();
        outer.set(PollFlags::IN, !self.output_ended);
        outer.set(PollFlags::OUT, !self.typed.is_empty());
        fds.push(PollFd::new(&self.outer, outer));
        if !self.input_ended && self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
    }

    /// Moves what is there to be moved.
    pub(super) fn pump(&mut self, ready: &[PollFlags]) -> Result<()> {
        let outer = ready.first().copied().unwrap_or(PollFlags::empty());
        if outer.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.output_ended {
            self.show()?;
        }
        if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            let mut buffer = [0_u8; BUFFER];
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) | Err(Errno::IO) => self.input_ended = true,
                Ok(n) => self.typed.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno).during(|| "read standard input"),
            }
        }
        if !self.typed.is_empty() {
            match rustix::io::write(&self.outer, &self.typed) {
                Ok(n) => drop(self.typed.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody holds the other side any more.
                Err(_) => (self.typed, self.input_ended) = (Vec::new(), true),
            }
        }
        Ok(())
    }

    /// Shows one bufferful.
    fn show(&mut self) -> Result<()> {
        let mut buffer = [0_u8; BUFFER];
        match rustix::io::read(&self.outer, &mut buffer) {
            // EIO: the last process that had it open has gone.
            Ok(0) | Err(Errno::IO) => self.output_ended = true,
            Ok(n) if !self.unheard => {
                let mut stdout = std::io::stdout().lock();
                let bytes = buffer.get(..n).unwrap_or(&[]);
                if let Err(error) =
                    stdout.write_all(bytes).and_then(|()| stdout.flush()).during(|| "write to standard output")
                {
                    log::warn(&format!("{error}: what the container prints from here on is lost"));
                    self.unheard = true;
                }
            }
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| "read the terminal"),
        }
        Ok(())
    }

    /// Shows what is left when the program has ended.
    pub(super) fn drain(&mut self) {
        while !self.output_ended {
            let fds = &mut [PollFd::from_borrowed_fd(self.outer.as_fd(), PollFlags::IN)];
            let nothing_left =
                !matches!(rustix::event::poll(fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..));
            if nothing_left || self.show().is_err() {
                return;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
