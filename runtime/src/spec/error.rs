//! Why a declaration and an image don't make a spec, or a spec not a launch.

/// The field or option, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where: an option (`user`), or a spec field (`linux.rootfsPropagation`).
    pub field: String,
    /// What is wrong, and the fix where there is one.
    pub reason: String,
}

impl Error {
    /// An error in `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Error {}
