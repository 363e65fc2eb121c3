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
mod plain;
mod progress;
mod scratch;
mod sys;
#[cfg(test)]
mod testing;
mod verity;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use declaration::Wrong;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::New(options) => commands::new::run(&options),
        Command::Check(options) => commands::check::run(&options),
        Command::Build(options) => commands::build::run(&options),
        Command::Run(options) => commands::run::run(&options),
        Command::Status(options) => commands::status::run(&options),
        Command::Logs(options) => commands::logs::run(&options),
        Command::Events(options) => commands::events::run(&options),
        Command::Attach(options) => commands::attach::run(&options),
        Command::Inspect(options) => commands::inspect::run(&options),
        Command::Schema => commands::schema::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("garboard: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// What a person is told of an error. Names in it may be foreign.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Wrong>() {
        Some(wrong) => wrong.to_string(),
        None => plain::plain_lines(&sentence(error)),
    }
}

/// An error and its causes as one sentence. Some errors end with the text of their cause already; it isn't said again.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.ends_with(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_steers_no_terminal() {
        let error =
            anyhow::anyhow!("no hash tree of \u{1b}]0;owned\u{7}\nQEMU says:\n  \u{202e}x").context("read disk.raw");
        assert_eq!(told(&error), "read disk.raw: no hash tree of \\u{1b}]0;owned\\u{7}\nQEMU says:\n  \\u{202e}x");
        let wrong = anyhow::Error::from(Wrong("\u{1b}[31mred".into()));
        assert_eq!(told(&wrong), "\u{1b}[31mred");
    }

    #[test]
    fn no_cause_is_said_twice() {
        let error = garboard_images::source::open("oci:absent", std::path::Path::new("/nonexistent")).err().unwrap();
        let text = sentence(&anyhow::Error::from(error).context("container web"));
        assert!(text.starts_with("container web: "), "{text}");
        let absent = || std::io::Error::from_raw_os_error(2);
        let whole = disk::Error::Io { path: "/x".into(), cause: absent() };
        let text = sentence(&anyhow::Error::from(whole).context("build"));
        assert_eq!(text, "build: write disk image: /x: No such file or directory (os error 2)");
        assert_eq!(
            sentence(&anyhow::Error::from(absent()).context("read x")),
            "read x: No such file or directory (os error 2)"
        );
    }
}
