//! The dashboard on a real machine's serial line: opened, read and closed by keys, seen by a terminal emulator.

#[path = "support/screen.rs"]
mod screen;
mod support;

use std::time::{Duration, Instant};

use garboard_qemu::{Image, Snapshot, Vm, secs};
use screen::{PATIENCE, terminal, wait_screen};
use support::{BOOT, Project, fixture};

fn bake() -> (Project, Image) {
    let project = Project::new(
        &r#"
        name = "console"
        [console]
        access = "status"

        # Then errors are still the kernel's own to print.
        [kernel]
        cmdline = ["loglevel=5"]

        [containers.counter]
        image = "BUSYBOX"
        command = ["sh", "-c", '''
        printf '\033[2J\033[1;1Hgarboard: all is lost\007\n'
        i=0; while :; do echo count $((i += 1)); sleep 1; done
        ''']
        restart = "always"

        [containers.job]
        image = "BUSYBOX"
        command = ["sh", "-c", "exit 7"]

        # The kernel prints it as it does its own.
        [containers.kernel]
        image = "BUSYBOX"
        command = ["sh", "-c", "while :; do echo '<3>a noise of the kernel' >/dev/kmsg; sleep 1; done"]
        devices = ["/dev/kmsg:/dev/kmsg:w"]
        "#
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

fn lines(vm: &Vm) -> usize {
    vm.console().transcript().matches("| count ").count()
}

fn noises(vm: &Vm) -> usize {
    vm.console().transcript().matches("a noise of the kernel").count()
}

fn wait_more(vm: &Vm, count: fn(&Vm) -> usize, before: usize) {
    let until = Instant::now() + PATIENCE;
    while count(vm) < before + 2 {
        assert!(Instant::now() < until, "no more lines\n{}", vm.console().tail(20));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_dashboard_is_opened_read_and_closed_over_the_serial_line() {
    let (_project, image) = bake();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("| count 2", BOOT).unwrap();
    wait_more(&vm, noises, 0);
    assert!(!terminal(&vm).screen().alternate_screen(), "nothing is drawn until a key comes");
    // What would hold the line back, or end whoever reads it.
    vm.console().send(b"\x13\x1c\x04");
    vm.console().send(b" ");
    for text in [">counter", "console", "STATE", "running", "exited with status 7", "EVENTS", "q quit"] {
        wait_screen(&vm, text);
    }
    let (before, noise) = (lines(&vm), noises(&vm));
    vm.console().send(b"l");
    wait_screen(&vm, "LOG OF counter  following");
    wait_screen(&vm, "\\x1b[2J\\x1b[1;1Hgarboard: all is lost\\x07");
    wait_screen(&vm, "| count 1");
    let next = vm.logs("counter", 1).unwrap();
    wait_screen(&vm, next.first().unwrap());
    vm.console().send(b"e");
    wait_screen(&vm, "EVENTS");
    vm.console().send(b"t");
    wait_screen(&vm, "launched counter");
    vm.console().send(b"f");
    wait_screen(&vm, "KERNEL");
    vm.console().send(b"\x1b");
    wait_screen(&vm, "CONTAINER");
    vm.console().send(b"\x1b[B");
    wait_screen(&vm, ">job");
    let counted = |vm: &Vm| vm.logs("counter", 1_000).unwrap().len();
    wait_more(&vm, counted, counted(&vm));
    assert_eq!(noises(&vm), noise, "the kernel prints nothing over it");
    // No key changes anything here.
    vm.console().send(b"s");
    wait_screen(&vm, "only shows");
    vm.console().send(b"q");
    vm.wait_console("lines were not shown meanwhile", PATIENCE).unwrap();
    let after = terminal(&vm);
    assert!(!after.screen().alternate_screen() && !after.screen().hide_cursor());
    wait_more(&vm, lines, before);
    wait_more(&vm, noises, noise);
    vm.power_off(secs(60)).unwrap();
}

/// Of `ahoy`.
const HASH: &str = "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$m1HppyFY2I7QV4fEGkSFZ95UHJU4TTLULQxwISHtY0w";

/// Docker's `unless-stopped`, where there is a data partition to keep it.
#[test]
fn what_was_stopped_at_the_console_stays_stopped_over_a_boot() {
    let declaration = r#"
        name = "stops"
        [console]
        access = "control"
        passphrase_hash = "HASH"
        [volumes.kept]

        [containers.stays]
        image = "BUSYBOX"
        command = ["sleep", "100000"]
        restart = "unless-stopped"
        [containers.returns]
        image = "BUSYBOX"
        command = ["sleep", "100000"]
        restart = "always"
        volumes = ["kept:/kept"]
    "#;
    let project = Project::new(&declaration.replace("HASH", HASH).replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    let boot = || {
        let vm = Vm::builder(&image).state(project.path("state")).boot().unwrap();
        vm.wait_state("returns", "running", BOOT).unwrap();
        vm
    };
    let ask = |vm: &Vm, keys: &[u8]| {
        vm.console().send(b"\r");
        wait_screen(vm, ">stays");
        vm.console().send(keys);
        wait_screen(vm, "passphrase (not shown");
        vm.console().send(b"ahoy\r");
    };
    let vm = boot();
    vm.wait_state("stays", "running", BOOT).unwrap();
    ask(&vm, b"s");
    vm.wait_state("stays", "exited", BOOT).unwrap();
    vm.console().send(b"js");
    vm.wait_state("returns", "exited", BOOT).unwrap();
    vm.power_off(secs(60)).unwrap();

    let vm = boot();
    vm.wait_state("stays", "exited", BOOT).unwrap();
    let stays = vm.status().unwrap().container("stays").unwrap().clone();
    assert_eq!((stays.detail.as_str(), stays.exit, stays.as_declared), ("stopped by hand", None, false));
    ask(&vm, b"a");
    let runs = |snapshot: &Snapshot| snapshot.container("stays").is_some_and(|container| container.state == "running");
    vm.wait_status("started by hand", BOOT, |snapshot| Ok(runs(snapshot))).unwrap();
    vm.power_off(secs(60)).unwrap();

    let vm = boot();
    vm.wait_state("stays", "running", BOOT).unwrap();
    vm.power_off(secs(60)).unwrap();
}
