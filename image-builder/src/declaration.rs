//! The declaration file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use garboard_config::{Appliance, Errors, Fault};

/// No declaration is larger, in bytes; what is cut off here makes the parser say that it is too large.
const READ_LIMIT: u64 = 16 << 20;

/// A valid declaration and where it is.
#[derive(Debug)]
pub struct Declaration {
    /// What it says.
    pub appliance: Appliance,
    /// Where its relative paths start.
    pub directory: PathBuf,
    /// The file's name, as it was given.
    file: String,
    /// What stands in it.
    text: String,
}

/// Reads and parses a declaration. The inner result is about what it says, the outer about reaching it.
pub fn parse(file: &Path) -> Result<Result<Declaration, Errors>> {
    let mut bytes = Vec::new();
    let open = File::open(file).and_then(|opened| opened.take(READ_LIMIT).read_to_end(&mut bytes));
    open.with_context(|| format!("read {}{}", file.display(), hint(file)))?;
    let directory = file.parent().unwrap_or(Path::new("")).to_owned();
    let file = file.display().to_string();
    let parsed = garboard_config::parse_bytes(&file, &bytes);
    // What was parsed is UTF-8.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(parsed.map(|appliance| Declaration { appliance, directory, file, text }))
}

/// Reads a declaration that has to be valid.
pub fn read(file: &Path) -> Result<Declaration> {
    parse(file)?.map_err(|errors| wrong(&errors))
}

/// What is wrong with a declaration, drawn over many lines, in colours that `main` takes out where nobody sees them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

fn wrong(errors: &Errors) -> anyhow::Error {
    Wrong(format!("the declaration is wrong\n{}", errors.to_ansi())).into()
}

impl Declaration {
    /// A path as the declaration has it, from where this program runs.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// Faults that a later stage found, at their places.
    pub fn errors(&self, faults: Vec<Fault>) -> Errors {
        garboard_config::place(&self.file, &self.text, faults)
    }

    /// The same, to end with.
    pub fn wrong(&self, faults: Vec<Fault>) -> anyhow::Error {
        wrong(&self.errors(faults))
    }
}

fn hint(file: &Path) -> &'static str {
    if file.exists() { "" } else { " (`garboard new` writes one to start from)" }
}
