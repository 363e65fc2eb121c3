//! A terminal at a machine's serial line.

use std::time::{Duration, Instant};

use garboard_qemu::{Vm, scaled, secs};

/// The terminal's size. It doesn't say so: what the line is taken for is the usual one.
const TERMINAL: (u16, u16) = (80, 24);
/// From a key to what it shows, on an emulated machine.
pub const PATIENCE: Duration = secs(30);

/// What a terminal on the line shows by now.
pub fn terminal(vm: &Vm) -> vt100::Parser {
    let (columns, rows) = TERMINAL;
    let mut terminal = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
    terminal.process(vm.console().transcript().as_bytes());
    terminal
}

/// Waits until the terminal shows this text, and returns all that it shows.
pub fn wait_screen(vm: &Vm, text: &str) -> String {
    wait_terminal(vm, text, |terminal| terminal.screen().contents().contains(text)).screen().contents()
}

/// Waits until the terminal is as wanted.
pub fn wait_terminal(vm: &Vm, what: &str, wanted: impl Fn(&vt100::Parser) -> bool) -> vt100::Parser {
    let until = Instant::now() + scaled(PATIENCE);
    loop {
        let terminal = terminal(vm);
        if wanted(&terminal) {
            return terminal;
        }
        assert!(Instant::now() < until, "not shown: {what:?}\n{}", terminal.screen().contents());
        std::thread::sleep(Duration::from_millis(100));
    }
}
