//! PID 1's event loop with real containers, as an ordinary process. Needs root, for namespaces and cgroups.
//!
//! The executable is also that process (`supervisor`), and what it executes when it crashes.

mod console;
mod crash;
mod events;
mod flood;
mod kept;
mod last_words;
mod launchers;
mod lifecycle;
mod many;
mod memory;
mod pictures;
mod readers;
mod rig;
mod shutdown;
mod stops;
mod supervisor;
mod volumes;
mod watchdog;
mod watched;
mod workers;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["garboard-init", "--resume", state, highest, since, reason] => {
            supervisor::resume(state, highest, since, reason)
        }
        [_, "supervisor", plan, run_dir, cgroup, policy, fate] => {
            supervisor::begin(plan, run_dir, cgroup, policy, fate)
        }
        // These ones' bodies are real.
        ["garboard-worker", "volumes", ..] => std::process::exit(garboard_init::work::run("volumes", &arguments[2..])),
        ["garboard-worker", "health", ..] => std::process::exit(garboard_init::work::run("health", &arguments[2..])),
        ["garboard-worker", "launch", ..] => {
            if std::path::Path::new("no-launchers").exists() {
                std::process::exit(2);
            }
            std::process::exit(garboard_init::work::run("launch", &arguments[2..]))
        }
        ["garboard-worker", "shell", ..] => std::process::exit(garboard_init::work::run("shell", &arguments[2..])),
        ["garboard-worker", kind @ ("keep" | "previous"), ..] => {
            std::process::exit(garboard_init::work::run(kind, &arguments[2..]))
        }
        ["garboard-worker", "passphrase"] => std::process::exit(garboard_init::work::run("passphrase", &[])),
        ["garboard-worker", "words", ..] => std::process::exit(garboard_init::work::run("words", &arguments[2..])),
        ["garboard-worker", "stop", ..] => {
            garboard_init::work::words::end(&arguments[2..]);
            std::process::exit(workers::run("stop"))
        }
        ["garboard-worker", "stopped", ..] => std::process::exit(stops::keep(&arguments[2..])),
        ["garboard-worker", kind] => std::process::exit(workers::run(kind)),
        _ => {}
    }
    let tests = [
        lifecycle::TESTS,
        crash::TESTS,
        shutdown::TESTS,
        flood::TESTS,
        workers::TESTS,
        stops::TESTS,
        volumes::TESTS,
        kept::TESTS,
        watchdog::TESTS,
        watched::TESTS,
        last_words::TESTS,
        console::TESTS,
        pictures::tests(),
        events::TESTS,
        readers::TESTS,
        launchers::TESTS,
        many::TESTS,
        memory::TESTS,
    ]
    .concat();
    let trial = |(name, test): (&str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().map(trial).collect()).exit();
}
