//! `exec`.

use std::path::PathBuf;

use super::page::{Argument, Flag, Place};
use super::{Name, Parsed, Reader};

pub(super) const COMMAND: Argument = Argument::new("COMMAND", Place::Rest, true, "Program and arguments");

#[derive(Debug, Default)]
pub(in crate::cli) struct Exec {
    pub(in crate::cli) process: Option<PathBuf>,
    pub(in crate::cli) cwd: Option<String>,
    pub(in crate::cli) env: Vec<String>,
    pub(in crate::cli) tty: bool,
    pub(in crate::cli) user: Option<String>,
    pub(in crate::cli) additional_gids: Vec<u32>,
    pub(in crate::cli) detach: bool,
    pub(in crate::cli) pid_file: Option<PathBuf>,
    pub(in crate::cli) pidfd_socket: Option<PathBuf>,
    pub(in crate::cli) console_socket: Option<PathBuf>,
    pub(in crate::cli) process_label: Option<String>,
    pub(in crate::cli) apparmor: Option<String>,
    pub(in crate::cli) no_new_privs: bool,
    pub(in crate::cli) cap: Vec<String>,
    pub(in crate::cli) preserve_fds: u32,
    pub(in crate::cli) ignore_paused: bool,
    pub(in crate::cli) cgroup: Option<String>,
    pub(in crate::cli) no_subreaper: bool,
    pub(in crate::cli) name: Name,
    pub(in crate::cli) command: Vec<String>,
}

impl Exec {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::value(
            "p",
            "process",
            "FILE",
            r#"A file with the whole process as JSON (runtime spec, "Process"); the flags about the process don't count then"#,
        ),
        Flag::value("", "cwd", "DIR", "Working directory"),
        Flag::value("e", "env", "ENV", "One more environment variable, as NAME=value"),
        Flag::optional("t", "tty", "TTY", "With a terminal [default: false]").one_of(&["true", "false"]),
        Flag::value("u", "user", "UID[:GID]", "User, and group, in numbers"),
        Flag::value("g", "additional-gids", "GID", "One more group, in numbers"),
        Flag::switch("d", "detach", "Return when the program runs"),
        Flag::value("", "pid-file", "FILE", "Write the process id to this file"),
        Flag::value("", "pidfd-socket", "SOCKET", "A listening Unix socket that gets the process's pid descriptor"),
        Flag::value("", "console-socket", "SOCKET", "A listening Unix socket that gets the terminal"),
        Flag::value("", "process-label", "LABEL", "Its SELinux label"),
        Flag::value("", "apparmor", "PROFILE", "Its AppArmor profile"),
        Flag::switch("", "no-new-privs", "No new privileges"),
        Flag::value("c", "cap", "CAP", "One more capability"),
        Flag::value("", "preserve-fds", "N", "Pass this many more descriptors, from 3 up, to the program [default: 0]"),
        Flag::switch("", "ignore-paused", "Also in a paused container, where it starts when that is resumed"),
        Flag::value("", "cgroup", "PATH", "A cgroup beneath the container's"),
        Flag::switch("", "no-subreaper", "Don't adopt the container's orphans"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut exec = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "process" => exec.process = Some(reader.path()?),
                "cwd" => exec.cwd = Some(reader.text()?),
                "env" => exec.env.push(reader.text()?),
                "tty" => exec.tty = reader.text()? == "true",
                "user" => exec.user = Some(reader.text()?),
                "additional-gids" => exec.additional_gids.push(reader.number()?),
                "detach" => exec.detach = true,
                "pid-file" => exec.pid_file = Some(reader.path()?),
                "pidfd-socket" => exec.pidfd_socket = Some(reader.path()?),
                "console-socket" => exec.console_socket = Some(reader.path()?),
                "process-label" => exec.process_label = Some(reader.text()?),
                "apparmor" => exec.apparmor = Some(reader.text()?),
                "no-new-privs" => exec.no_new_privs = true,
                "cap" => exec.cap.push(reader.text()?),
                "preserve-fds" => exec.preserve_fds = reader.number()?,
                "ignore-paused" => exec.ignore_paused = true,
                "cgroup" => exec.cgroup = Some(reader.text()?),
                "no-subreaper" => exec.no_subreaper = true,
                "CONTAINER" => exec.name = Name::last(reader)?,
                "COMMAND" => exec.command.push(reader.text()?),
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(exec)
    }
}
