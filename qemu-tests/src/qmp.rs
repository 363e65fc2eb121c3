//! Listens to QEMU's monitor for the reason a machine ends.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It switched itself off.
    PowerOff,
    /// It restarted itself, which ends QEMU unless [`crate::Builder::reboot`] allows it. A kernel panic ends in one too.
    Reboot,
    /// It was stopped from outside.
    Stopped,
    /// QEMU itself failed or was killed; its status in words.
    Qemu(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("power off"),
            Self::Reboot => f.write_str("reboot"),
            Self::Stopped => f.write_str("stopped from outside"),
            Self::Qemu(status) => write!(f, "QEMU: {status}"),
        }
    }
}

/// From QEMU's end until its last words are read, at most.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the monitor has told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor {
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

#[derive(Debug, Default)]
struct Heard {
    ending: Option<Ending>,
    resets: u32,
    /// QEMU has closed the connection: nothing more is told.
    closed: bool,
}

impl Monitor {
    /// Listens in a thread, from where [`crate::process::start`] stopped reading, until QEMU closes the connection.
    pub fn listen(connection: BufReader<UnixStream>) -> Self {
        let monitor = Self::default();
        let listener = monitor.clone();
        std::thread::spawn(move || {
            for line in connection.lines().map_while(Result::ok) {
                let mut heard = listener.lock();
                match event(&line) {
                    Some(Event::End(ending)) => heard.ending = Some(ending),
                    Some(Event::Reset) => heard.resets += 1,
                    None => {}
                }
            }
            listener.lock().closed = true;
            listener.heard.1.notify_all();
        });
        monitor
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all is told that QEMU had to tell, once it has ended.
    pub fn hear_out(&self) {
        drop(self.heard.1.wait_timeout_while(self.lock(), LAST_WORDS, |heard| !heard.closed));
    }

    /// The reason of the end, if one was told.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().ending.clone()
    }

    /// How often the machine restarted itself.
    pub fn resets(&self) -> u32 {
        self.lock().resets
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    End(Ending),
    Reset,
}

/// What a line of the monitor means for us.
fn event(line: &str) -> Option<Event> {
    let value: Value = serde_json::from_str(line).ok()?;
    let data = value.get("data");
    let by_guest = data.and_then(|data| data.get("guest")?.as_bool()).unwrap_or(false);
    let reason = data.and_then(|data| data.get("reason")?.as_str()).unwrap_or_default();
    match value.get("event")?.as_str()? {
        "SHUTDOWN" => Some(Event::End(match reason {
            "guest-shutdown" => Ending::PowerOff,
            "guest-reset" | "subsystem-reset" | "guest-panic" => Ending::Reboot,
            _ => Ending::Stopped,
        })),
        "RESET" if by_guest => Some(Event::Reset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_events() {
        let of = |text: &str| event(&format!("{{\"event\":{text},\"timestamp\":{{}}}}"));
        assert_eq!(
            of(r#""SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}"#),
            Some(Event::End(Ending::PowerOff))
        );
        assert_eq!(of(r#""SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}"#), Some(Event::End(Ending::Reboot)));
        assert_eq!(
            of(r#""SHUTDOWN","data":{"guest":false,"reason":"host-signal"}"#),
            Some(Event::End(Ending::Stopped))
        );
        assert_eq!(of(r#""RESET","data":{"guest":true,"reason":"guest-reset"}"#), Some(Event::Reset));
        assert_eq!(of(r#""RESET","data":{"guest":false,"reason":"host-qmp-system-reset"}"#), None);
        assert_eq!(event("{\"QMP\":{}}"), None);
        assert_eq!(event("not json"), None);
    }
}
