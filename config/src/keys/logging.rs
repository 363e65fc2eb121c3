//! `logging`: what of a container's output is kept on the data partition.
//!
//! It is Compose's, with Docker's driver `local`, as the meaning is the same: so many files of at most such a size, the oldest of
//! which goes when the newest is full. Compose's other drivers have other meanings.

use serde_json::{Value, json};

use crate::read::{Choice, Fault, Word, keys};
use crate::syntax::{Bytes, decimal};

keys! {
    /// `logging`
    pub(crate) struct LoggingKeys ("logging") requires [] {
        /// "local" (the default): what the container prints is kept in files on the data partition, besides the log in memory.
        driver: LogDriver,
        /// How much is kept.
        options: LogOptionKeys,
    }
    refused {}
}

keys! {
    /// `options` of `logging`
    pub(crate) struct LogOptionKeys ("options of logging") requires [] {
        /// Size of a file of the log, from "64k". Default: "4m".
        max_size("max-size"): Bytes,
        /// How many files there are at most, from 2 to 100: with each new one the oldest goes. Default: 4.
        max_file("max-file"): FileCount,
    }
    refused {
        "compress" => "kept logs are plain text, to be read on any machine; leave it out",
        "labels" => "kept logs have no labels; leave it out",
        "mode" => "writing a log never holds a container up; leave it out",
        "max-buffer-size" => "what waits to be written waits in the log in memory; its size is `log_budget` in [system]",
        "tag" => "each container has files of its own; leave it out",
    }
}

/// The only driver that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogDriver;

const REMOTE: &str =
    "logs aren't sent anywhere yet; \"local\" keeps them on the data partition, and the status port has them";

impl Choice for LogDriver {
    const WHAT: &'static str = "a driver for logs";
    const CHOICES: &'static [(&'static str, Self)] = &[("local", Self)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        (
            "none",
            "every container has a log in memory, and without `logging` it is kept nowhere else: leave `logging` out",
        ),
        ("json-file", "\"local\" keeps them, as plain text"),
        ("journald", REMOTE),
        ("syslog", REMOTE),
        ("gelf", REMOTE),
        ("fluentd", REMOTE),
    ];
}

/// A number of files, which Compose's users write as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileCount(pub(crate) u32);

impl FileCount {
    fn of(number: i64) -> Result<Self, Fault> {
        match u32::try_from(number) {
            Ok(number @ 2..=100) => Ok(Self(number)),
            Ok(0 | 1) => Err(Fault::new("one file is too few: when it is full, nothing of it would be left")
                .help("write at least 2")),
            _ => Err(Fault::new("the number of files must be from 2 to 100")),
        }
    }
}

impl Word for FileCount {
    const EXPECTED: &'static str = "a number of files";

    fn parse(text: &str) -> Result<Self, Fault> {
        match decimal(text) {
            Some(number) => Self::of(number),
            None => Err(Fault::new(format!("{} isn't a number of files", crate::errors::quote(text)))
                .help("write a whole number from 2 to 100")),
        }
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(Self::of(number))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 2, "maximum": 100 },
            { "type": "string", "pattern": "^([2-9]|[1-9][0-9]|100)$" },
        ] })
    }
}
