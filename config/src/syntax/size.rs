//! Byte sizes as Compose writes them: `64m`, `1.5 GiB`, or a number of bytes. Units are powers of 1024, as Docker reads them.

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word};

/// A number of bytes, at most `i64::MAX`, so that every kernel interface can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A number of bytes, or -1 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BytesOrUnlimited(pub(crate) Option<u64>);

const PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?([bB]|[kKmMgGtT]([iI]?[bB])?)?$";
const LARGEST: u64 = i64::MAX as u64;

impl Word for Bytes {
    const EXPECTED: &'static str = "a size such as \"64m\" or a number of bytes";

    fn parse(text: &str) -> Result<Self, Fault> {
        bytes(text).map(Self).ok_or_else(|| {
            Fault::new(format!("{} isn't a size", quote(text)))
                .help("write a number with a unit, such as \"64m\", \"1.5g\" or \"512KiB\" (units are powers of 1024)")
        })
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(u64::try_from(number).map(Self).map_err(|_| Fault::new("a size can't be negative")))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [{ "type": "string", "pattern": PATTERN }, { "type": "integer", "minimum": 0 }] })
    }
}

impl Word for BytesOrUnlimited {
    const EXPECTED: &'static str = "a size such as \"64m\", or -1 for no limit";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text == "-1" { Ok(Self(None)) } else { Bytes::parse(text).map(|bytes| Self(Some(bytes.0))) }
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        if number == -1 {
            return Some(Ok(Self(None)));
        }
        Bytes::from_integer(number).map(|result| result.map(|bytes| Self(Some(bytes.0))))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": PATTERN },
            { "const": "-1" },
            { "type": "integer", "minimum": -1 },
        ] })
    }
}

/// `None`: not a size, or too large a one.
fn bytes(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0u32,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let factor = 1024u128.pow(power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits after the point are finer than a byte of a gigabyte, and keep the product within 128 bits.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole = u128::from(whole.parse::<u64>().ok()?).checked_mul(factor)?;
    let part = u128::from(fraction.parse::<u64>().ok()?) * factor / scale;
    u64::try_from(whole + part).ok().filter(|&bytes| bytes <= LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_docker_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("64k", Some(64 << 10)),
            ("64kb", Some(64 << 10)),
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("1.5g", Some(3 << 29)),
            ("0.000000001k", Some(0)),
            ("2t", Some(2 << 40)),
            ("8388607t", Some(8_388_607 << 40)),
            ("8388608t", None),
            ("99999999999999999999", None),
            ("", None),
            ("m", None),
            (".5m", None),
            ("5.m", None),
            ("1.2.3m", None),
            ("-1", None),
            ("64 mb ", None),
            ("64 megabytes", None),
            ("1e3", None),
            ("0x10", None),
            ("٣m", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
        assert_eq!(BytesOrUnlimited::parse("-1"), Ok(BytesOrUnlimited(None)));
        assert_eq!(Bytes::from_integer(-1).map(|result| result.is_err()), Some(true));
    }
}
