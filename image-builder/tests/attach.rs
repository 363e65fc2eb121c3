//! `garboard attach` at a terminal, with a socket that stands for the machine's console.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use support::{GARBOARD, Project};

const PATIENCE: Duration = Duration::from_secs(30);
/// A dashboard as a machine draws it, and the mouse of a program in a shell.
const DASHBOARD: &[u8] = b"web | a line\r\n\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[0m\x1b[2J\x1b[?1000h\x1b[3;5HCONTAINER";

/// A person at a terminal who is attached to a console.
struct Person {
    child: Child,
    /// The machine's end of the console.
    machine: UnixStream,
    keys: File,
    terminal: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    _project: Project,
}

impl Person {
    fn attached() -> Self {
        let project = Project::empty();
        let listener = UnixListener::bind(project.path("console")).unwrap();
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&keys).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(ptsname(&keys, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        let its = || terminal.try_clone().unwrap();
        let mut command = Command::new(GARBOARD);
        command.arg("attach").arg("--socket").arg(project.path("console"));
        let child = command.stdin(its()).stdout(its()).stderr(its()).spawn().unwrap();
        drop(command);
        let machine = listener.accept().unwrap().0;
        machine.set_read_timeout(Some(PATIENCE)).unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, collected) = (File::from(keys.try_clone().unwrap()), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends when nobody has the terminal any more.
            while let Ok(n) = screen.read(&mut buffer) {
                collected.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        let person = Self { child, machine, keys: keys.into(), terminal, shown, reader, _project: project };
        person.until("raw keys", Person::is_raw);
        person
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < until, "not {what}: {}", self.screen().contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn screen(&self) -> vt100::Screen {
        let mut emulator = vt100::Parser::new(24.try_into().unwrap(), 200.try_into().unwrap(), 0);
        emulator.process(&self.shown.lock().unwrap());
        emulator.screen().clone()
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// The machine reads as many bytes.
    fn typed(&mut self, bytes: usize) -> Vec<u8> {
        let mut typed = vec![0; bytes];
        self.machine.read_exact(&mut typed).unwrap();
        typed
    }

    /// It ends by itself; whether well, and all that the terminal was sent.
    fn end(mut self) -> (bool, vt100::Screen, Vec<u8>) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it goes on: {}", self.screen().contents());
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(!self.is_raw(), "keys are as they were");
        let shown = Arc::clone(&self.shown);
        let Self { terminal, reader, .. } = self;
        drop(terminal);
        reader.join().unwrap();
        let all = shown.lock().unwrap().clone();
        let mut emulator = vt100::Parser::new(24.try_into().unwrap(), 200.try_into().unwrap(), 0);
        emulator.process(&all);
        (status.success(), emulator.screen().clone(), all)
    }
}

#[test]
fn the_terminal_is_as_it_was_however_it_is_left() {
    let person_leaves = |person: &mut Person| person.press(b"\x1d");
    let machine_ends = |person: &mut Person| person.machine.shutdown(std::net::Shutdown::Both).unwrap();
    let signal = |person: &mut Person| {
        let pid = rustix::process::Pid::from_child(&person.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    type Leave = fn(&mut Person);
    let ways: [(Leave, bool, &str); 3] = [
        (person_leaves, true, "garboard: left; the machine runs on"),
        (machine_ends, true, "garboard: the machine has ended"),
        (signal, false, "ended by a signal; the machine runs on"),
    ];
    for (leave, well, last) in ways {
        let mut person = Person::attached();
        person.machine.write_all(DASHBOARD).unwrap();
        person.until("drawn", |person| person.screen().contents().contains("CONTAINER"));
        // The control: the terminal is the machine's.
        let screen = person.screen();
        assert!(screen.alternate_screen() && screen.hide_cursor());
        assert_ne!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        leave(&mut person);
        let (success, screen, all) = person.end();
        assert_eq!(success, well, "{last}");
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{last}");
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        // The emulator knows of no wrapping.
        assert!(all.windows(5).any(|bytes| bytes == b"\x1b[?7h"));
        let text = screen.contents();
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
        assert!(place("this is the console") < place("web | a line") && place("web | a line") < place(last), "{text}");
        assert!(!text.contains("CONTAINER"), "{text}");
    }
}

#[test]
fn a_terminal_that_nobody_changed_stays_as_it_is() {
    let mut person = Person::attached();
    person.machine.write_all(b"web | one\r\nweb | two").unwrap();
    person.until("shown", |person| person.screen().contents().contains("web | two"));
    person.press(b"\x1d");
    let (_, screen, _) = person.end();
    let text = screen.contents();
    assert!(text.contains("web | one\nweb | two\ngarboard: left"), "{text}");
}

#[test]
fn what_leaves_a_shell_gets_there_when_it_is_pressed_twice() {
    let mut person = Person::attached();
    person.press(b"a\x1d\x1db");
    assert_eq!(person.typed(3), b"a\x1db");
    // In two strokes, as a person does it.
    person.press(b"\x1d");
    std::thread::sleep(Duration::from_millis(50));
    person.press(b"\x1d");
    assert_eq!(person.typed(1), b"\x1d");
    // The control: once leaves, and is not sent.
    person.press(b"c\x1d");
    assert_eq!(person.typed(1), b"c");
    let mut rest = Vec::new();
    person.machine.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    assert!(person.end().0);
}
