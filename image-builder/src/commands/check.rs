//! `garboard check`: would a declaration be built, and into what it says? See [`crate::build::look`].

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use garboard_config::Errors;
use serde::Serialize;

use crate::build::look::look;
use crate::declaration;
use crate::plain::plain;
use crate::progress::Progress;
use crate::{cli, commands};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Version of this format.
    v: u32,
    ok: bool,
    errors: Vec<Fault>,
    /// What has no effect and might be missed, in sentences.
    warnings: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
struct Fault {
    file: String,
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    message: String,
    help: Option<String>,
}

/// Runs the command.
pub fn run(options: &cli::Check) -> Result<ExitCode> {
    let progress = Progress::new(options.json);
    let checked = declaration::parse(&options.file)?.and_then(|declaration| {
        let warnings = look(&declaration, &progress).map_err(|faults| declaration.errors(faults))?;
        Ok((declaration.appliance.containers.len(), warnings))
    });
    drop(progress);
    let code = if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if options.json {
        let (errors, warnings) = match checked {
            Ok((_, warnings)) => (Vec::new(), warnings),
            Err(errors) => (faults(&options.file, &errors), Vec::new()),
        };
        commands::print_json(&Report { v: 1, ok: errors.is_empty(), errors, warnings })?;
        return Ok(code);
    }
    match checked {
        Ok((count, warnings)) => {
            for warning in warnings {
                eprintln!("warning: {}", plain(&warning));
            }
            let plural = if count == 1 { "container" } else { "containers" };
            commands::print(&format!("{}: right, {count} {plural}\n", options.file.display()))?;
        }
        Err(errors) => anstream::eprint!("{}", errors.to_ansi()),
    }
    Ok(code)
}

fn faults(file: &Path, errors: &Errors) -> Vec<Fault> {
    let file = file.display().to_string();
    let fault = |error: &garboard_config::Error| Fault {
        file: file.clone(),
        line: error.place.line,
        column: error.place.column,
        message: error.message.clone(),
        help: error.help.clone(),
    };
    errors.iter().map(fault).collect()
}
