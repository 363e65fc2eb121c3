//! The OCI command line: commands, flags, output and exit statuses as runc and crun have them, over [`crate::container`].

mod args;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod images;
mod kill;
mod list;
pub(crate) mod log;
mod matching;
mod pause;
mod protect;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod terminal;
mod update;

use crate::container::store::Store;
use crate::container::{self, Result};
use args::{Arguments, Command, Instead};

/// The exit status of a command that failed; a program's own is passed on by `run` and `exec`.
const FAILED: u8 = 1;
/// The one of `exec`, as with runc: few programs have it, and callers look for it to tell the two apart.
const NOT_EXECUTED: u8 = 255;

/// Runs the command that this process was called with. Returns its exit status.
#[must_use]
pub fn main() -> u8 {
    let arguments = match Arguments::of_process() {
        Ok(arguments) => arguments,
        // As with any other output, nobody has to read it.
        Err(Instead::Print(text)) => return print(&text).map_or(FAILED, |()| 0),
        Err(Instead::Refuse(why)) => {
            log::error(&why);
            return FAILED;
        }
    };
    let failed = if matches!(arguments.command, Command::Exec(_)) { NOT_EXECUTED } else { FAILED };
    let done = log::open(&arguments.global, arguments.name)
        .and_then(|()| container::declare_rootless(arguments.global.rootless.as_deref()))
        .and_then(|()| execute(arguments));
    match done {
        Ok(status) => status,
        Err(error) => {
            log::error(&error.to_string());
            failed
        }
    }
}

/// Commands aren't inlined: each would claim its part of the stack in all of them.
fn execute(arguments: Arguments) -> Result<u8> {
    let Arguments { global, command, .. } = arguments;
    let store = || Store::new(global.root.clone());
    match command {
        Command::Create(arguments) => create::run(&store()?, &global, &arguments),
        Command::Start(arguments) => start::run(&store()?, &arguments),
        Command::State(arguments) => state::run(&store()?, &arguments),
        Command::Kill(arguments) => kill::run(&store()?, &arguments),
        Command::Delete(arguments) => delete::run(&store()?, &arguments),
        Command::Run(arguments) => run::run(&store()?, &global, &arguments),
        Command::Exec(arguments) => exec::run(&store()?, &arguments),
        Command::List(arguments) => list::run(&store()?, &arguments),
        Command::Ps(arguments) => ps::run(&store()?, &arguments),
        Command::Pause(arguments) => pause::run(&store()?, &arguments, true),
        Command::Resume(arguments) => pause::run(&store()?, &arguments, false),
        Command::Update(arguments) => update::run(&store()?, &arguments),
        Command::Events(arguments) => events::run(&store()?, &arguments),
        Command::Checkpoint(arguments) => images::write(&store()?, &global, &arguments),
        Command::Restore(arguments) => images::read(&store()?, &global, &arguments),
        Command::Spec(arguments) => spec::run(&arguments),
        Command::Features => features::run(),
    }
}

/// Prints a command's result. A reader who has gone isn't an error worth a panic.
fn print(text: &str) -> Result<()> {
    use crate::container::error::During;
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).during(|| "write to standard output")
}
