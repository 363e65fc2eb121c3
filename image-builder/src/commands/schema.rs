//! `garboard schema`: the declaration's JSON Schema.

use std::process::ExitCode;

use anyhow::Result;

/// Runs the command.
pub fn run() -> Result<ExitCode> {
    super::print_json(&garboard_config::json_schema())?;
    Ok(ExitCode::SUCCESS)
}
