//! `create` and `run`, and the container's name, which nearly all commands ask for.

use std::path::PathBuf;

use super::page::{Argument, Flag, Place};
use super::{Parsed, Reader};

pub(super) const CONTAINER: Argument = Argument::new("CONTAINER", Place::Needed, true, "The container");

#[derive(Debug, Default, PartialEq)]
pub(in crate::cli) struct Name {
    pub(in crate::cli) id: String,
}

impl Name {
    /// All of a command that asks for nothing else.
    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut name = Self::default();
        while reader.next()?.is_some() {
            name = Self::last(reader)?;
        }
        Ok(name)
    }

    /// What was read last.
    pub(in crate::cli) fn last(reader: &mut Reader) -> Parsed<Self> {
        Ok(Self { id: reader.text()? })
    }
}

/// What `create` and `run` have in common.
#[derive(Debug)]
pub(in crate::cli) struct Making {
    pub(in crate::cli) bundle: PathBuf,
    pub(in crate::cli) config: PathBuf,
    pub(in crate::cli) console_socket: Option<PathBuf>,
    pub(in crate::cli) pid_file: Option<PathBuf>,
    pub(in crate::cli) pidfd_socket: Option<PathBuf>,
    pub(in crate::cli) preserve_fds: u32,
    pub(in crate::cli) no_pivot: bool,
    pub(in crate::cli) no_new_keyring: bool,
    pub(in crate::cli) no_subreaper: bool,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            bundle: ".".into(),
            config: "config.json".into(),
            console_socket: None,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            no_subreaper: false,
        }
    }
}

impl Making {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::value("b", "bundle", "DIR", "The directory with the configuration and the root filesystem [default: .]"),
        Flag::value("f", "config", "FILE", "The configuration's name in it [default: config.json]"),
        Flag::value("", "console-socket", "SOCKET", "A listening Unix socket that gets the terminal"),
        Flag::value("", "pid-file", "FILE", "Write the process id to this file"),
        Flag::value("", "pidfd-socket", "SOCKET", "A listening Unix socket that gets the process's pid descriptor"),
        Flag::value("", "preserve-fds", "N", "Pass this many more descriptors, from 3 up, to the program [default: 0]"),
        Flag::switch(
            "",
            "no-pivot",
            "Move the root over / instead of calling pivot_root (needed on an initramfs, and weaker)",
        ),
        Flag::switch("", "no-new-keyring", "Keep the caller's session keyring"),
        Flag::switch("", "no-subreaper", "Don't adopt the container's orphans"),
    ];

    fn take(&mut self, flag: &str, reader: &mut Reader) -> Parsed<()> {
        match flag {
            "bundle" => self.bundle = reader.path()?,
            "config" => self.config = reader.path()?,
            "console-socket" => self.console_socket = Some(reader.path()?),
            "pid-file" => self.pid_file = Some(reader.path()?),
            "pidfd-socket" => self.pidfd_socket = Some(reader.path()?),
            "preserve-fds" => self.preserve_fds = reader.number()?,
            "no-pivot" => self.no_pivot = true,
            "no-new-keyring" => self.no_new_keyring = true,
            "no-subreaper" => self.no_subreaper = true,
            other => return Err(reader.unknown(other)),
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(in crate::cli) struct Create {
    pub(in crate::cli) making: Making,
    pub(in crate::cli) name: Name,
}

impl Create {
    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut create = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "CONTAINER" => create.name = Name::last(reader)?,
                flag => create.making.take(flag, reader)?,
            }
        }
        Ok(create)
    }
}

#[derive(Debug, Default)]
pub(in crate::cli) struct Run {
    pub(in crate::cli) making: Making,
    pub(in crate::cli) detach: bool,
    pub(in crate::cli) keep: bool,
    pub(in crate::cli) name: Name,
}

impl Run {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::switch("d", "detach", "Return when the program runs"),
        Flag::switch("", "keep", "Leave the stopped container for `delete`"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut run = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "detach" => run.detach = true,
                "keep" => run.keep = true,
                "CONTAINER" => run.name = Name::last(reader)?,
                flag => run.making.take(flag, reader)?,
            }
        }
        Ok(run)
    }
}
