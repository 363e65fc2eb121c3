//! What can go wrong with an image, in sentences that name operation, object and cause.

use std::io;
use std::path::Path;

use crate::digest::Digest;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine refused something: no such file, disk full, ….
    #[error("{operation} {object}: {cause}")]
    Io {
        /// What was tried (`open`, `read`, `write`).
        operation: &'static str,
        /// On what.
        object: String,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// The declaration names an image that isn't there, or more than one.
    #[error("image `{reference}`: {detail}")]
    Reference {
        /// As the declaration has it.
        reference: String,
        /// What is wrong, and what there is instead.
        detail: String,
    },
    /// Bytes differ from what names them.
    #[error(
        "{object}: its content is {found}, expected {expected}: the image is damaged or was altered, fetch it again"
    )]
    Digest {
        /// Which blob or layer.
        object: String,
        /// The digest that names it.
        expected: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A blob is shorter or longer than its descriptor says.
    #[error("{object}: {found} bytes, its descriptor says {expected}: the image is damaged, fetch it again")]
    Size {
        /// Which blob.
        object: String,
        /// Bytes declared.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Not the format it should have, or cut off.
    #[error("{object}: {detail}")]
    Malformed {
        /// Which file, blob or stream.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A layer's entry that can't be what it says, or isn't safe.
    #[error("{layer}: entry `{entry}`: {detail}")]
    Entry {
        /// Which layer.
        layer: String,
        /// The entry's name, bytes outside ASCII escaped.
        entry: String,
        /// Why it is refused.
        detail: String,
    },
    /// Larger than [`crate::Limits`] allow.
    #[error("{object}: more than {limit} {unit}, the limit `{name}`")]
    Limit {
        /// What is too large.
        object: String,
        /// The limit's value.
        limit: u64,
        /// Of what: `bytes`, `entries`, ….
        unit: &'static str,
        /// The field of [`crate::Limits`].
        name: &'static str,
    },
    /// Well-formed, but nothing this crate can do.
    #[error("{object}: {detail}")]
    Unsupported {
        /// What it is about.
        object: String,
        /// What isn't supported, and what is.
        detail: String,
    },
}

impl Error {
    /// For `map_err`: an [`Error::Io`] about `object`.
    pub(crate) fn io(operation: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |cause| Self::Io { operation, object, cause }
    }

    /// For `map_err`: an [`Error::Io`] about a scratch file in `directory`, with the way out if there is no room in the one for
    /// temporary files: nobody has named that one.
    pub(crate) fn scratch(operation: &'static str, file: &str, directory: &Path) -> impl FnOnce(io::Error) -> Self {
        let object = format!("{file} in {}", directory.display());
        let temporary = directory == std::env::temp_dir();
        move |cause| {
            let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let cause = if full && temporary {
                io::Error::new(cause.kind(), format!("{cause}; set TMPDIR to a directory with more room"))
            } else {
                cause
            };
            Self::Io { operation, object, cause }
        }
    }

    pub(crate) fn malformed(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Malformed { object: object.into(), detail: detail.into() }
    }

    pub(crate) fn unsupported(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unsupported { object: object.into(), detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_directory_is_named_with_the_way_out() {
        let text = |directory: &Path, kind: io::ErrorKind| {
            Error::scratch("write", "the scratch file", directory)(io::Error::from(kind)).to_string()
        };
        let temporary = std::env::temp_dir();
        let full = text(&temporary, io::ErrorKind::StorageFull);
        assert!(full.starts_with(&format!("write the scratch file in {}: ", temporary.display())), "{full}");
        assert!(full.ends_with("; set TMPDIR to a directory with more room"), "{full}");
        // Where it helps nothing, it isn't advised.
        assert!(!text(Path::new("/else"), io::ErrorKind::StorageFull).contains("TMPDIR"));
        assert!(!text(&temporary, io::ErrorKind::NotFound).contains("TMPDIR"));
    }
}
