//! Durations as Compose writes them: `10s`, `1m30s`, `500ms`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word};

/// A duration of at most a day: nothing in an appliance should wait longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Word for Period {
    const EXPECTED: &'static str = "a duration with its unit, such as \"10s\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let duration = duration(text).ok_or_else(|| {
            Fault::new(format!("{} isn't a duration", quote(text)))
                .help("write numbers with units, such as \"10s\", \"1m30s\" or \"500ms\" (units: h, m, s, ms, us)")
        })?;
        if duration > LONGEST { Err(Fault::new("the duration is longer than a day")) } else { Ok(Self(duration)) }
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs))+$" })
    }
}

fn duration(mut rest: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let next = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(next);
        let micros: u64 = match unit {
            "h" => 3_600_000_000,
            "m" => 60_000_000,
            "s" => 1_000_000,
            "ms" => 1_000,
            "us" | "µs" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
            return None;
        }
        let whole = whole.parse::<u64>().ok()?.checked_mul(micros)?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(micros) / scale;
        let micros = whole.checked_add(u64::try_from(part).ok()?)?;
        total = total.checked_add(Duration::from_micros(micros))?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_compose_reads_them() {
        for (text, millis) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1h5m", Some(3_900_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1_500)),
            ("2s500ms", Some(2_500)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("10 s", None),
            ("1d", None),
            ("-1s", None),
            ("1..5s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
        assert!(Period::parse("24h").is_ok());
        assert!(Period::parse("24h1us").is_err());
    }
}
