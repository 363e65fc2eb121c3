//! Errors and warnings: on standard error for people, or in the log file for the program that called. Then errors are in both, and
//! nothing else is on standard error, which may be the container's own.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::time::SystemTime;

use serde::Serialize;

use super::args::{Global, LogFormat};
use crate::container::Result;
use crate::container::error::During;

/// Where messages go, decided once.
#[derive(Debug)]
struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
    command: &'static str,
}

const ERROR: &str = "error";

static LOG: OnceLock<Log> = OnceLock::new();

/// One line of a JSON log, as runc's callers read it.
#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

/// Opens the log that the flags ask for.
pub(super) fn open(global: &Global, command: &'static str) -> Result<()> {
    let file = global.log.as_ref().map(|path| {
        File::options().append(true).create(true).open(path).during(|| format!("open the log {}", path.display()))
    });
    let log = Log { file: file.transpose()?, json: global.log_format == LogFormat::Json, debug: global.debug, command };
    // Opened once, by main.
    let _ = LOG.set(log);
    Ok(())
}

/// The reason why the command failed.
pub(super) fn error(text: &str) {
    write(ERROR, text);
}

/// Something that didn't work and isn't a failure of the command.
pub(crate) fn warn(text: &str) {
    write("warning", text);
}

/// What the command does, with `--debug`.
pub(crate) fn debug(text: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", &text());
    }
}

fn write(level: &str, text: &str) {
    let log = LOG.get();
    let command = log.map_or(String::new(), |log| format!("{}: ", log.command));
    let logged = log.and_then(|log| Some((log, log.file.as_ref()?)));
    if logged.is_none() || level == ERROR {
        // There is nowhere to complain that complaining fails. Callers look for the level, as runc's lines have it.
        let _ = writeln!(std::io::stderr(), "garboard-runtime: {command}{level}: {text}");
    }
    let Some((log, file)) = logged else { return };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let msg = format!("{command}{text}");
    let line = if log.json {
        serde_json::to_string(&Line { level, msg: &msg, time: &time }).unwrap_or_default()
    } else {
        format!("time=\"{time}\" level={level} msg={msg:?}")
    };
    let mut file = file;
    let _ = file.write_all(format!("{line}\n").as_bytes());
}
