//! The one program in the demo appliance's containers. Each subcommand is a container that shows a side of supervision.
//!
//! Little more than the standard library: the demo must build anywhere and fit in a layer of two megabytes.

mod client;
mod flaky;
mod web;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGTERM;

const USAGE: &str = "\
usage: garboard-demo web [ADDRESS]        serve a page with this container's facts (default 0.0.0.0:8080)
       garboard-demo client [ADDRESS]     get that page once a second and print its first line (default 127.0.0.1:8080)
       garboard-demo flaky FILE           fail twice per boot, counted in FILE, then succeed
";

fn main() -> ExitCode {
    if let Err(error) = end_when_asked() {
        eprintln!("handle SIGTERM: {error}");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["web"] => web::serve("0.0.0.0:8080"),
        ["web", address] => web::serve(address),
        ["client"] => client::poll("127.0.0.1:8080"),
        ["client", address] => client::poll(address),
        ["flaky", file] => flaky::run(std::path::Path::new(file)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the program, with status 0, when it is asked to by SIGTERM. Nothing here has anything to finish first.
fn end_when_asked() -> std::io::Result<()> {
    signal_hook::flag::register_conditional_shutdown(SIGTERM, 0, Arc::new(AtomicBool::new(true))).map(drop)
}
