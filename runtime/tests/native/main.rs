//! Containers started for real, on the kernel of the machine that runs the tests.
//!
//! The same executable is run as root and as an ordinary user, and has other tests for each; none is skipped. As root it works
//! in a mount namespace of its own with a cgroup2 mount of its own, so whatever a failed test leaves mounted goes with it. It
//! is also the program inside the containers, where a shell isn't enough (`probe`), and a launcher to attack (`launcher`).
//!
//! One thread: containers are started by a fork, and namespaces are entered by a thread.

/// The tests of a list of functions, named as `module::function`.
macro_rules! trials {
    ($($name:ident),+ $(,)?) => {{
        let module = module_path!().rsplit("::").next().unwrap_or_default();
        vec![$(libtest_mimic::Trial::test(format!("{module}::{}", stringify!($name)), || {
            $name();
            Ok(())
        })),+]
    }};
}

mod attacks;
mod behaviour;
mod bundle;
mod fills;
mod joining;
mod launcher;
mod ordinary;
mod probe;
mod site;
mod sys;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("probe") => std::process::exit(probe::run(&arguments[2..])),
        Some(fills::FILLER) => std::process::exit(fills::run(&arguments[2..])),
        Some("agent") => std::process::exit(bundle::agent(&arguments[2..])),
        Some("launcher") => std::process::exit(launcher::run(&arguments[2..])),
        // The interpreter of a script that names /proc/self/exe: this is the launcher's own program, run by the attacker.
        Some(launcher::TRAP) => std::process::exit(launcher::sprung()),
        _ => {}
    }
    let mut options = Arguments::from_args();
    options.test_threads = Some(1);
    let tests: Vec<Trial> = if rustix::process::geteuid().is_root() {
        [behaviour::tests(), joining::tests(), attacks::tests(), fills::tests(), bundle::tests()]
            .into_iter()
            .flatten()
            .collect()
    } else {
        ordinary::tests()
    };
    if options.list {
        libtest_mimic::run(&options, tests).exit();
    }
    let site = site::enter();
    let conclusion = libtest_mimic::run(&options, tests);
    site.leave();
    conclusion.exit();
}
