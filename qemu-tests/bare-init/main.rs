//! The least that can be PID 1: prints one line and repeats what is typed. The boot benchmark compares with it.
//!
//! Compiled by `rustc` alone into a static program; without a Cargo target of its own, so that no build of the workspace makes it.

use std::io::{BufRead, Write};

fn main() {
    let mut console = std::io::stdout();
    let _ = console.write_all(b"bare init\n");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line.trim() == "end" {
            // The kernel panics when PID 1 ends, and restarts.
            std::process::exit(3);
        }
        let _ = writeln!(console, "typed: {}", line.trim());
    }
    loop {
        std::thread::park();
    }
}
