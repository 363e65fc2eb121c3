//! Keys at the console, and the screen that they are about.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use garboard_runtime::plan::Access;

use super::Supervisor;
use super::readings::FRESH_MS;
use super::sources::Source;
use crate::clock::now_ms;
use crate::console::access::{Secret, wipe};
use crate::console::dashboard::{Command, Log};
use crate::console::keys::Key;
use crate::console::session::{Outcome, Session, View};
use crate::logs::{Entry, Journal, Rings};
use crate::supervise::Event as Asked;
use crate::work::passphrase::LONGEST_INPUT;
use crate::worker::{Kind, Worker};

/// Bytes read from the line in one turn of the loop.
const READ: usize = 256;
/// A line that has hung up is looked for every so many milliseconds.
const LINE_AGAIN_MS: u64 = 5_000;
/// Of a log so many lines, and so many bytes, can be scrolled through.
const LOG: (usize, usize) = (2_000, 128 << 10);
/// So many events can be, too.
const EVENTS: usize = 200;

impl Supervisor {
    /// Begins to read keys, if the plan has it. `resumed`: a process before this one may have left a dashboard on the terminal.
    pub(super) fn listen(&mut self, resumed: bool) {
        let control = match self.plan.console.access {
            Access::Off => return,
            Access::Status => false,
            Access::Control(_) => true,
        };
        let mut session = Session::new(self.units.len(), control, self.console.size());
        if let Some(before) = &self.session {
            *session.attempts() = before.attempted();
        }
        // Also without a line to listen to: how often the passphrase was wrong is not forgotten while it is away.
        self.session = Some(session);
        let Some(keyboard) = self.console.listen(resumed) else { return };
        self.sources.add_readable(&keyboard, Source::Keys);
        self.keyboard = Some(keyboard);
    }

    /// Reads a piece of what was typed.
    pub(super) fn take_keys(&mut self) {
        let Some(keyboard) = &self.keyboard else { return };
        let mut buffer = [0; READ];
        let n = match rustix::io::read(keyboard, &mut buffer) {
            Ok(n) if n > 0 => n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            _ => return self.lose_line(),
        };
        let now = now_ms();
        let mut keys: Vec<Key> = Vec::with_capacity(READ);
        if let Some(session) = &mut self.session {
            for byte in buffer.get(..n).unwrap_or_default() {
                session.feed(*byte, now, |key| keys.push(key));
            }
        }
        wipe(&mut buffer);
        for key in &mut keys {
            // It may be one of a passphrase.
            let key = std::mem::replace(key, Key::Esc);
            self.react(|session, log| session.key(key, now, log));
        }
    }

    /// The line has hung up: what is open of it is dead, and would be ready for ever.
    pub(super) fn lose_line(&mut self) {
        if let Some(keyboard) = self.keyboard.take() {
            self.sources.remove(&keyboard);
        }
        self.close_dashboard();
        self.look_for_line_at(Some(now_ms().saturating_add(LINE_AGAIN_MS)));
    }

    fn look_for_line_at(&mut self, at: Option<u64>) {
        self.line_at = at;
        self.common_dirty = true;
    }

    /// Prints and listens again to a line that has hung up, once it is there.
    pub(super) fn find_line(&mut self, now: u64) {
        if self.line_at.is_none_or(|at| at > now) {
            return;
        }
        if let Some(fd) = self.console.fd().filter(|_| self.console_waits) {
            self.sources.remove(fd);
            self.console_waits = false;
        }
        let mut there = self.console.reopen(&self.options.console);
        if there && matches!(self.plan.console.access, Access::Off) {
            // A line that hangs up forgets that, too.
            self.console.ignore_input();
        } else if there {
            self.listen(true);
            there = self.keyboard.is_some();
        }
        self.look_for_line_at((!there).then(|| now.saturating_add(LINE_AGAIN_MS)));
    }

    /// Does what follows from a key or from time.
    fn react(&mut self, step: impl FnOnce(&mut Session, &dyn Fn(Log) -> Vec<Entry>) -> Outcome) {
        let (Some(session), rings, journal) = (&mut self.session, &self.rings, &self.journal) else { return };
        match step(session, &|log| tail(rings, journal, log)) {
            Outcome::Nothing => {}
            Outcome::Begin(bytes) => {
                self.quiet_kernel();
                self.console.hide_lines(bytes);
            }
            Outcome::End(bytes) => {
                self.console.show_lines(&bytes);
                self.let_kernel_speak();
                self.end_console_workers();
            }
            Outcome::Send(bytes) => self.console.send(bytes),
            Outcome::Do(command) => self.command(command),
        }
    }

