//! `garboard attach`: the serial console of an appliance that runs detached, on this terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use super::port;
use crate::cli;

/// Ctrl-], as telnet's and virsh's.
const LEAVE: u8 = 0x1d;

/// Puts the terminal into raw mode until it is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> Result<Self> {
        if !isatty(io::stdin()) {
            return Ok(Self(None));
        }
        let before = tcgetattr(io::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("put the terminal into raw mode")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Runs the command.
pub fn run(options: &cli::Attach) -> Result<ExitCode> {
    let path = match &options.socket {
        Some(path) => path.clone(),
        None => port::link(&options.directory, "console")?.1,
    };
    let mut console = File::from(port::connect(&path)?);
    eprintln!("garboard: this is the console of {}; Ctrl-] leaves", options.directory.display());
    let raw = Raw::begin()?;
    let ended = carry(&mut console)?;
    drop(raw);
    eprintln!("\ngarboard: {}", if ended { "the machine has ended" } else { "left; the machine runs on" });
    Ok(ExitCode::SUCCESS)
}

/// Carries bytes both ways. True: the machine has ended; false: the person left.
fn carry(console: &mut File) -> Result<bool> {
    let (mut input, mut output) = (io::stdin(), io::stdout());
    let mut buffer = [0; 4096];
    let mut listening = true;
    loop {
        let (typed, came) = {
            let mut fds = vec![PollFd::new(&*console, PollFlags::IN)];
            if listening {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("wait for the console"),
            }
            let any = |place: usize| fds.get(place).is_some_and(|fd| !fd.revents().is_empty());
            (any(1), any(0))
        };
        if came {
            let n = console.read(&mut buffer).context("read from the console")?;
            if n == 0 {
                return Ok(true);
            }
            output.write_all(&buffer[..n]).and_then(|()| output.flush()).context("write to the terminal")?;
        }
        if typed {
            let n = input.read(&mut buffer).context("read from the terminal")?;
            // Without a terminal the console is shown until the machine ends.
            listening = n > 0;
            let typed = &buffer[..n];
            let end = typed.iter().position(|byte| *byte == LEAVE);
            console.write_all(&typed[..end.unwrap_or(n)]).context("write to the console")?;
            if end.is_some() {
                return Ok(false);
            }
        }
    }
}
