//! Processor time and sets of processors.

use serde_json::{Value, json};
use toml::de::DeValue;

use super::digits::decimal;
use super::duration::Period;
use crate::errors::quote;
use crate::problems::Problems;
use crate::read::{Fault, Item, Shape, Word, wrong_type};

/// `cpus`: how many processors' time, in units of a thousandth of a percent (100,000 is one processor); so it is at once the
/// quota in µs for each 100 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) u64);

/// µs, or a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Micros(pub(crate) u64);

/// A list of processor numbers, `0-3,5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuSet(pub(crate) String);

/// The kernel's `NR_CPUS` at its largest.
pub(crate) const MOST_CPUS: u32 = 8192;

impl Shape for Cpus {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let text = match item.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => {
                wrong_type(item, "a number of processors, such as 0.5", problems);
                return None;
            }
        };
        let cpus = cpus(text);
        if cpus.is_none() {
            problems
                .error(&item.span(), format!("{} isn't a number of processors", quote(text)))
                .help(format!("write a number from 0.01 to {MOST_CPUS}, such as 0.5 or 2"));
        }
        cpus.map(Self)
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0.01, "maximum": MOST_CPUS },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$" },
        ] })
    }
}

fn cpus(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // Five digits after the point are as fine as the unit; the rest is cut off.
    let fraction: String = fraction.chars().chain("00000".chars()).take(5).collect();
    let quota = whole.parse::<u64>().ok()?.checked_mul(100_000)?.checked_add(fraction.parse().ok()?)?;
    (1_000..=u64::from(MOST_CPUS) * 100_000).contains(&quota).then_some(quota)
}

impl Word for Micros {
    const EXPECTED: &'static str = "a number of microseconds, or a duration such as \"50ms\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self).map_err(|_| Fault::new("the number is too large"));
        }
        Period::parse(text).map(|period| Self(u64::try_from(period.0.as_micros()).unwrap_or(u64::MAX)))
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(u64::try_from(number).map(Self).map_err(|_| Fault::new("the time can't be negative")))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "minLength": 1 }] })
    }
}

impl Word for CpuSet {
    const EXPECTED: &'static str = "a list of processors such as \"0-3,5\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let number = |text: &str| decimal::<u32>(text).filter(|number| *number < MOST_CPUS);
        let good = text.split(',').all(|part| match part.split_once('-') {
            Some((first, last)) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
            None => number(part).is_some(),
        });
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::new(format!("{} isn't a list of processors", quote(text)))
            .help("write numbers and ranges with commas, such as \"0-3,5\""))
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(Self::parse(&number.to_string()))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": "^(0|[1-9][0-9]*)(-(0|[1-9][0-9]*))?(,(0|[1-9][0-9]*)(-(0|[1-9][0-9]*))?)*$" },
            { "type": "integer", "minimum": 0, "maximum": MOST_CPUS - 1 },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        for (text, expected) in [
            ("1", Some(100_000)),
            ("0.5", Some(50_000)),
            ("0.01", Some(1_000)),
            ("1.234567", Some(123_456)),
            ("8192", Some(819_200_000)),
            ("8192.1", None),
            ("0", None),
            ("0.009", None),
            ("-1", None),
            ("", None),
            (".5", None),
            ("1.", None),
            ("1e3", None),
            ("inf", None),
            ("nan", None),
        ] {
            assert_eq!(cpus(text), expected, "{text:?}");
        }
        for text in ["0", "0-3", "0-3,5,7-8"] {
            assert!(CpuSet::parse(text).is_ok(), "{text}");
        }
        for text in ["", ",", "3-0", "a", "0-", "0--1", "9999", "+1", "01"] {
            assert!(CpuSet::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Micros::parse("50ms"), Ok(Micros(50_000)));
        assert_eq!(Micros::parse("50000"), Ok(Micros(50_000)));
    }
}
