//! Builds, runs and inspects Garboard appliances.

mod build;
mod cli;
mod commands;
mod cpio;
mod declaration;
mod demo;
mod disk;
mod embedded;
mod initrd;
mod inspect;
mod kernel;
mod output;
mod progress;
#[cfg(test)]
mod testing;
mod verity;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::New(options) => commands::new::run(&options),
        Command::Check(options) => commands::check::run(&options),
        Command::Build(options) => commands::build::run(&options),
        Command::Run(options) => commands::run::run(&options),
        Command::Inspect(options) => commands::inspect::run(&options),
        Command::Schema => commands::schema::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("garboard: {error:#}");
            ExitCode::FAILURE
        }
    }
}
