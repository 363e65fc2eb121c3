//! The dashboard on a real machine's serial line: opened, read and closed by keys, seen by a terminal emulator.

#[path = "support/screen.rs"]
mod screen;
mod support;

use std::time::{Duration, Instant};

use garboard_qemu::{Image, Vm, secs};
use screen::{PATIENCE, terminal, wait_screen};
use support::{BOOT, Project, fixture};

fn bake() -> (Project, Image) {
    let project = Project::new(
        &r#"
        name = "console"
        [console]
        access = "status"

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
        "#
        .replace("BUSYBOX", &fixture("oci", "busybox")),
    );
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

fn lines(vm: &Vm) -> usize {
    vm.console().transcript().matches("| count ").count()
}

#[test]
fn the_dashboard_is_opened_read_and_closed_over_the_serial_line() {
    let (_project, image) = bake();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("| count 2", BOOT).unwrap();
    assert!(!terminal(&vm).screen().alternate_screen(), "nothing is drawn until a key comes");
    // What would hold the line back, or end whoever reads it.
    vm.console().send(b"\x13\x1c\x04");
    vm.console().send(b" ");
    let screen = wait_screen(&vm, ">counter");
    for text in ["console", "STATE", "running", "exited with status 7", "EVENTS", "q quit"] {
        assert!(screen.contains(text), "{text}\n{screen}");
    }
    let before = lines(&vm);
    vm.console().send(b"l");
    wait_screen(&vm, "LOG OF counter  following");
    let screen = wait_screen(&vm, "\\x1b[2J\\x1b[1;1Hgarboard: all is lost\\x07");
    assert!(screen.contains("| count 1"), "{screen}");
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
    // No key changes anything here.
    vm.console().send(b"s");
    wait_screen(&vm, "only shows");
    vm.console().send(b"q");
    vm.wait_console("lines were not shown meanwhile", PATIENCE).unwrap();
    let after = terminal(&vm);
    assert!(!after.screen().alternate_screen() && !after.screen().hide_cursor());
    let until = Instant::now() + PATIENCE;
    while lines(&vm) < before + 2 {
        assert!(Instant::now() < until, "no lines again\n{}", vm.console().tail(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    vm.power_off(secs(60)).unwrap();
}
