//! The commands with few flags.

use std::path::PathBuf;

use super::page::{Argument, Flag, Place};
use super::{Name, Parsed, Reader};

pub(super) const SIGNAL: Argument =
    Argument::new("SIGNAL", Place::Optional, false, "Name or number of the signal [default: TERM]");

pub(super) const PS_OPTION: Argument =
    Argument::new("PS-OPTION", Place::Rest, true, "Options of ps(1) for the table [default: -ef]");

#[derive(Debug)]
pub(in crate::cli) struct Kill {
    pub(in crate::cli) all: bool,
    pub(in crate::cli) regex: bool,
    pub(in crate::cli) name: Name,
    pub(in crate::cli) signal: String,
}

impl Kill {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::switch("a", "all", "To all processes, not only the first"),
        Flag::switch("r", "regex", "CONTAINER is a regular expression: to all containers that it matches"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut kill = Self { all: false, regex: false, name: Name::default(), signal: "TERM".to_owned() };
        while let Some(given) = reader.next()? {
            match given {
                "all" => kill.all = true,
                "regex" => kill.regex = true,
                "CONTAINER" => kill.name = Name::last(reader)?,
                "SIGNAL" => kill.signal = reader.text()?,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(kill)
    }
}

#[derive(Debug, Default)]
pub(in crate::cli) struct Delete {
    pub(in crate::cli) force: bool,
    pub(in crate::cli) regex: bool,
    pub(in crate::cli) name: Name,
}

impl Delete {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::switch("f", "force", "Kill it first if it still runs; do nothing if there is none"),
        Flag::switch("r", "regex", "CONTAINER is a regular expression: delete all containers that it matches"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut delete = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "force" => delete.force = true,
                "regex" => delete.regex = true,
                "CONTAINER" => delete.name = Name::last(reader)?,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(delete)
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Format {
    #[default]
    Table,
    Json,
}

impl Format {
    const FLAG: Flag =
        Flag::value("f", "format", "FORMAT", "How they are printed [default: table]").one_of(&["table", "json"]);

    fn last(reader: &mut Reader) -> Parsed<Self> {
        Ok(if reader.text()? == "json" { Self::Json } else { Self::Table })
    }
}

#[derive(Debug, Default)]
pub(in crate::cli) struct List {
    pub(in crate::cli) format: Format,
    pub(in crate::cli) quiet: bool,
}

impl List {
    pub(super) const FLAGS: &'static [Flag] = &[Format::FLAG, Flag::switch("q", "quiet", "Only the names")];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut list = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "format" => list.format = Format::last(reader)?,
                "quiet" => list.quiet = true,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(list)
    }
}

#[derive(Debug, Default)]
pub(in crate::cli) struct Ps {
    pub(in crate::cli) format: Format,
    pub(in crate::cli) name: Name,
    pub(in crate::cli) options: Vec<String>,
}

impl Ps {
    pub(super) const FLAGS: &'static [Flag] = &[Format::FLAG];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut ps = Self::default();
        while let Some(given) = reader.next()? {
            match given {
                "format" => ps.format = Format::last(reader)?,
                "CONTAINER" => ps.name = Name::last(reader)?,
                "PS-OPTION" => ps.options.push(reader.text()?),
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(ps)
    }
}

#[derive(Debug)]
pub(in crate::cli) struct Spec {
    pub(in crate::cli) bundle: PathBuf,
    pub(in crate::cli) file: PathBuf,
    pub(in crate::cli) rootless: bool,
}

impl Spec {
    pub(super) const FLAGS: &'static [Flag] = &[
        Flag::value("b", "bundle", "DIR", "The directory to write it in [default: .]"),
        Flag::value("f", "file", "FILE", "Its name there [default: config.json]"),
        Flag::switch("", "rootless", "For an ordinary user: a user namespace with this user as root"),
    ];

    pub(super) fn read(reader: &mut Reader) -> Parsed<Self> {
        let mut spec = Self { bundle: ".".into(), file: "config.json".into(), rootless: false };
        while let Some(given) = reader.next()? {
            match given {
                "bundle" => spec.bundle = reader.path()?,
                "file" => spec.file = reader.path()?,
                "rootless" => spec.rootless = true,
                other => return Err(reader.unknown(other)),
            }
        }
        Ok(spec)
    }
}
