//! Signals by name or number.

use super::Error;

/// Names and numbers of Linux on x86-64 and arm64 (signal(7)).
const NAMES: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    // Other names of what is above.
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];
/// First and last real-time signal, as the C library counts them.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The number of `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub fn parse(text: &str) -> Result<u8, Error> {
    let unknown = || Error::new("stop_signal", format!("{text:?} is no signal (see signal(7))"));
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse::<u8>().ok() };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => offset(rest).and_then(|n| RTMIN.checked_add(n)),
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => offset(rest).and_then(|n| RTMAX.checked_sub(n)),
        _ => None,
    };
    real_time.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_numbers_and_real_time() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("RTMAX-30", 34), ("RTMIN", 34)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "SIG", "SIGFOO", "RTMIN+31", "RTMIN3", "RTMIN-1", "RTMAX-31", "9x", "RTMIN+é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
