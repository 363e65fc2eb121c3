//! How long an appliance takes to the first line of a container, against the least that is possible on the same machine: a
//! static init that loads nothing and only prints.

#[path = "support/bare.rs"]
mod bare;
mod support;

use std::time::Duration;

use garboard_qemu::{Image, Machine, Vm, secs};
use support::{Project, fixture};

/// Boots of each, alternating; the fastest of each counts, as everything that disturbs a boot makes it slower.
const ROUNDS: usize = 5;
/// How much longer than the bare init an appliance may take.
const LIMIT: f64 = 1.25;

fn time_to(image: &Image, machine: Machine, line: &str) -> Duration {
    let vm = Vm::builder(image).machine(machine).boot().unwrap();
    vm.wait_console(line, secs(120)).unwrap()
}

fn compare(appliance: &Image, bare: &Image, machine: Machine) {
    let (mut least, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        least.push(time_to(bare, machine, "bare init"));
        ours.push(time_to(appliance, machine, "first | first line"));
    }
    let [least, ours] = [least, ours].map(|times| times.into_iter().min().unwrap().as_secs_f64());
    println!("{machine}: bare init {least:.3} s, first container {ours:.3} s, ratio {:.3}", ours / least);
    assert!(ours <= LIMIT * least, "{machine}: {ours:.3} s is more than {LIMIT} times {least:.3} s");
}

/// One test for both machines, so that they don't run at the same time and disturb each other.
#[test]
fn first_container_line_comes_soon_after_the_least_possible_boot() {
    let project = Project::new(&format!(
        "name = \"fast\"\n[containers.first]\nimage = \"{}\"\ncommand = [\"echo\", \"first line\"]\n",
        fixture("oci", "busybox")
    ));
    let appliance = Image::load(project.build_without_disk()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut bare = Image::bare(&appliance.kernel, bare::initrd(directory.path()).unwrap(), &appliance.cmdline);
    bare.memory_mb = appliance.memory_mb;
    compare(&appliance, &bare, Machine::Microvm);
    compare(&appliance, &bare, Machine::Q35);
}
