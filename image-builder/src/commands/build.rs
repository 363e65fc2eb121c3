//! `garboard build`: see [`crate::build`].

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use indicatif::HumanBytes;

use crate::build::manifest::Manifest;
use crate::build::{self, Options};
use crate::declaration::{self, Declaration};
use crate::kernel::Choice;
use crate::output::MANIFEST;
use crate::plain::plain_json;
use crate::progress::Progress;
use crate::{cli, commands};

/// Runs the command.
pub fn run(options: &cli::Build) -> Result<ExitCode> {
    let start = Instant::now();
    let declaration = declaration::read(&options.file)?;
    let progress = Progress::new(options.json);
    let kernel = choose_kernel(options, &declaration);
    let wanted = Options { declaration: &declaration, kernel, disk: !options.no_disk, output: &options.output };
    let manifest = build::build(&wanted, &progress)?;
    drop(progress);
    if options.json {
        commands::print(&plain_json(&manifest.to_json()))?;
    } else {
        commands::print(&summary(&manifest, &options.output))?;
        eprintln!(
            "built in {:.1} s; boot it with `garboard run {}`",
            start.elapsed().as_secs_f64(),
            options.output.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line's kernel, else the declaration's, whose paths are relative to it.
fn choose_kernel(options: &cli::Build, declaration: &Declaration) -> Choice {
    if options.kernel.is_some() {
        return Choice { image: options.kernel.clone(), modules: options.modules.clone() };
    }
    let declared = &declaration.appliance.kernel;
    let path = |path: &Option<_>| path.as_deref().map(|path| declaration.path(path));
    Choice { image: path(&declared.image), modules: path(&declared.modules) }
}

/// The files that were made, with their sizes.
fn summary(manifest: &Manifest, output: &Path) -> String {
    let mut text = format!("{} with kernel {}\n", manifest.appliance, manifest.kernel_release);
    let always = [&manifest.kernel, &manifest.initrd, &manifest.system];
    for name in always.into_iter().chain(&manifest.data).chain(&manifest.disk) {
        let path = output.join(name);
        let size = fs::metadata(&path).map(|metadata| HumanBytes(metadata.len()).to_string()).unwrap_or_default();
        text.push_str(&format!("  {:<20} {size:>12}\n", path.display()));
    }
    text.push_str(&format!("  {}\n  root hash {}\n", output.join(MANIFEST).display(), manifest.root_hash));
    text
}
