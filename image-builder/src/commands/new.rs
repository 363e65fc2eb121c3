//! `garboard new`: a declaration to start from.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{cli, commands, demo};

const SCAFFOLD: &str = include_str!("scaffold.toml");
const FILE: &str = "appliance.toml";

/// Runs the command.
pub fn run(options: &cli::New) -> Result<ExitCode> {
    let directory = &options.directory;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let file = directory.join(FILE);
    write_new(&file, if options.demo { demo::DECLARATION } else { SCAFFOLD })?;
    if options.demo {
        demo::write_image(directory)?;
    }
    let enter = if directory == Path::new(".") { String::new() } else { format!("cd {} && ", directory.display()) };
    let next = if options.demo { "garboard build && garboard run" } else { "garboard check" };
    let edit = if options.demo { "" } else { "edit it, then " };
    commands::print(&format!("wrote {}\nnext: {edit}{enter}{next}\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that must not exist: nobody's declaration is overwritten.
fn write_new(file: &Path, text: &str) -> Result<()> {
    let written = fs::OpenOptions::new().write(true).create_new(true).open(file);
    match written.and_then(|mut opened| opened.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already: remove it first, or name another directory", file.display())
        }
        result => result.with_context(|| format!("write {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn scaffold_and_demo_are_valid_declarations() {
        for text in [super::SCAFFOLD, crate::demo::DECLARATION] {
            if let Err(errors) = garboard_config::parse("appliance.toml", text) {
                panic!("{errors}");
            }
        }
    }
}
