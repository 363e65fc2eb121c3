//! What can go wrong, with what the machine last said.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::qmp::Ending;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a machine didn't do what the test asked.
///
/// Its `Debug` is its `Display`: `unwrap` in a test then shows the console as lines and not as one escaped string.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file couldn't be read, copied or written.
    #[error("{operation} {}: {cause}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// `image.json` isn't what `garboard build` writes.
    #[error("read {}: {cause}; build it again with this version's `garboard build`", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Where and why.
        #[source]
        cause: serde_json::Error,
    },
    /// The machine asked for can't be put together from this image or on this computer.
    #[error("{0}")]
    Unsuitable(String),
    /// QEMU couldn't be started.
    #[error("start {}: {cause}{}", .program.display(), install(.cause))]
    Start {
        /// QEMU.
        program: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The time for something was up.
    #[error("no {what} within {:.1} s{evidence}", .waited.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// The last status and the end of the console.
        evidence: String,
    },
    /// The machine ended while something was waited for.
    #[error("the machine ended ({ending}) while waiting for {what}{evidence}")]
    Ended {
        /// What was waited for.
        what: String,
        /// How it ended.
        ending: Ending,
        /// QEMU's messages and the end of the console.
        evidence: String,
    },
    /// The appliance answered a request with an error.
    #[error("{request}: the appliance says: {message}")]
    Refused {
        /// The request.
        request: String,
        /// Its answer.
        message: String,
    },
    /// A container has come to a state that excludes what was waited for.
    #[error("container {name} won't become {wanted}: {reason}{evidence}")]
    Container {
        /// Which.
        name: String,
        /// What was waited for.
        wanted: &'static str,
        /// Its state.
        reason: String,
        /// The end of the console.
        evidence: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What helps where QEMU isn't there.
fn install(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "; install QEMU (Debian: apt install qemu-system-x86)",
        io::ErrorKind::ArgumentListTooLong => ": fewer ports can be forwarded, declare fewer",
        _ => "",
    }
}

impl Error {
    /// A failed operation on a file, for `map_err`.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { operation, path, cause }
    }
}

/// `text` as the indented end of an error message, or nothing.
pub(crate) fn evidence(title: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() { String::new() } else { format!("\n{title}:\n  {}", lines.join("\n  ")) }
}
