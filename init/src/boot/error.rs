//! Why a boot can't go on.

use std::fmt;

/// One fault of the boot: what was tried, on what, why it failed and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootError {
    /// The operation, as a verb: `load module`.
    pub operation: &'static str,
    /// What it was done to; may be empty.
    pub object: String,
    /// Why it failed.
    pub cause: String,
    /// What a person can do about it; may be empty.
    pub fix: String,
}

impl BootError {
    /// A fault without a known fix.
    pub fn new(operation: &'static str, object: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { operation, object: object.into(), cause: cause.to_string(), fix: String::new() }
    }

    /// The same fault with what would help.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        write!(f, ": {}", self.cause)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for BootError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_sentence() {
        let error = BootError::new("load module", "/modules/10-erofs.ko", "no such file").fix("build the image again");
        assert_eq!(error.to_string(), "load module /modules/10-erofs.ko: no such file; build the image again");
        assert_eq!(BootError::new("read the plan", "", "EIO").to_string(), "read the plan: EIO");
    }
}
