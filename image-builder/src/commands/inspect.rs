//! `garboard inspect`: see [`crate::inspect`].

use std::process::ExitCode;

use anyhow::Result;

use crate::{cli, commands, inspect};

/// Runs the command.
pub fn run(options: &cli::Inspect) -> Result<ExitCode> {
    let report = inspect::inspect(&options.image)?;
    if options.json {
        commands::print_json(&report)?;
    } else {
        commands::print(&report.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
