//! The harness itself, on a machine that runs nothing but the bare init.

#[path = "support/bare.rs"]
mod bare;
mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use garboard_qemu::{Ending, Error, Image, Machine, Vm, secs};
use support::{Project, fixture};
use tempfile::TempDir;

/// A kernel: that of `GARBOARD_KERNEL`, or else the one the tool bakes by default.
fn kernel() -> PathBuf {
    static BUILT: OnceLock<(Project, PathBuf)> = OnceLock::new();
    if let Some(path) = std::env::var_os("GARBOARD_KERNEL") {
        return path.into();
    }
    let build = || {
        let image = fixture("oci", "busybox");
        let project =
            Project::new(&format!("name = \"k\"\n[containers.k]\nimage = \"{image}\"\ncommand = [\"true\"]\n"))
                .shared();
        let out = project.build();
        (project, out.join("vmlinuz"))
    };
    BUILT.get_or_init(build).1.clone()
}

fn bare() -> (TempDir, Image) {
    let directory = tempfile::tempdir().unwrap();
    let initrd = bare::initrd(directory.path()).unwrap();
    let image = Image::bare(kernel(), initrd, "quiet");
    (directory, image)
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn boots_and_talks_over_the_console() {
    let (_directory, image) = bare();
    for machine in [Machine::Microvm, Machine::Q35] {
        let vm = Vm::builder(&image).machine(machine).boot().unwrap();
        let time = vm.wait_console("bare init", secs(120)).unwrap();
        println!("{machine}: bare init after {} ms", time.as_millis());
        vm.console().send(b"hello\n");
        vm.wait_line(secs(20), |line| line == "typed: hello").unwrap();
        assert_eq!(vm.ending(), None);
    }
}

#[test]
fn an_end_is_told_with_the_console() {
    let (_directory, image) = bare();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("bare init", secs(120)).unwrap();
    vm.console().send(b"end\n");
    let message = match vm.wait_console("never printed", secs(120)) {
        Err(e @ Error::Ended { ending: Ending::Reboot, .. }) => e.to_string(),
        other => panic!("{other:?}"),
    };
    // How many lines the kernel's trace has depends on where it was interrupted: the message holds its end at least.
    assert!(message.contains("never printed") && message.contains("Kernel Offset"), "{message}");
    assert!(vm.console().contains("Attempted to kill init"), "{message}");
    assert_eq!(vm.wait_exit(secs(10)).unwrap(), Ending::Reboot);
}

#[test]
fn a_machine_may_restart_itself() {
    let (_directory, image) = bare();
    let vm = Vm::builder(&image).reboot().boot().unwrap();
    vm.wait_console("bare init", secs(120)).unwrap();
    vm.console().send(b"end\n");
    let mut starts = 0;
    vm.wait_line(secs(120), |line| {
        // The kernel may have begun the line, and the echo of what was sent may have ended it.
        starts += u32::from(line.contains("bare init"));
        starts == 2
    })
    .unwrap();
    assert_eq!(vm.reboots(), 1);
}

#[test]
fn a_deadline_is_kept_and_named() {
    let (_directory, image) = bare();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("bare init", secs(120)).unwrap();
    let message = vm.wait_console("never printed", secs(1)).unwrap_err().to_string();
    assert!(message.contains("never printed") && message.contains("bare init"), "{message}");
    // Nobody listens at the status port of a bare init.
    let message = vm.wait_ready(secs(1)).unwrap_err().to_string();
    assert!(message.contains("appliance as declared"), "{message}");
}

#[test]
fn a_machine_ends_with_its_handle() {
    let (_directory, image) = bare();
    let vm = Vm::boot(&image).unwrap();
    let pid = vm.qemu_pid();
    assert!(is_running(pid));
    drop(vm);
    assert!(!is_running(pid));

    let vm = Vm::boot(&image).unwrap();
    vm.hard_stop();
    assert!(!is_running(vm.qemu_pid()));
    assert!(vm.ending().is_some());
}

#[test]
fn a_machine_outlives_the_thread_that_booted_it() {
    let (_directory, image) = bare();
    let vm = std::thread::spawn(move || Vm::boot(&image).unwrap()).join().unwrap();
    vm.wait_console("bare init", secs(120)).unwrap();
}

#[test]
fn what_qemu_refuses_is_an_error_with_its_words() {
    let (_directory, image) = bare();
    let message = Vm::builder(&image).qemu_argument("-nonsense").boot().unwrap_err().to_string();
    assert!(message.contains("QEMU refused") && message.contains("nonsense"), "{message}");
}

#[test]
fn a_disk_that_another_machine_writes_to_is_refused_before_anything_runs() {
    let (directory, image) = bare();
    let disk = directory.path().join("disk");
    std::fs::write(&disk, [0; 4096]).unwrap();
    let boot = || Vm::builder(&image).disk(&disk).boot();
    let first = boot().unwrap();
    let message = boot().unwrap_err().to_string();
    assert!(message.contains("QEMU refused") && message.contains("lock"), "{message}");
    drop(first);
    boot().unwrap();
}
