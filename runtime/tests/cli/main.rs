//! The OCI command line, driven as its callers do: as a program, by its flags, output and exit status.
//!
//! The same executable is run as root and as an ordinary user, and has other tests for each; none is skipped. As root it works
//! in a mount namespace of its own with a cgroup2 mount on /sys/fs/cgroup.

mod attacks;
mod callers;
mod exec;
mod faults;
mod hooks;
mod ids;
mod images;
mod images_of_layers;
mod images_of_terminals;
mod layers;
mod lifecycle;
mod limits;
mod mounts;
mod ordinary;
mod refusals;
mod rootless;
mod shared_mounts;
mod site;
mod streams;
mod sys;
mod systemd;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if std::env::args().nth(1).as_deref() == Some(lifecycle::WITHOUT_FIRST_THREAD) {
        lifecycle::go_on_without_the_first_thread();
    }
    if let (Some(images_of_terminals::TALK), Some(directory)) =
        (std::env::args().nth(1).as_deref(), std::env::args().nth(2))
    {
        images_of_terminals::talk(directory.as_ref());
    }
    let arguments = Arguments::from_args();
    let tests: Vec<Trial> = if rustix::process::geteuid().is_root() {
        [
            lifecycle::tests(),
            limits::tests(),
            refusals::tests(),
            hooks::tests(),
            streams::tests(),
            exec::tests(),
            faults::tests(),
            rootless::tests(),
            ids::tests(),
            mounts::tests(),
            shared_mounts::tests(),
            systemd::tests(),
            images::tests(),
            images_of_layers::tests(),
            images_of_terminals::tests(),
            layers::tests(),
            callers::tests(),
            attacks::tests(),
        ]
        .concat_all()
    } else {
        [ordinary::tests(), exec::for_everybody(), limits::without_a_cgroup(), systemd::without_a_manager()]
            .concat_all()
    };
    if arguments.list {
        libtest_mimic::run(&arguments, tests).exit();
    }
    let site = site::enter();
    let conclusion = libtest_mimic::run(&arguments, tests);
    site.leave();
    conclusion.exit();
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Trial>;
}

impl<const N: usize> ConcatAll for [Vec<Trial>; N] {
    fn concat_all(self) -> Vec<Trial> {
        self.into_iter().flatten().collect()
    }
}

/// Trials of these functions, named as they are.
#[macro_export]
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$({
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            libtest_mimic::Trial::test(format!("{module}::{}", stringify!($name)), || {
                $name();
                Ok(())
            })
        }),*]
    };
}