    /// Draws what there is to be drawn, and closes what nobody looks at.
    pub(super) fn pass_dashboard(&mut self, now: u64) {
        if !self.session.as_ref().is_some_and(Session::is_open) {
            return;
        }
        self.react(|session, log| session.pass(now, log));
        if self.console.is_idle()
            && let Some(index) = self.shell.take()
        {
            self.start_shell(index);
        }
        // One frame waits at most: the next is made of what is the newest by then.
        if !self.console.is_idle() || !self.session.as_ref().is_some_and(|session| session.wants_frame(now)) {
            return;
        }
        let Some(mut session) = self.session.take() else { return };
        // How busy each is comes out of two looks.
        let fresh = if session.measures(now) { 0 } else { FRESH_MS };
        let snapshot = self.snapshot_with(fresh);
        let frame = session.frame(&View {
            now,
            snapshot: &snapshot,
            events: &self.journal.newest(EVENTS),
            trace: self.trace.steps(),
            log: &|log| tail(&self.rings, &self.journal, log),
        });
        self.console.send(&frame);
        self.session = Some(session);
    }

    /// When [`Supervisor::pass_dashboard`] has something to do by itself.
    pub(super) fn dashboard_due(&self) -> Option<u64> {
        // The line has taken what waited for it, and a shell waits for the line.
        if self.shell.is_some() && self.console.is_idle() && self.session.as_ref().is_some_and(Session::is_open) {
            return Some(0);
        }
        self.session.as_ref().and_then(|session| session.deadline(self.console.is_idle()))
    }

    /// Something that the dashboard may show has changed.
    pub(super) fn stir_dashboard(&mut self) {
        if let Some(session) = &mut self.session {
            session.stir();
        }
    }

    /// A container has printed something, or the kernel has.
    pub(super) fn stir_log(&mut self, log: Log) {
        if let Some(session) = &mut self.session
            && session.dashboard().and_then(|dashboard| dashboard.log()) == Some(log)
        {
            session.stir();
        }
    }

    /// Back to plain lines.
    pub(super) fn close_dashboard(&mut self) {
        self.react(|session, _| session.close());
    }

    fn command(&mut self, command: Command) {
        let answer = match command {
            Command::Check(secret) => return self.check(&secret),
            Command::Shell(index) => return self.lend_line(index),
            // These are the session's own.
            Command::Close | Command::Redraw => return,
            asked => self.carry_out(&asked),
        };
        self.show_answer(&answer);
    }

    /// Shows an answer in the dashboard.
    fn show_answer(&mut self, text: &str) {
        let now = now_ms();
        if let Some(dashboard) = self.session.as_mut().and_then(Session::dashboard) {
            dashboard.tell(text, now);
        }
        self.stir_dashboard();
    }

    /// Does what a person at the console has asked for, and says so.
    fn carry_out(&mut self, command: &Command) -> String {
        let (what, index, event) = match command {
            Command::Restart(index) => ("restart", *index, Asked::RestartAsked(*index)),
            Command::Stop(index) => ("stop", *index, Asked::StopAsked(*index)),
            Command::Start(index) => ("start", *index, Asked::StartAsked(*index)),
            _ => return String::new(),
        };
        if self.state.common().goal.is_some() {
            return format!("{what} {}: the machine is stopping", self.name(index));
        }
        self.tell(event);
        self.person_wants(index, !matches!(command, Command::Stop(_)));
        format!("{what} {}: asked", self.name(index))
    }

    /// Gives the line to a shell, as soon as it has taken what waits for it.
    fn lend_line(&mut self, index: usize) {
        let runs = self.has_program(index);
        let (Some(session), Some(keyboard), true) = (&mut self.session, &self.keyboard, runs) else {
            return self.no_shell(index);
        };
        self.sources.remove(keyboard);
        self.console.send(&session.lend());
        self.shell = Some(index);
    }

    fn has_program(&self, index: usize) -> bool {
        self.units.get(index).is_some_and(|unit| unit.pid != 0) && !self.reports.contains_key(&index)
    }

