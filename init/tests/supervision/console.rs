//! A person at the console: keys in, a screen out.

use std::os::unix::fs::OpenOptionsExt;

use garboard_runtime::launch::{Mount, MountFlags, MountSource};
use garboard_runtime::plan::{self, Access, Restart};

use crate::rig::{Rig, Setup, TERMINAL, changed, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[
    ("console::a_key_opens_the_dashboard_and_q_brings_lines_back", a_key_opens_the_dashboard_and_q_brings_lines_back),
    ("console::a_log_is_followed_and_held_while_somebody_reads", a_log_is_followed_and_held_while_somebody_reads),
    ("console::what_the_kernel_warns_of_is_on_the_screen", what_the_kernel_warns_of_is_on_the_screen),
    ("console::nothing_changes_without_the_passphrase", nothing_changes_without_the_passphrase),
    ("console::without_access_no_key_does_anything", without_access_no_key_does_anything),
    ("console::nothing_typed_holds_the_console_up", nothing_typed_holds_the_console_up),
    ("console::a_shell_has_the_line_until_it_ends", a_shell_has_the_line_until_it_ends),
    ("console::a_shell_opens_where_nothing_else_happens", a_shell_opens_where_nothing_else_happens),
    ("console::a_program_s_name_is_no_line_of_ours", a_program_s_name_is_no_line_of_ours),
    ("console::a_shell_leaves_the_line_to_a_machine_that_stops", a_shell_leaves_the_line_to_a_machine_that_stops),
    ("console::wrong_passphrases_are_counted_over_a_crash", wrong_passphrases_are_counted_over_a_crash),
    ("console::the_kernel_is_quiet_while_the_dashboard_is_open", the_kernel_is_quiet_while_the_dashboard_is_open),
    ("console::the_kernel_s_errors_are_ours_to_print", the_kernel_s_errors_are_ours_to_print),
    ("console::a_line_that_has_hung_up_is_listened_to_again", a_line_that_has_hung_up_is_listened_to_again),
    ("console::a_line_without_keys_is_printed_to_again", a_line_without_keys_is_printed_to_again),
    ("console::a_crash_without_a_line_forgets_no_wrong_passphrase", a_crash_without_a_line_forgets_no_wrong_passphrase),
    ("console::a_crash_gives_the_terminal_its_lines_back", a_crash_gives_the_terminal_its_lines_back),
];

/// Of `ahoy`.
pub const HASH: &str = "$argon2id$v=19$m=256,t=1,p=1$c29tZXNhbHQ$m1HppyFY2I7QV4fEGkSFZ95UHJU4TTLULQxwISHtY0w";

fn counter() -> plan::Container {
    with(Restart::Always, shell("count", "i=0; while true; do echo number $i; i=$((i+1)); usleep 50000; done"))
}

fn at_a_terminal(access: Access, containers: Vec<plan::Container>) -> Rig {
    Rig::with(containers, Setup { access: Some(access), ..Setup::default() })
}

fn a_key_opens_the_dashboard_and_q_brings_lines_back() {
    let rig = at_a_terminal(Access::Status, vec![counter(), shell("once", "echo done; exit 3")]);
    rig.wait_console("count | number 2");
    rig.press(" ");
    rig.wait_screen(">count");
    rig.wait_screen("exited with status 3");
    rig.wait_screen("q quit");
    assert!(rig.screen().alternate_screen() && rig.screen().hide_cursor());
    let (columns, rows) = TERMINAL;
    let screen: Vec<String> = rig.screen().rows(0, columns).collect();
    assert_eq!(screen.len(), usize::from(rows));
    assert!(screen[usize::from(rows) - 1].contains("q quit"), "it takes the terminal's size: {screen:?}");
    let before = rig.console().matches("number").count();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(rig.console().matches("number").count(), before, "no lines between");
    rig.press("q");
    rig.wait_console("lines were not shown meanwhile");
    rig.until("lines go on", |rig| rig.console().matches("number").count() > before + 3);
    assert!(!rig.screen().alternate_screen() && !rig.screen().hide_cursor());
}

fn a_log_is_followed_and_held_while_somebody_reads() {
    let mut rig = at_a_terminal(Access::Status, vec![counter()]);
    rig.wait("some lines", |_| true);
    rig.until("many lines", |rig| rig.console().contains("number 60"));
    rig.press("\r");
    rig.wait_screen(">count");
    rig.press("\r");
    rig.wait_screen("LOG OF count  following");
    let number = rig.log("count").len() + 20;
    rig.wait_screen(&format!("| number {number}"));
    rig.press("\x1b[5~");
    rig.wait_screen("held while you read");
    // Drawn to the end. What stands above the log goes on: how long the machine has been up, and PID 1's memory.
    let log = |rig: &Rig| {
        let screen = rig.screen().contents();
        screen.split_once("LOG OF count").map(|(_, log)| log.to_owned()).expect("the log's heading")
    };
    let mut held = String::new();
    rig.until("at rest", |rig| {
        let before = std::mem::replace(&mut held, log(rig));
        std::thread::sleep(std::time::Duration::from_millis(100));
        before == held
    });
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(log(&rig), held, "what is read stays");
    rig.press("\x1b[F");
    let number = rig.log("count").len() + 5;
    rig.wait_screen(&format!("| number {number}"));
    rig.press("\x1b");
    rig.wait_screen("CONTAINER");
}

fn what_the_kernel_warns_of_is_on_the_screen() {
    let mut rig = Rig::with(
        vec![shell("calm", "exec sleep 10000")],
        Setup { access: Some(Access::Status), kernel: true, ..Setup::default() },
    );
    rig.wait_state("calm", "running");
    rig.kernel_says(3, 2, b"blk_update_request: I/O error, dev vdb");
    rig.press(" ");
    rig.wait_screen(">calm");
    rig.press("m");
    rig.wait_screen("WARNINGS OF THE KERNEL  following");
    rig.wait_screen("00:00:02.0 | blk_update_request: I/O error, dev vdb");
    // What comes while it is looked at: bytes that would steer the terminal, and what is less urgent than a warning.
    rig.kernel_says(6, 3, b"eth0: link is up");
    rig.kernel_says(4, 4, b"usb \x1b[2J\xc2\x9b31m\x9bx");
    rig.wait_screen("00:00:04.0 | usb \\x1b[2J\\u{9b}31m\\x9bx");
    assert!(!rig.screen().contents().contains("link is up"));
    // It is held while somebody reads, and followed again.
    (5..60).for_each(|n| rig.kernel_says(4, n, format!("warning {n}").as_bytes()));
    rig.wait_screen("| warning 59");
    rig.press("\x1b[5~");
    rig.wait_screen("held while you read");
    rig.kernel_says(4, 60, b"the newest");
    let newest = |rig: &mut Rig| rig.ask(serde_json::json!({"request": "logs", "tail": 1}))["lines"][0]["text"].clone();
    let kept = (0..1_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        newest(&mut rig) == "the newest"
    });
    assert!(kept);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert!(!rig.screen().contents().contains("| the newest"));
    rig.press("\x1b[F");
    rig.wait_screen("| the newest");
    rig.press("q");
    rig.wait_screen("CONTAINER");
}

