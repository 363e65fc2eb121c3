//! `garboard attach`: the serial console of an appliance that runs detached, on this terminal.
//!
//! Nothing is sent on one's behalf, so that whoever attaches to an open dashboard presses Ctrl-L: the same byte would open a closed one, and
//! be a program's in a shell.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::port;
use crate::cli;

/// Ctrl-], as telnet's and virsh's.
const LEAVE: u8 = 0x1d;
/// The same byte is what leaves a shell at the console: pressed again within this, it is the machine's.
const TWICE: Duration = Duration::from_millis(500);
/// What a dashboard, or a program in a shell, may have made of the terminal, undone: insert mode, line drawing, application keys, reports
/// of the mouse and of what is pasted, attributes, the scroll region, no wrapping, no cursor, the other screen. Does no harm where nothing was
/// changed: the cursor stays where it is, so that origin mode, which moves it, is left out.
const RESTORE: &[u8] = b"\x1b[4l\x0f\x1b(B\x1b[?1l\x1b>\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\
    \x1b[0m\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal: its keys are raw until this is dropped, and it is as it was then, however that comes.
struct Terminal {
    /// Its settings, if keys come from one.
    before: Option<Termios>,
}

impl Terminal {
    fn begin() -> Result<Self> {
        if !isatty(io::stdin()) {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(io::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("put the terminal into raw mode")?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut output = io::stdout();
        if isatty(&output) {
            let _ = output.write_all(RESTORE).and_then(|()| output.flush());
        }
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Which of the keys are the machine's, and which is the wish to leave.
#[derive(Default)]
struct Keys {
    /// When [`LEAVE`] was pressed, if no other key has followed yet.
    pressed: Option<Instant>,
}

impl Keys {
    /// What of `typed` goes to the machine. True: the person leaves, and what else was typed is nobody's.
    fn take(&mut self, typed: &[u8], now: Instant) -> (Vec<u8>, bool) {
        let mut sent = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (self.pressed.take(), byte) {
                (None, LEAVE) => self.pressed = Some(now),
                (Some(_), LEAVE) | (None, _) => sent.push(byte),
                (Some(_), _) => return (sent, true),
            }
        }
        (sent, false)
    }

    /// How long another key may still come; none are waited for without one.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.pressed.map(|pressed| TWICE.saturating_sub(now.saturating_duration_since(pressed)))
    }
}

/// What ended it.
enum End {
    Machine,
    Person,
    Signal,
}

/// Runs the command.
pub fn run(options: &cli::Attach) -> Result<ExitCode> {
    let path = match &options.socket {
        Some(path) => path.clone(),
        None => port::link(&options.directory, "console")?.1,
    };
    let mut console = File::from(port::connect(&path)?);
    eprintln!(
        "garboard: this is the console of {}\n\
         garboard: Ctrl-] leaves, pressed twice it is the machine's; Ctrl-L draws an open dashboard anew",
        options.directory.display()
    );
    let (signals, caught) = UnixStream::pair().context("make a socket pair")?;
    for signal in [SIGTERM, SIGHUP] {
        let caught = caught.try_clone().context("duplicate a socket")?;
        signal_hook::low_level::pipe::register(signal, caught).context("listen to signals")?;
    }
    let terminal = Terminal::begin()?;
    let end = carry(&mut console, &signals);
    drop(terminal);
    let text = match end? {
        End::Machine => "the machine has ended",
        End::Person => "left; the machine runs on",
        End::Signal => bail!("ended by a signal; the machine runs on"),
    };
    eprintln!("\ngarboard: {text}");
    Ok(ExitCode::SUCCESS)
}

/// Carries bytes both ways.
fn carry(console: &mut File, signals: &UnixStream) -> Result<End> {
    let (mut input, mut output) = (io::stdin(), io::stdout());
    let mut buffer = [0; 4096];
    let mut listening = true;
    let mut keys = Keys::default();
    loop {
        let left = keys.wait(Instant::now());
        let (came, signalled, typed) = {
            let mut fds = vec![PollFd::new(&*console, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            if listening {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("wait for the console"),
            }
            let any = |place: usize| fds.get(place).is_some_and(|fd| !fd.revents().is_empty());
            (any(0), any(1), any(2))
        };
        if signalled {
            return Ok(End::Signal);
        }
        if came {
            let n = console.read(&mut buffer).context("read from the console")?;
            if n == 0 {
                return Ok(End::Machine);
            }
            output.write_all(&buffer[..n]).and_then(|()| output.flush()).context("write to the terminal")?;
        }
        if typed {
            let n = input.read(&mut buffer).context("read from the terminal")?;
            // Without a terminal the console is shown until the machine ends.
            listening = n > 0;
            let (sent, leaves) = keys.take(&buffer[..n], Instant::now());
            console.write_all(&sent).context("write to the console")?;
            if leaves {
                return Ok(End::Person);
            }
        } else if left.is_some_and(|left| left.is_zero()) {
            return Ok(End::Person);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_leaves_is_the_machine_s_when_it_is_pressed_twice() {
        let now = Instant::now();
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\x1d\x1d\r", now), (b"ls\x1d\r".to_vec(), false));
        assert_eq!(keys.wait(now), None);
        // In two reads, and an odd one.
        assert_eq!(keys.take(b"\x1d", now), (vec![], false));
        assert_eq!(keys.wait(now), Some(TWICE));
        assert_eq!(keys.take(b"\x1d\x1d", now), (vec![LEAVE], false));
        assert_eq!(keys.wait(now + TWICE), Some(Duration::ZERO), "nothing followed");
        // The controls: another key follows, and there is none of it.
        assert_eq!(keys.take(b"xy", now), (vec![], true));
        assert_eq!(Keys::default().take(b"a\x1db", now), (b"a".to_vec(), true));
        assert_eq!(Keys::default().take(b"ab", now), (b"ab".to_vec(), false));
    }
}
