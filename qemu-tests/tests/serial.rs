//! The serial line: nobody reads it, or who reads it stalls; noise comes in; and what goes out is what it passes for.

mod support;

use garboard_qemu::{Image, Vm, secs};
use support::{BOOT, Project, fixture};

/// What Garboard itself might say.
const FORGED: &str = "garboard: all is well";
/// What it says when the line was too slow.
const TOO_FAST: &str = "lines were too fast for this console; they are kept in the log";

/// `evil` tries five ways to a line of its own: a line feed, with a carriage return, escape sequences, the terminal's own line break
/// at its right edge, and the one of ISO 6429.
const DECLARATION: &str = r#"
name = "serial"
[console]
status = false

[containers.evil]
image = "BUSYBOX"
command = ["sh", "-c", '''
while :; do
    printf '\nFORGED 1\n\rFORGED 2\n\033[2K\033[1GFORGED 3\nPADFORGED 4\n\302\205FORGED 5\n'
    sleep 2
done
''']
restart = "always"

[containers.talker]
image = "BUSYBOX"
command = ["sh", "-c", "i=0; while :; do seq 200; echo round $((i += 1)); usleep 300000; done"]
restart = "always"
"#;

fn bake() -> (Project, Image) {
    // As many columns as there are.
    let pad = "x".repeat(80 - "evil   | ".len());
    let text =
        DECLARATION.replace("PAD", &pad).replace("FORGED", FORGED).replace("BUSYBOX", &fixture("oci", "busybox"));
    let project = Project::new(&text);
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Waits until `talker` has printed some more, which PID 1 must have read.
fn talks_on(vm: &Vm) {
    let round = || -> u64 {
        let log = vm.logs("talker", 300).unwrap();
        log.iter().rev().find_map(|line| line.strip_prefix("round ")?.parse().ok()).unwrap_or(0)
    };
    let before = round();
    vm.wait_status("what is printed meanwhile", BOOT, |_| Ok(round() > before + 10)).unwrap();
}

fn noise() -> Vec<u8> {
    (0..=255_u8).cycle().take(4 << 10).collect()
}

#[test]
fn nothing_on_the_serial_line_holds_anybody_up_or_passes_for_ours() {
    let (_project, image) = bake();
    let mut vm = Vm::builder(&image).unread_console().boot().unwrap();
    nobody_reads(&mut vm);
    nothing_passes_for_ours(&vm);
    a_reader_stalls(&vm);
    vm.wait_ready(BOOT).unwrap();
    let status = vm.status().unwrap();
    assert!(status.containers.iter().all(|c| c.restarts == 0), "{}", status.table());
    vm.power_off(secs(60)).unwrap();
}

fn nobody_reads(vm: &mut Vm) {
    vm.wait_ready(BOOT).unwrap();
    vm.console().send(&noise());
    talks_on(vm);
    assert_eq!(vm.console().transcript(), "");
    // What was too much for the line was counted, and it is alive when a reader comes.
    vm.read_console();
    vm.wait_console(TOO_FAST, secs(60)).unwrap();
    vm.wait_console("talker | round ", secs(60)).unwrap();
}

fn nothing_passes_for_ours(vm: &Vm) {
    vm.wait_console(&format!("{FORGED} 5"), secs(60)).unwrap();
    let console = vm.console().transcript();
    // The serial driver ends each line by both.
    let lines: Vec<&str> = console.split("\r\n").collect();
    let forged = console.split(['\n', '\r']).find(|line| line.starts_with(FORGED));
    assert_eq!(forged, None, "{console}");
    let steers = |c: char| c.is_control() && c != '\n' && c != '\r';
    assert!(!console.contains(steers), "{:?}", lines.iter().find(|line| line.contains(steers)));
    assert!(lines.iter().all(|line| !line.contains(['\n', '\r'])), "a bare line end: {console:?}");
    let long = lines.iter().find(|line| line.contains(" | ") && line.chars().count() > 80);
    assert_eq!(long, None);
    for number in 1..=5 {
        assert!(console.contains(&format!("{FORGED} {number}")), "{number} is there, in its place: {console}");
    }
    // The control: the container's log has it as it was printed.
    let log = vm.logs("evil", 20).unwrap();
    assert!(log.iter().any(|line| line == &format!("\x1b[2K\x1b[1G{FORGED} 3")), "{log:?}");
}

fn a_reader_stalls(vm: &Vm) {
    let console = vm.console();
    console.hold();
    console.send(&noise());
    // One more piece is read. Then the line fills up, for as long as this takes.
    talks_on(vm);
    let seen = console.transcript().len();
    for _ in 0..5 {
        talks_on(vm);
    }
    assert_eq!(console.transcript().len(), seen, "the line was read");
    let before = console.transcript().matches(TOO_FAST).count();
    console.go_on();
    vm.wait_status("lines again", BOOT, |_| {
        let text = console.transcript();
        let new = text.get(seen..).is_some_and(|new| new.contains("talker | round "));
        Ok(new && text.matches(TOO_FAST).count() > before)
    })
    .unwrap();
}

/// The kernel is made to name a process that it kills, by a name of the process's own choice.
const GLUTTON: &str = r#"
name = "glutton"
[containers.glutton]
image = "BUSYBOX"
command = ["sh", "-c", '''
name=$(printf '/busybox\033c\rgarb')
cp /bin/busybox "$name"
while :; do "$name" tail /dev/zero; done
''']
mem_limit = "16m"
restart = "always"
"#;

#[test]
fn what_the_kernel_says_of_a_container_steers_nothing() {
    let project = Project::new(&GLUTTON.replace("BUSYBOX", &fixture("oci", "busybox")));
    let vm = Vm::boot(&Image::load(project.build_without_disk()).unwrap()).unwrap();
    let said = "[kernel] | Memory cgroup out of memory: Killed process";
    vm.wait_console(said, BOOT).unwrap();
    // Where its row ends depends on the process's number.
    vm.wait_console("(busybox\\x1bc\\x0d", secs(60)).unwrap();
    let console = vm.console().transcript();
    assert!(!console.contains(|c: char| c.is_control() && c != '\n' && c != '\r'), "{console:?}");
    // Each line is ended by both, and by nothing else.
    assert!(console.split("\r\n").all(|line| !line.contains(['\n', '\r'])), "{console:?}");
    vm.power_off(secs(60)).unwrap();
}