fn nothing_changes_without_the_passphrase() {
    let rig = at_a_terminal(Access::Control(HASH.into()), vec![counter()]);
    rig.press("\r");
    rig.wait_screen(">count");
    rig.press("r");
    rig.wait_screen("passphrase (not shown");
    rig.press("alas\r");
    rig.wait_screen("that is not the passphrase");
    rig.press("r");
    rig.wait_screen("ask again in");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    rig.press("r");
    rig.wait_screen("passphrase (not shown");
    rig.press("ahoz\x7fy\r");
    rig.wait_screen("restart count");
    rig.press("s");
    rig.wait_screen("stop count");
    assert!(!rig.console().contains("ahoy") && !rig.console().contains("alas"), "nothing of it is shown");
}

/// A container in which a terminal can be made.
fn with_terminals(container: plan::Container) -> plan::Container {
    let options = ["newinstance", "ptmxmode=0666", "mode=0620"].map(String::from).into();
    let source = MountSource::Filesystem { fstype: "devpts".into(), device: None, options, copy_up: false };
    changed(container, |launch| {
        launch.mounts.push(Mount { target: "/dev/pts".into(), source, flags: MountFlags::default() });
        launch.populate_dev = true;
    })
}

fn a_shell_has_the_line_until_it_ends() {
    let bare = shell("bare", "exec sleep 10000");
    let rig = at_a_terminal(Access::Control(HASH.into()), vec![with_terminals(counter()), bare]);
    rig.press("\r");
    rig.wait_screen(">count");
    rig.press("x");
    rig.wait_screen("passphrase (not shown");
    rig.press("ahoy\r");
    rig.wait_screen("Ctrl-] leaves this shell");
    let screen = rig.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the terminal is the shell's");
    // It is in the container, and a terminal is its own.
    rig.press("test -t 0 && echo is $((6 * 7)) of $(cat /proc/1/comm)\r");
    rig.wait_screen("is 42 of sh");
    // A program that goes down in its column does so at the person's terminal too.
    rig.press("stty -opost; printf 'one\\ntwo%s' '!'; stty opost\r");
    rig.until("all is said", |rig| {
        rig.console().rsplit_once("two!").is_some_and(|(_, rest)| rest.ends_with("# \x1b[6n"))
    });
    assert!(rig.console().contains("one\ntwo!"), "a line's end became more: {:?}", rig.console());
    let shown = rig.console().len();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(rig.console().len(), shown, "nobody else prints meanwhile");
    rig.press("exit\r");
    rig.wait_screen(">count");
    rig.until("drawn again", |rig| rig.screen().alternate_screen());
    // The passphrase was said already. Ctrl-] ends what runs in the foreground.
    rig.press("x");
    rig.until("a shell again", |rig| rig.console().matches("leaves this shell").count() == 2);
    rig.press("sleep 5000\r\x1d");
    rig.until("drawn again", |rig| rig.screen().alternate_screen());
    rig.wait_screen(">count");
    // Where there can't be one, the screen says why.
    rig.press("jx");
    rig.wait_screen("shell: ");
    rig.press("q");
    rig.wait_console("lines were not shown meanwhile; what containers printed is in their logs\r\n");
}

