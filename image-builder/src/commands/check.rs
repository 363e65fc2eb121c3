//! `garboard check`: is a declaration right, and are its images there?

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use garboard_config::Errors;
use serde::Serialize;

use crate::build::sources::Sources;
use crate::declaration::{self, Declaration};
use crate::kernel::{Choice, Kernel};
use crate::{cli, commands};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Version of this format.
    v: u32,
    ok: bool,
    errors: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
struct Fault {
    file: String,
    /// From 1; absent when the fault isn't in the declaration itself.
    line: Option<usize>,
    /// In characters, from 1.
    column: Option<usize>,
    message: String,
    help: Option<String>,
}

/// Runs the command.
pub fn run(options: &cli::Check) -> Result<ExitCode> {
    let parsed = declaration::parse(&options.file)?;
    let checked = match &parsed {
        Ok(declaration) => look(declaration),
        Err(_) => Ok(()),
    };
    if options.json {
        let errors = faults(&options.file, parsed.as_ref().err(), checked.as_ref().err());
        let ok = errors.is_empty();
        commands::print_json(&Report { v: 1, ok, errors })?;
        return Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    match parsed {
        Ok(declaration) => {
            checked?;
            let count = declaration.appliance.containers.len();
            let plural = if count == 1 { "container" } else { "containers" };
            commands::print(&format!("{}: right, {count} {plural}\n", options.file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            eprint!("{errors}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Looks at the files that the declaration names.
fn look(declaration: &Declaration) -> Result<()> {
    Sources::open(declaration)?;
    let kernel = &declaration.appliance.kernel;
    if let Some(image) = &kernel.image {
        let modules = kernel.modules.as_deref().map(|modules| declaration.path(modules));
        let choice = Choice { image: Some(declaration.path(image)), modules };
        let needs_data = declaration.appliance.needs_data();
        Kernel::open(&choice, &|_| {})?.modules(needs_data, &kernel.extra_modules)?;
    }
    Ok(())
}

fn faults(file: &Path, parsing: Option<&Errors>, looking: Option<&anyhow::Error>) -> Vec<Fault> {
    let file = file.display().to_string();
    let in_text = parsing.into_iter().flat_map(Errors::iter).map(|error| Fault {
        file: file.clone(),
        line: Some(error.place.line),
        column: Some(error.place.column),
        message: error.message.clone(),
        help: error.help.clone(),
    });
    let outside = looking.map(|error| Fault {
        file: file.clone(),
        line: None,
        column: None,
        message: crate::sentence(error),
        help: None,
    });
    in_text.chain(outside).collect()
}
