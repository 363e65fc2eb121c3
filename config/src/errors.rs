//! Errors.
use std::ops::Range;
/// One thing that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Line, from 1; 0 when the error isn't about a place.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    pub(crate) span: Option<Range<usize>>,
}
/// Everything that is wrong with a declaration, in the order of the file. `Display` draws each with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    pub(crate) file: String,
    pub(crate) source: String,
    pub(crate) errors: Vec<Error>,
    pub(crate) omitted: usize,
}
impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = (&self.source, self.omitted);
        for e in &self.errors {
            let _ = &e.span;
            writeln!(f, "{}:{}:{}: {}", self.file, e.line, e.column, e.message)?;
        }
        Ok(())
    }
}
impl std::error::Error for Errors {}
