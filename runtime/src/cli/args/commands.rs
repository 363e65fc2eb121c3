//! All commands: what each is called and asks for, and who reads it.

use super::super::events::Events;
use super::super::images::{Checkpoint, Restore};
use super::super::update::Update;
use super::exec::COMMAND;
use super::making::CONTAINER;
use super::page::{Argument, Flag, Page, Place};
use super::small::{PS_OPTION, SIGNAL};
use super::{Create, Delete, Exec, Instead, Kill, List, Making, Name, Parsed, Ps, Reader, Run, Spec, global, help};

/// What to execute.
#[derive(Debug)]
pub(in crate::cli) enum Command {
    Create(Create),
    Start(Name),
    State(Name),
    Kill(Kill),
    Delete(Delete),
    Run(Run),
    Exec(Exec),
    List(List),
    Ps(Ps),
    Pause(Name),
    Resume(Name),
    Update(Update),
    Events(Events),
    Checkpoint(Checkpoint),
    Restore(Restore),
    Spec(Spec),
    Features,
}

/// In the order of the help.
pub(super) static PAGES: &[Page] = &[
    page("create", "Make a container and leave it right before its program", &[Making::FLAGS], &[CONTAINER]),
    page("start", "Execute the program of a created container", &[], &[CONTAINER]),
    page("state", "Print a container's state as JSON", &[], &[CONTAINER]),
    page("kill", "Send a signal to a container", &[Kill::FLAGS], &[CONTAINER, SIGNAL]),
    page("delete", "Remove a stopped container", &[Delete::FLAGS], &[CONTAINER]),
    page(
        "run",
        "Make a container, start it, wait for its end and remove it",
        &[Making::FLAGS, Run::FLAGS],
        &[CONTAINER],
    ),
    page("exec", "Run another process in a container", &[Exec::FLAGS], &[CONTAINER, COMMAND]),
    page("list", "List containers", &[List::FLAGS], &[]),
    page("ps", "List a container's processes", &[Ps::FLAGS], &[CONTAINER, PS_OPTION]),
    page("pause", "Stop all processes of a container where they stand", &[], &[CONTAINER]),
    page("resume", "Let them go on", &[], &[CONTAINER]),
    page("update", "Change a container's limits", &[Update::FLAGS], &[CONTAINER]),
    page("events", EVENTS, &[Events::FLAGS], &[CONTAINER]),
    page("checkpoint", "Write a running container to files (needs criu)", Checkpoint::FLAGS, &[CONTAINER]),
    page("restore", "Make a container anew from such files (needs criu)", Restore::FLAGS, &[CONTAINER]),
    page("spec", "Write a config.json to begin with", &[Spec::FLAGS], &[]),
    page("features", r#"Print what this runtime knows as JSON (runtime spec, "Features Document")"#, &[], &[]),
    page("help", "Print this message or the help of a command", &[], &[EXPLAINED]),
];

const EVENTS: &str = "Print what a container uses, and when it runs out of memory, as JSON";
const EXPLAINED: Argument = Argument::new("COMMAND", Place::Optional, false, "The command");

const fn page(
    name: &'static str,
    about: &'static str,
    flags: &'static [&'static [Flag]],
    arguments: &'static [Argument],
) -> Page {
    Page { name, about, flags, arguments }
}

/// The page of the command that was read last.
pub(super) fn named(reader: &mut Reader) -> Parsed<&'static Page> {
    let name = reader.text()?;
    let page = PAGES.iter().find(|page| page.name == name);
    page.ok_or_else(|| reader.refuse(&format!("unknown command '{name}'")))
}

/// What the command of this name asks for.
pub(super) fn read(name: &str, reader: &mut Reader) -> Parsed<Command> {
    Ok(match name {
        "create" => Command::Create(Create::read(reader)?),
        "start" => Command::Start(Name::read(reader)?),
        "state" => Command::State(Name::read(reader)?),
        "kill" => Command::Kill(Kill::read(reader)?),
        "delete" => Command::Delete(Delete::read(reader)?),
        "run" => Command::Run(Run::read(reader)?),
        "exec" => Command::Exec(Exec::read(reader)?),
        "list" => Command::List(List::read(reader)?),
        "ps" => Command::Ps(Ps::read(reader)?),
        "pause" => Command::Pause(Name::read(reader)?),
        "resume" => Command::Resume(Name::read(reader)?),
        "update" => Command::Update(Update::read(reader)?),
        "events" => Command::Events(Events::read(reader)?),
        "checkpoint" => Command::Checkpoint(Checkpoint::read(reader)?),
        "restore" => Command::Restore(Restore::read(reader)?),
        "spec" => Command::Spec(Spec::read(reader)?),
        "features" => {
            reader.next()?;
            Command::Features
        }
        // The only other page.
        _ => return Err(explain(reader)?),
    })
}

/// `help`, of everything or of a command.
fn explain(reader: &mut Reader) -> Parsed<Instead> {
    let mut page = &global::PAGE;
    while reader.next()?.is_some() {
        page = named(reader)?;
    }
    Ok(Instead::Print(help::print(page)))
}
