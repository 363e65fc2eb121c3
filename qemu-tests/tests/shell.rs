//! A shell in a container, over a real machine's serial line, for who says the passphrase.

#[path = "support/screen.rs"]
mod screen;
mod support;

use garboard_qemu::{Image, Vm, secs};
use screen::{PATIENCE, terminal, wait_screen, wait_terminal};
use support::{BOOT, Project, fixture};

/// The hash is of `ahoy`, and as weak as a test may be quick.
const DECLARATION: &str = r#"
name = "shell"
[console]
access = "control"
passphrase_hash = "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$m1HppyFY2I7QV4fEGkSFZ95UHJU4TTLULQxwISHtY0w"

[containers.counter]
image = "BUSYBOX"
command = ["sh", "-c", "i=0; while :; do echo count $((i += 1)); sleep 1; done"]
restart = "always"
"#;

#[test]
fn a_shell_over_the_serial_line_is_for_who_says_the_passphrase() {
    let project = Project::new(&DECLARATION.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_console("| count 2", BOOT).unwrap();
    let press = |keys: &str| vm.console().send(keys.as_bytes());
    press(" ");
    wait_screen(&vm, ">counter");

    // A wrong one opens nothing.
    press("x");
    wait_screen(&vm, "passphrase (not shown");
    press("alas\r");
    wait_screen(&vm, "that is not the passphrase");
    assert!(!vm.console().contains("leaves this shell"));
    // The next try has to wait for a second or so.
    wait_terminal(&vm, "another question", |terminal| {
        let shown = terminal.screen().contents().contains("passphrase (not shown");
        if !shown {
            press("x");
            std::thread::sleep(secs(1));
        }
        shown
    });
    press("ahoy\r");
    wait_screen(&vm, "Ctrl-] leaves this shell");
    assert!(!terminal(&vm).screen().alternate_screen(), "the terminal is the shell's");

    // It is in the container, on a terminal of its own, and the line is its own too.
    press("test -t 0 && echo is $((6 * 7)) of $(hostname), $(cat /proc/1/comm)\r");
    // With the prompt after it, and where the shell asks for the cursor's place: it has said all by then.
    vm.wait_console("is 42 of counter, sh\r\n/ # \u{1b}[6n", PATIENCE).unwrap();
    let printed = vm.console().transcript().len();
    let log = vm.logs("counter", 1).unwrap();
    vm.wait_status("further lines", PATIENCE, |_| Ok(vm.logs("counter", 1)? != log)).unwrap();
    assert_eq!(vm.console().transcript().len(), printed, "somebody else prints: {}", vm.console().tail(10));

    press("exit\r");
    let drawn = |terminal: &vt100::Parser| terminal.screen().alternate_screen();
    let screen = wait_terminal(&vm, "the dashboard again", drawn);
    assert!(screen.screen().hide_cursor());
    wait_screen(&vm, ">counter");
    press("q");
    vm.wait_console("lines were not shown meanwhile", PATIENCE).unwrap();
    assert!(!terminal(&vm).screen().alternate_screen());
    let console = vm.console().transcript();
    assert!(!console.contains("ahoy") && !console.contains("alas"), "it is shown: {console}");
    let status = vm.status().unwrap();
    assert_eq!(status.container("counter").unwrap().restarts, 0);
    vm.power_off(secs(60)).unwrap();
}
