//! Why a command failed: what was being done, to what, and the cause.

use rustix::io::Errno;

use crate::failure::Failure;
use crate::hint;

/// One sentence for people: operation, object, cause and, where it is known, the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// What a command returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// From the whole sentence.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl From<crate::spec::Error> for Error {
    fn from(error: crate::spec::Error) -> Self {
        Self(format!("config.json: {error}"))
    }
}

/// Gives a system error what was being done.
pub(crate) trait During<T> {
    /// `what` (a verb and its object) is only built on failure.
    fn during<S: std::fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> During<T> for std::result::Result<T, Errno> {
    fn during<S: std::fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| {
            let fix = fix(errno).map(|fix| format!(": {fix}")).unwrap_or_default();
            Error(format!("{}: {}{fix}", what(), hint::errno_text(errno)))
        })
    }
}

impl<T> During<T> for std::io::Result<T> {
    fn during<S: std::fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => match Errno::from_io_error(&error) {
                Some(errno) => Err(errno).during(what),
                None => Err(Error(format!("{}: {error}", what()))),
            },
        }
    }
}

/// What helps whatever was being done.
fn fix(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => Some("raise the limit (ulimit -n)"),
        Errno::NFILE => Some("raise the machine's limit (fs.file-max)"),
        _ => None,
    }
}