    fn no_shell(&mut self, index: usize) {
        let answer = format!("shell in {}: it isn't running", self.name(index));
        self.show_answer(&answer);
    }

    fn start_shell(&mut self, index: usize) {
        // It may have ended while the line took what waited for it.
        if !self.has_program(index) {
            self.no_shell(index);
            return self.take_line_back();
        }
        let pid = self.units.get(index).map_or(0, |unit| unit.pid);
        let (columns, rows) = self.session.as_ref().map_or((0, 0), Session::size);
        let [index, pid, cgroups] = [index.to_string(), pid.to_string(), self.cgroup.is_some().to_string()];
        let [columns, rows] = [columns.to_string(), rows.to_string()];
        let plan = self.options.plan.clone().into_os_string();
        let arguments: [&OsStr; 6] =
            [index.as_ref(), plan.as_ref(), pid.as_ref(), cgroups.as_ref(), columns.as_ref(), rows.as_ref()];
        let line = self.keyboard.as_ref().ok_or(std::io::ErrorKind::NotFound.into()).and_then(OwnedFd::try_clone);
        match line.and_then(|line| Worker::spawn_with(Kind::Shell, &arguments, line.into(), now_ms())) {
            Ok(worker) => {
                self.console.pass_bytes(true);
                self.add_worker(worker);
            }
            Err(e) => {
                self.show_answer(&format!("start a shell: {e}"));
                self.take_line_back();
            }
        }
    }

    /// The shell's worker has said why there was none, or nothing.
    pub(super) fn shell_reported(&mut self, fault: Option<String>) {
        if let Some(fault) = fault {
            self.show_answer(&format!("shell: {fault}"));
        }
    }

    /// The shell has ended: keys are ours again, and so is the screen.
    pub(super) fn take_line_back(&mut self) {
        self.console.pass_bytes(false);
        if let Some(session) = &mut self.session {
            self.console.send(session.regain(now_ms()));
        }
        if let Some(keyboard) = &self.keyboard {
            self.sources.add_readable(keyboard, Source::Keys);
        }
    }

    /// The dashboard that these work for is gone, and the line is for lines.
    pub(super) fn end_console_workers(&mut self) {
        self.shell = None;
        self.console.pass_bytes(false);
        let ours = |worker: &&Worker| matches!(worker.kind, Kind::Passphrase | Kind::Shell);
        self.workers.iter().filter(ours).for_each(Worker::kill);
    }

    /// Has the passphrase checked, by a worker that reads it and its hash.
    fn check(&mut self, secret: &Secret) {
        let Access::Control(hash) = &self.plan.console.access else { return };
        let mut input = Vec::with_capacity(LONGEST_INPUT);
        input.extend_from_slice(hash.as_bytes());
        input.push(b'\n');
        input.extend_from_slice(secret.bytes());
        let started = if input.len() > LONGEST_INPUT {
            Err(std::io::ErrorKind::InvalidInput.into())
        } else {
            Worker::spawn_with_input(Kind::Passphrase, &input, now_ms())
        };
        wipe(&mut input);
        // Attempts are counted over a crash.
        self.common_dirty = true;
        match started {
            Ok(worker) => self.add_worker(worker),
            Err(e) => {
                log::warn!("start the passphrase worker: {e}");
                self.passphrase(None);
            }
        }
    }

    /// The worker has said whether it was the passphrase; `None`: it can't say.
    pub(super) fn passphrase(&mut self, right: Option<bool>) {
        let now = now_ms();
        let Some(session) = &mut self.session else { return };
        if let Some(right) = right {
            session.attempts().answer(right, now);
            self.common_dirty = true;
            if !right {
                log::warn!("console: a wrong passphrase was said");
            }
        }
        let command = session.dashboard().and_then(|dashboard| dashboard.checked(right, now));
        self.stir_dashboard();
        if let Some(command) = command {
            self.command(command);
        }
    }
}

/// The newest lines of a log, as many as can be scrolled through.
fn tail(rings: &Rings, journal: &Journal, log: Log) -> Vec<Entry> {
    let (lines, bytes) = LOG;
    match log {
        Log::Container(index) => rings.tail(index, lines, bytes),
        Log::Kernel => journal.kernel_tail(lines, bytes),
    }
}
