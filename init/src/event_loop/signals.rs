//! What signals to PID 1 mean.
//!
//! | signal | means | as in |
//! |---|---|---|
//! | SIGCHLD | reap | |
//! | SIGTERM, SIGINT (ctrl-alt-del) | start over | systemd's PID 1 (SIGINT), busybox (both) |
//! | SIGUSR2, SIGPWR, SIGRTMIN+4 | switch off | busybox and sysvinit, systemd |
//! | SIGUSR1, SIGRTMIN+3 | halt | busybox, systemd |
//! | SIGRTMIN+5 | start over | systemd |
//! | SIGRTMIN+8 to +15 | panic, fault, panic before or after the next exit is kept, hang, panic at the other [`CrashPoint`]s: only with [`super::Options::crash_trigger`] | |
//! | SIGRTMIN+16 to +20 | a process forgotten, earlier crashes forgotten, SIGBUS, SIGILL, SIGABRT: likewise | |
//!
//! Only processes of PID 1's own pid namespace can send them; containers are in theirs. Any other signal is blocked for good.

use super::{Supervisor, persist};
use crate::crash::History;
use crate::events::Kind;
use crate::supervise::{Event, Goal};
use crate::sys::signal::Received;
use crate::sys::{fault, signal};

/// The signals that are taken from the signalfd. All others that could end a process are as the kernel protects PID 1.
pub(super) fn wanted() -> Vec<i32> {
    signal::forwardable()
}

/// Where a test may want PID 1 to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CrashPoint {
    /// An exit was seen, and nothing of it is kept yet.
    Reaping,
    /// It is kept, and nothing was done of what follows from it.
    Reaped,
    /// A turn's events were taken, and nothing was done of what follows from them.
    Taken,
    /// A worker's result was read, and nobody knows of it yet.
    Read,
    /// A part of what has changed is kept.
    Keeping,
}

impl Supervisor {
    pub(super) fn take_signals(&mut self) {
        // Ordinary signals don't queue, so this is bounded by the number of real-time ones sent; 64 a turn.
        for _ in 0..64 {
            let Ok(Some(received)) = self.signals.read() else { return };
            if received.signal == libc::SIGCHLD {
                self.reap_again = true;
            } else if let Some(goal) = goal(received.signal) {
                self.shut_down(goal, &asked_by(received));
            } else if self.options.crash_trigger {
                self.crash_on(received.signal);
            }
        }
    }

    /// A crash on demand, for tests.
    fn crash_on(&mut self, number: i32) {
        match number.checked_sub(signal::rt_min()) {
            Some(8) => panic_as_asked(),
            Some(9) => fault::segmentation(),
            Some(10) => self.crash_at = Some(CrashPoint::Reaping),
            Some(11) => self.crash_at = Some(CrashPoint::Reaped),
            Some(12) => hang_as_asked(),
            Some(13) => self.crash_at = Some(CrashPoint::Taken),
            Some(14) => self.crash_at = Some(CrashPoint::Read),
            Some(15) => self.crash_at = Some(CrashPoint::Keeping),
            Some(16) => self.forget_a_process(),
            Some(17) => self.forget_crashes(),
            Some(18) => fault::bus(),
            Some(19) => fault::instruction(),
            Some(20) => fault::abort(),
            _ => {}
        }
    }

    /// What must never be, for tests: the first container that has a process counts as having none.
    fn forget_a_process(&mut self) {
        if let Some((index, unit)) = self.units.iter_mut().enumerate().find(|(_, unit)| unit.pid != 0) {
            unit.pid = 0;
            self.dirty.push(index);
        }
    }

    /// The next crash counts as the first, for tests that have no minute to wait.
    fn forget_crashes(&mut self) {
        persist::save(&mut self.store, persist::HISTORY, &History::default());
        self.note("earlier crashes of PID 1 don't count any more, as a test wants".to_owned());
    }

    /// A crash at a place where it would be worst, for tests.
    pub(super) fn crash_if_asked(&self, point: CrashPoint) {
        if self.crash_at == Some(point) {
            panic_as_asked();
        }
    }

    /// Begins to stop everything, and says why.
    pub(super) fn shut_down(&mut self, goal: Goal, why: &str) {
        if self.state.common().goal.is_none() {
            self.say_stop(goal, why);
        }
        self.tell(Event::Shutdown(goal));
    }

    pub(super) fn say_stop(&mut self, goal: Goal, why: &str) {
        let text = goal.text();
        self.stop_told = true;
        self.ends_for(why);
        self.record(Kind::Shutdown, None, &format!("{text}: {why}"));
        self.console.say(&format!("{text} ({why}); stopping containers"));
    }
}

/// With a text that is too long for the record of it, and would be cut in the middle of a character.
#[allow(clippy::panic)]
fn panic_as_asked() {
    panic!("asked to {}", "é".repeat(200));
}

fn hang_as_asked() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// The kernel sends one itself; other processes of our pid namespace are few, and worth a number.
fn asked_by(received: Received) -> String {
    match received {
        Received { signal: libc::SIGINT, sender: 0 } => "Ctrl-Alt-Del".to_owned(),
        Received { signal, sender: 0 } => format!("signal {signal}"),
        Received { signal, sender } => format!("signal {signal} of process {sender}"),
    }
}

fn goal(number: i32) -> Option<Goal> {
    let real_time = number.checked_sub(signal::rt_min());
    match (number, real_time) {
        (libc::SIGTERM | libc::SIGINT, _) | (_, Some(5)) => Some(Goal::Reboot),
        (libc::SIGUSR2 | libc::SIGPWR, _) | (_, Some(4)) => Some(Goal::PowerOff),
        (libc::SIGUSR1, _) | (_, Some(3)) => Some(Goal::Halt),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_told() {
        let asked = |signal, sender| asked_by(Received { signal, sender });
        assert_eq!(asked(libc::SIGINT, 0), "Ctrl-Alt-Del");
        assert_eq!(asked(libc::SIGTERM, 0), "signal 15");
        assert_eq!(asked(libc::SIGTERM, 42), "signal 15 of process 42");
    }

    #[test]
    fn each_signal_has_its_meaning() {
        assert_eq!(goal(libc::SIGINT), Some(Goal::Reboot));
        assert_eq!(goal(libc::SIGUSR2), Some(Goal::PowerOff));
        assert_eq!(goal(libc::SIGUSR1), Some(Goal::Halt));
        assert_eq!(goal(signal::rt_min() + 4), Some(Goal::PowerOff));
        for none in [libc::SIGHUP, libc::SIGCHLD, libc::SIGPIPE, signal::rt_min() + 9] {
            assert_eq!(goal(none), None);
        }
    }
}
