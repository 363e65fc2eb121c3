//! The commands, one file each.

pub mod attach;
pub mod build;
pub mod check;
mod detach;
pub mod events;
pub mod inspect;
pub mod logs;
pub mod new;
mod port;
pub mod run;
pub mod schema;
pub mod status;

use std::io::{self, Write};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::plain::plain_json;

/// Prints what a command found. A reader that has enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    write(io::stdout().lock(), text)
}

/// The same with colours, which are left out where no terminal shows them.
pub fn print_coloured(text: &str) -> Result<()> {
    write(anstream::stdout().lock(), text)
}

fn write(mut stdout: impl Write, text: &str) -> Result<()> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

/// Whether nobody reads standard output any more: the other end of a pipe, or the terminal, is gone.
pub fn unread() -> bool {
    // Nothing is asked for: what is told is an error or a hang-up.
    let stdout = io::stdout();
    let mut found = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut found, Some(&Timespec::default())).is_ok() && !found[0].revents().is_empty()
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&(plain_json(&serde_json::to_string_pretty(value)?) + "\n"))
}

/// Prints a value as a line of JSON.
fn print_json_line(value: &serde_json::Value) -> Result<()> {
    print(&(plain_json(&value.to_string()) + "\n"))
}
