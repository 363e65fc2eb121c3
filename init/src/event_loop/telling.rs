//! How containers begin, stop, end and wait, in words: for events, the console and the status.

use garboard_runtime::plan::Condition;

use super::Supervisor;
use crate::clock::now_ms;
use crate::console::table;
use crate::supervise::{DataPhase, Exit, Phase, Purpose, Reason, Unit};

/// What one did whose watchdog was missed.
const SILENT: &str = "did not say in time that it is alive";

/// What one did that was to end by itself.
const LINGERED: &str = "said that it stops, and did not in time";

impl Supervisor {
    /// What to say of a stop: that it has begun, and that it took force; not each further attempt.
    pub(super) fn stopping(&self, index: usize, purpose: Purpose, kills: u8, was: bool) -> Option<String> {
        let why = match purpose {
            Purpose::Shutdown => "as the machine stops".to_owned(),
            Purpose::Asked => "as a person asked for it".to_owned(),
            Purpose::Restart => "to be started again, as a person asked for it".to_owned(),
            Purpose::Unhealthy => {
                let fault = self.state.units().get(index).and_then(|unit| unit.fault.as_ref());
                format!("as it is unhealthy: {}", fault.map_or("", |(text, _)| text))
            }
            Purpose::Watchdog => {
                let unit = self.state.units().get(index);
                let lingered = unit.is_some_and(|unit| unit.watch.leaving.is_some());
                format!("as it {}", if lingered { LINGERED } else { SILENT })
            }
            Purpose::Late => "as it did not start in time".to_owned(),
            Purpose::Pod(member) => format!("as {}", self.member_given_up(member)),
        };
        match (kills, was) {
            (0, false) => Some(format!("asked to stop, {why}")),
            (1, false) => Some(format!("killed, {why}")),
            (1, true) => Some("killed: it was asked to stop, and didn't in time".to_owned()),
            _ => None,
        }
    }

    /// How a container ended, or why it could not be started, and what follows.
    pub(super) fn how_it_ended(&self, index: usize, exit: Option<Exit>) -> String {
        let Some(unit) = self.state.units().get(index) else { return String::new() };
        let ending = exit.map(|exit| self.ending_of(index, exit)).unwrap_or_default();
        let how = match &unit.reason {
            Reason::Launch(why) => format!("could not be started: {why}"),
            Reason::Unhealthy(why) => format!("{ending}, as it was unhealthy: {why}"),
            Reason::Watchdog => format!("{ending}, as it {SILENT}"),
            Reason::Lingered => format!("{ending}, as it {LINGERED}"),
            Reason::Asked => format!("{ending}, as it was asked to stop"),
            Reason::Pod(member) => format!("{ending}, as {}", self.member_given_up(*member)),
            _ => ending,
        };
        let next = match unit.phase {
            Phase::Backoff { until } => {
                format!("; starts again in {}", table::duration(until.saturating_sub(now_ms())))
            }
            _ => self.attempts_used(index).map(|text| format!("; {text}")).unwrap_or_default(),
        };
        format!("{how}{next}")
    }

    /// Why a container that has ended is given up.
    pub(super) fn why_given_up(&self, index: usize) -> String {
        let pod = self.state.units().get(index).and_then(|unit| match unit.reason {
            Reason::Pod(member) => Some(format!("given up: {}", self.member_given_up(member))),
            _ => None,
        });
        pod.or_else(|| self.attempts_used(index))
            .unwrap_or_else(|| "given up: its declaration doesn't have it started again".to_owned())
    }

    /// The same of one whose restart policy has no attempt left, if it ever had any.
    fn attempts_used(&self, index: usize) -> Option<String> {
        match self.state.attempts_used(index)? {
            0 => None,
            1 => Some("given up after 1 restart".to_owned()),
            n => Some(format!("given up after {n} restarts in a row")),
        }
    }

    /// Why a container is where it is.
    pub(super) fn detail(&self, index: usize, unit: &Unit, now: u64) -> String {
        let why = match &unit.reason {
            Reason::None => String::new(),
            Reason::Ended => unit.exit.map(|exit| self.ending_of(index, exit)).unwrap_or_default(),
            Reason::Launch(why) => why.clone(),
            Reason::Need(place) => self.need(index, *place, "which it can't be any more"),
            Reason::Data(why) => format!("needs /data: {why}"),
            Reason::Shutdown => "not started: the machine is stopping".to_owned(),
            Reason::Unkillable => "could not be killed".to_owned(),
            Reason::Asked if unit.lingers => "stopped by hand, and could not be killed".to_owned(),
            Reason::Asked => "stopped by hand".to_owned(),
            Reason::Unhealthy(why) => format!("unhealthy: {why}"),
            Reason::Watchdog => SILENT.to_owned(),
            Reason::Lingered => LINGERED.to_owned(),
            Reason::Pod(member) => self.member_given_up(*member),
        };
        match unit.phase {
            Phase::Waiting => self.waits_for(index),
            Phase::Backoff { until } => {
                format!("{why}; starts again in {}", table::duration(until.saturating_sub(now)))
            }
            Phase::Failed => match self.attempts_used(index) {
                Some(used) => format!("{why}; {used}"),
                None => why,
            },
            Phase::Exited if unit.exit.is_some_and(Exit::success) && unit.reason == Reason::Ended => "done".to_owned(),
            _ => why,
        }
    }

    /// How a container's last run ended, and why as far as the kernel says.
    pub(super) fn ending_of(&self, index: usize, exit: Exit) -> String {
        let cause = match self.units.get(index) {
            Some(unit) if unit.out_of_memory => ": out of memory",
            _ => "",
        };
        format!("{}{cause}", ending(exit))
    }

    fn waits_for(&self, index: usize) -> String {
        let Some(rules) = self.state.rules().get(index) else { return String::new() };
        let open = rules.needs.iter().enumerate().find(|(_, need)| !self.state.met(need));
        match open {
            Some((place, _)) => self.need(index, place, ""),
            None if rules.needs_devices && !self.state.common().devices => "waits for the machine's devices".to_owned(),
            None if rules.needs_data => "waits for /data".to_owned(),
            None if rules.needs_record && self.state.common().data == DataPhase::Pending => {
                "waits for /data, which has whether it was stopped by hand".to_owned()
            }
            None => String::new(),
        }
    }

    fn need(&self, index: usize, place: usize, end: &str) -> String {
        let need = self.state.rules().get(index).and_then(|r| r.needs.get(place));
        let Some(need) = need else { return String::new() };
        let what = match need.condition {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        };
        let separator = if end.is_empty() { "" } else { ", " };
        format!("waits for {} to be {what}{separator}{end}", self.name(need.on))
    }

    /// What took a container down with its pod.
    fn member_given_up(&self, member: usize) -> String {
        format!("{} of its pod was given up", self.name(member))
    }
}

/// How a process ended, in words.
pub(super) fn ending(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal(number) => match signal_name(number) {
            Some(name) => format!("was killed by {name}"),
            None => format!("was killed by signal {number}"),
        },
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS (a system call that its filter forbids)",
        _ => return None,
    })
}