/// A rig with the first container selected and a shell in it.
fn in_a_shell(containers: Vec<plan::Container>) -> Rig {
    let rig = at_a_terminal(Access::Control(HASH.into()), containers);
    rig.press("\r");
    rig.wait_screen(">");
    rig.press("x");
    rig.wait_screen("passphrase (not shown");
    rig.press("ahoy\r");
    rig.wait_screen("Ctrl-] leaves this shell");
    rig
}

fn a_shell_opens_where_nothing_else_happens() {
    let rig = in_a_shell(vec![with_terminals(shell("quiet", "exec sleep 10000"))]);
    for shells in 2..5 {
        // Insert mode, line drawing and reports of the mouse don't stay.
        rig.press("printf '\\033[4h\\033(0\\033[?1000h'\r");
        rig.press("\x1d");
        rig.wait_screen(">quiet");
        assert_eq!(rig.screen().mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        rig.press("x");
        rig.until("another shell", |rig| rig.console().matches("leaves this shell").count() == shells);
    }
}

fn a_program_s_name_is_no_line_of_ours() {
    let forger = changed(shell("forger", "true"), |launch| {
        launch.process.args = vec!["/nowhere\ngarboard: all is well".into()];
    });
    let mut rig = Rig::new(vec![forger]);
    rig.wait_state("forger", "failed");
    rig.wait_console("all is well");
    assert!(!rig.console().lines().any(|line| line.starts_with("garboard: all is well")), "{}", rig.console());
    assert!(!rig.status().to_string().contains("\\n"), "{}", rig.status());
}

fn a_shell_leaves_the_line_to_a_machine_that_stops() {
    let calm = shell("calm", "trap 'exit 0' TERM; while true; do usleep 20000; done");
    let mut rig = in_a_shell(vec![with_terminals(calm)]);
    rig.ask(serde_json::json!({"request": "poweroff"}));
    let (_, console) = rig.end();
    // Each line begins in the first column again.
    let (_, lines) = console.rsplit_once("leaves this shell").unwrap();
    assert!(lines.contains("garboard: ") && !lines.replace("\r\n", "").contains('\n'), "{lines:?}");
}

fn without_access_no_key_does_anything() {
    let rig = at_a_terminal(Access::Off, vec![counter()]);
    rig.wait_console("count | number 2");
    rig.press(" \r\x1b[A?q");
    let seen = rig.console().matches("number").count();
    rig.until("lines go on", |rig| rig.console().matches("number").count() > seen + 10);
    assert!(!rig.console().contains("\x1b["));
}

fn nothing_typed_holds_the_console_up() {
    let rig = at_a_terminal(Access::Status, vec![counter()]);
    rig.wait_console("count | number 2");
    // Ctrl-S holds a line back, Ctrl-C and Ctrl-\ end who reads, Ctrl-D is its end; and noise.
    rig.press("\x13\x1c\x04\x1a\0\x1b[24;80R\x1b]0;x\x07");
    let seen = rig.console().matches("number").count();
    rig.until("lines go on", |rig| rig.console().matches("number").count() > seen + 10);
    assert!(!rig.screen().alternate_screen(), "none of that is a key");
    rig.press(" \x13");
    rig.wait_screen(">count");
    let mut garbage: Vec<u8> = (0..4_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    garbage.retain(|byte| byte.is_ascii() && *byte != b'q' && *byte != 3);
    rig.press(&String::from_utf8(garbage).unwrap());
    rig.press("\x18\x1b\x1b\x1bqqq");
    rig.until("lines again", |rig| !rig.screen().alternate_screen());
}

fn a_crash_gives_the_terminal_its_lines_back() {
    let mut rig = at_a_terminal(Access::Status, vec![counter()]);
    rig.wait_state("count", "running");
    rig.press(" ");
    rig.wait_screen(">count");
    rig.signal(crate::crash::PANIC);
    rig.wait_console("PID 1 crashed and goes on");
    rig.until("lines again", |rig| !rig.screen().alternate_screen() && !rig.screen().hide_cursor());
    rig.press(" ");
    rig.wait_screen(">count");
}

fn wrong_passphrases_are_counted_over_a_crash() {
    let mut rig = at_a_terminal(Access::Control(HASH.into()), vec![counter()]);
    open_dashboard(&rig);
    (0..4).for_each(|_| say_wrong(&rig));
    rig.signal(crate::crash::PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed"));
    open_dashboard(&rig);
    rig.press("r");
    rig.wait_screen("ask again in");
    say_wrong(&rig);
    // After the fifth it is closed for a minute; after a first one it would be for a second.
    assert!(closed_for(&rig) > 8);
}

fn open_dashboard(rig: &Rig) {
    rig.press("\r");
    rig.wait_screen(">count");
}

/// Says a wrong passphrase for a restart, once one is taken.
fn say_wrong(rig: &Rig) {
    rig.until("asked", |rig| {
        rig.press("r");
        std::thread::sleep(std::time::Duration::from_millis(100));
        rig.screen().contents().contains("passphrase (not shown")
    });
    // What of those keys was too many is taken back.
    rig.press("\x15alas\r");
    rig.wait_screen("that is not the passphrase");
}

/// In how many seconds another one is taken.
fn closed_for(rig: &Rig) -> u32 {
    rig.press("r");
    rig.wait_screen("ask again in");
    let screen = rig.screen().contents();
    let seconds = screen.split("ask again in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    seconds.unwrap_or_else(|| panic!("{screen}"))
}

fn the_kernel_is_quiet_while_the_dashboard_is_open() {
    let level = |rig: &Rig| std::fs::read_to_string(rig.file("printk")).unwrap();
    let begin = || {
        let setup = Setup { access: Some(Access::Status), files: &[("printk", "7\t4\t1\t7\n")], ..Setup::default() };
        let rig = Rig::with(vec![counter()], setup);
        rig.wait_console("number 2");
        assert_eq!(level(&rig), "7\t4\t1\t7\n");
        rig.press(" ");
        rig.wait_screen(">count");
        rig.until("quiet", |rig| level(rig) == "2\n");
        rig
    };
    let rig = begin();
    rig.press("q");
    rig.until("as before", |rig| level(rig) == "7\n");
    // After a crash lines are shown, the kernel's too.
    let mut rig = begin();
    rig.signal(crate::crash::PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed"));
    rig.until("as before the crash", |rig| level(rig) == "7\n");
    // What the kernel has raised for an oops is left alone.
    rig.press(" ");
    rig.wait_screen(">count");
    rig.until("quiet again", |rig| level(rig) == "2\n");
    std::fs::write(rig.file("printk"), "15\n").unwrap();
    rig.press("q");
    rig.until("closed", |rig| !rig.screen().alternate_screen());
    rig.status();
    assert_eq!(level(&rig), "15\n");
    // At the end of the machine too it is as it was.
    let mut rig = begin();
    rig.ask(serde_json::json!({"request": "poweroff"}));
    rig.until("at its end", Rig::has_ended);
    assert_eq!(level(&rig), "7\n");
}

/// What `quiet` leaves to the kernel of its errors is PID 1's to print from the first container on.
fn the_kernel_s_errors_are_ours_to_print() {
    let level = |files| {
        let rig = Rig::with(vec![counter()], Setup { files, ..Setup::default() });
        rig.wait_console("number 2");
        std::fs::read_to_string(rig.file("printk")).unwrap()
    };
    assert_eq!(level(&[("printk", "4\t4\t1\t7\n")]), "2\n");
    // Somebody wants something else.
    assert_eq!(level(&[("printk", "3\t4\t1\t7\n")]), "3\t4\t1\t7\n");
}

/// Everything that is open of a terminal is dead from now on, as after vhangup(2) by whoever has it as controlling terminal.
fn hang_up(rig: &Rig) {
    let file =
        std::fs::File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(rig.terminal()).unwrap();
    let mut command = std::process::Command::new("setsid");
    let script = format!("syscall({}) == 0 or die $!", libc::SYS_vhangup);
    command.args(["--wait", "--ctty", "perl", "-e", &script]).stdin(file);
    // It is hung up on itself.
    command.status().expect("util-linux and perl are installed");
}

/// The line is there again, and lines go out of it.
fn come_back(rig: &Rig) {
    let before = rig.console().matches("number").count();
    std::os::unix::fs::symlink(rig.terminal(), rig.file("console")).unwrap();
    rig.until("lines again", |rig| rig.console().matches("number").count() > before + 3);
}

fn a_line_that_has_hung_up_is_listened_to_again() {
    let mut rig = at_a_terminal(Access::Control(HASH.into()), vec![counter()]);
    rig.wait_console("number 2");
    rig.press(" ");
    rig.wait_screen(">count");
    hang_up(&rig);
    // Nobody hears that: there is no line.
    rig.wait("alive", |s| s["state"] == "running");
    come_back(&rig);
    assert!(!rig.screen().alternate_screen(), "what the dashboard had made of the terminal is undone");
    rig.press(" ");
    rig.wait_screen(">count");
    // And once more, over a crash.
    std::fs::remove_file(rig.file("console")).unwrap();
    hang_up(&rig);
    rig.wait("alive", |s| s["state"] == "running");
    rig.signal(crate::crash::PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed"));
    come_back(&rig);
    rig.press(" ");
    rig.wait_screen(">count");
}

/// Nobody reads from it, so it is what can't be printed that tells.
fn a_line_without_keys_is_printed_to_again() {
    let mut rig = at_a_terminal(Access::Off, vec![counter()]);
    rig.wait_console("number 2");
    hang_up(&rig);
    rig.wait("alive", |s| s["state"] == "running");
    come_back(&rig);
    // It is as deaf as at first: what is typed is not echoed, and holds nothing up.
    let before = rig.console().matches("number").count();
    rig.press("echo\x13\n");
    rig.until("lines go on", |rig| rig.console().matches("number").count() > before + 10);
    assert!(!rig.console().contains("echo"));
}

fn a_crash_without_a_line_forgets_no_wrong_passphrase() {
    let mut rig = at_a_terminal(Access::Control(HASH.into()), vec![counter()]);
    open_dashboard(&rig);
    (0..3).for_each(|_| say_wrong(&rig));
    hang_up(&rig);
    rig.wait("alive", |s| s["state"] == "running");
    rig.signal(crate::crash::PANIC);
    rig.wait("resumed", |s| s["notes"].to_string().contains("crashed"));
    come_back(&rig);
    open_dashboard(&rig);
    say_wrong(&rig);
    // The fourth wrong one closes it for eight seconds; a first one would for one.
    assert!(closed_for(&rig) > 2);
}
