//! Podman, containerd and Docker as Debian has them, with this runtime under them: what people do with them first, done as they do it.
//!
//! As root everything is private to the tests: mounts, network, cgroup2 mount, state directories, a containerd and a dockerd of
//! their own, and an account with ids of its own for Podman without root. An ordinary user without an account runs what one id is
//! enough for.
//! `GARBOARD_MACHINE=1` says that this is a machine made for these tests, whose cgroups have controllers: limits are tested there
//! and nowhere else, of the rest only the most important.

mod command;
mod containerd;
mod controllers;
mod docker;
mod podman;
mod site;
mod sys;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    let machine = std::env::var_os("GARBOARD_MACHINE").is_some();
    let site = (!arguments.list).then(|| site::enter(machine));
    let conclusion = libtest_mimic::run(&arguments, tests(root, machine));
    if let Some(site) = site {
        docker::stop();
        containerd::stop();
        podman::leave_all();
        site.leave();
    }
    conclusion.exit();
}

fn tests(root: bool, machine: bool) -> Vec<Trial> {
    match (root, machine) {
        (false, _) => podman::for_everybody(&podman::ALONE),
        (true, true) => {
            let mut tests = Vec::new();
            for podman in [&podman::ROOT, &podman::RANGES] {
                tests.extend(podman::in_short(podman));
                tests.extend(controllers::of_podman(podman));
            }
            tests.extend(containerd::in_short());
            tests.extend(controllers::of_containerd());
            tests
        }
        (true, false) => {
            let mut tests = podman::for_everybody(&podman::ROOT);
            tests.extend(podman::for_everybody(&podman::RANGES));
            tests.extend(podman::with_ids(&podman::ROOT));
            tests.extend(podman::with_ids(&podman::RANGES));
            tests.extend(podman::for_root(&podman::ROOT));
            tests.extend(podman::without_root(&podman::RANGES));
            tests.extend(containerd::tests());
            tests.extend(docker::tests());
            tests
        }
    }
}

/// Trials of these functions with this Podman, named as the Podman and they are.
#[macro_export]
macro_rules! trials_of {
    ($podman:expr; $($name:ident),* $(,)?) => {{
        let podman: &'static Podman = $podman;
        vec![$(libtest_mimic::Trial::test(format!("podman_{}::{}", podman.name(), stringify!($name)), move || {
            $name(podman);
            Ok(())
        })),*]
    }};
}
