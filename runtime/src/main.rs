//! `garboard-runtime`: the OCI runtime command line. See [`garboard_runtime::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    garboard_runtime::cli::main()
}
