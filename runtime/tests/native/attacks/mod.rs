//! Attacks from inside a container or an image, each with its negative control: with that defence off, the same attack succeeds.

mod calls;
mod descriptors;
mod limits;
mod machine;
mod neighbours;
mod paths;
mod privileges;
mod race;

use garboard_runtime::launch::Launch;
use libtest_mimic::Trial;

use crate::site::{Container, fields};

pub fn tests() -> Vec<Trial> {
    [
        descriptors::tests(),
        limits::tests(),
        paths::tests(),
        race::tests(),
        machine::tests(),
        privileges::tests(),
        calls::tests(),
        neighbours::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn powerful(launch: &mut Launch) {
    launch.seccomp = None;
    launch.process.no_new_privileges = false;
    let all = (1 << 41) - 1;
    let sets = &mut launch.process.capabilities;
    (sets.bounding, sets.effective, sets.permitted) = (all, all, all);
}

/// The machine's own root, without a filter: what a container is when everything is declared away. It has the capabilities
/// that the tests themselves have.
fn as_machine_root(container: Container) -> Container {
    let status = fields(&std::fs::read_to_string("/proc/self/status").unwrap());
    let own = u64::from_str_radix(&status["CapPrm"], 16).unwrap();
    container.options(|o| o.ids = None).change(move |launch| {
        powerful(launch);
        let sets = &mut launch.process.capabilities;
        (sets.bounding, sets.effective, sets.permitted) = (own, own, own);
    })
}
