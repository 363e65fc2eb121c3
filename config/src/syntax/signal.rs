//! Signal names and numbers, signal(7), as x86 and ARM number them.

use serde_json::{Value, json};

use super::digits::decimal;
use crate::errors::quote;
use crate::read::{Fault, Word, nearest};

/// A signal number from 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) u8);

/// Without `SIG`; the first is number 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// `SIGRTMIN` as the C library has it (the kernel's first two are its own).
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Word for Signal {
    const EXPECTED: &'static str = "a signal such as \"SIGTERM\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return decimal(text).and_then(numbered).ok_or_else(|| out_of_range(text));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return u8::try_from(index + 1).ok().and_then(numbered).ok_or_else(|| out_of_range(text));
        }
        if name.starts_with("RTM") {
            return realtime(name).map(Self).ok_or_else(|| out_of_range(text));
        }
        let fault = Fault::new(format!("{} isn't a signal", quote(text)));
        Err(match nearest(name, NAMES) {
            Some(name) => fault.help(format!("did you mean \"SIG{name}\"?")),
            None => fault.help("write a name such as \"SIGTERM\" or a number from 1 to 64"),
        })
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(u8::try_from(number).ok().and_then(numbered).ok_or_else(|| out_of_range(&number.to_string())))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 1, "maximum": RTMAX }] })
    }
}

fn numbered(number: u8) -> Option<Signal> {
    (1..=RTMAX).contains(&number).then_some(Signal(number))
}

fn out_of_range(text: &str) -> Fault {
    Fault::new(format!("{} isn't a signal", quote(text)))
        .help("signals are numbered from 1 to 64; SIGRTMIN+N up to N = 30")
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1`, `RTMAX`
fn realtime(name: &str) -> Option<u8> {
    let offset = |digits: &str| {
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse::<u8>().ok())
            .flatten()
            .filter(|n| *n <= RTMAX - RTMIN)
    };
    match name.strip_prefix("RTMIN") {
        Some("") => Some(RTMIN),
        Some(tail) => offset(tail.strip_prefix('+')?).map(|n| RTMIN + n),
        None => match name.strip_prefix("RTMAX")? {
            "" => Some(RTMAX),
            tail => offset(tail.strip_prefix('-')?).map(|n| RTMAX - n),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("sigterm", Some(15)),
            ("15", Some(15)),
            ("SIGHUP", Some(1)),
            ("SIGSYS", Some(31)),
            ("SIGQUIT", Some(3)),
            ("SIGWINCH", Some(28)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMIN+30", Some(64)),
            ("SIGRTMIN+31", None),
            ("SIGRTMAX", Some(64)),
            ("SIGRTMAX-30", Some(34)),
            ("SIGRTMAX-31", None),
            ("SIGRTMIN-1", None),
            ("SIGRTMIN+", None),
            ("SIGRTMIN++1", None),
            ("RTM", None),
            ("0", None),
            ("65", None),
            ("999", None),
            ("", None),
            ("SIG", None),
            ("SIGFOO", None),
            ("+15", None),
            ("015", None),
        ] {
            assert_eq!(Signal::parse(text).ok().map(|signal| signal.0), number, "{text:?}");
        }
        assert_eq!(Signal::parse("SIGTEM").unwrap_err().help.unwrap(), "did you mean \"SIGTERM\"?");
    }
}
