//! Errors and warnings: on standard error for people, or in the log for the program that called, which is a file or the machine's. Then errors
//! are in both, and nothing else is on standard error, which may be the container's own.

mod system;

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::time::SystemTime;

use serde::Serialize;

use super::args::{Global, LogFormat, LogPlace};
use crate::container::Result;
use crate::container::error::During;
use system::SystemLog;

pub(super) use system::Kind as SystemKind;

/// Where messages go, decided once.
#[derive(Debug)]
struct Log {
    place: Option<Place>,
    json: bool,
    debug: bool,
    command: &'static str,
}

#[derive(Debug)]
enum Place {
    File(File),
    System(SystemLog),
}

const ERROR: &str = "error";
const WARNING: &str = "warning";

static LOG: OnceLock<Log> = OnceLock::new();

/// One line of a JSON log, as runc's callers read it.
#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

/// Opens the log that the flags ask for. Where the machine has none of its own, that is no reason to fail, as with syslog(3) and crun.
pub(super) fn open(global: &Global, command: &'static str) -> Result<()> {
    let mut absent = None;
    let place = match &global.log {
        None => None,
        Some(LogPlace::File(path)) => {
            let file = File::options().append(true).create(true).open(path);
            Some(Place::File(file.during(|| format!("open the log {}", path.display()))?))
        }
        Some(LogPlace::System(kind, identifier)) => {
            SystemLog::open(*kind, identifier).map(Place::System).map_err(|errno| absent = Some((kind, errno))).ok()
        }
    };
    let log = Log { place, json: global.log_format == LogFormat::Json, debug: global.debug, command };
    // Opened once, by main.
    let _ = LOG.set(log);
    if let Some((kind, errno)) = absent {
        debug(|| format!("open the log of the machine ({kind:?}): {errno}: messages are on standard error"));
    }
    Ok(())
}

/// The reason why the command failed.
pub(super) fn error(text: &str) {
    write(ERROR, text);
}

/// Something that didn't work and isn't a failure of the command.
pub(crate) fn warn(text: &str) {
    write(WARNING, text);
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
    let logged = log.and_then(|log| Some((log, log.place.as_ref()?)));
    if logged.is_none() || level == ERROR {
        // There is nowhere to complain that complaining fails. Callers look for the level, as runc's lines have it.
        let _ = writeln!(std::io::stderr(), "garboard-runtime: {command}{level}: {text}");
    }
    let Some((log, place)) = logged else { return };
    let msg = format!("{command}{text}");
    let mut file = match place {
        Place::File(file) => file,
        Place::System(system) => return system.write(level, &msg),
    };
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let line = if log.json {
        serde_json::to_string(&Line { level, msg: &msg, time: &time }).unwrap_or_default()
    } else {
        format!("time=\"{time}\" level={level} msg={msg:?}")
    };
    let _ = file.write_all(format!("{line}\n").as_bytes());
}
