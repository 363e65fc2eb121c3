//! Resource limits, getrlimit(2).

use serde_json::{Value, json};

use super::digits::decimal;
use crate::errors::quote;
use crate::read::{Fault, Word};

/// Compose's names with the numbers of `<asm-generic/resource.h>`.
pub(crate) const ULIMITS: [(&str, u32); 15] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

/// A limit; `u64::MAX` (`RLIM_INFINITY`) is written -1 or "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlim(pub(crate) u64);

impl Word for Rlim {
    const EXPECTED: &'static str = "a number, or -1 for no limit";

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "-1" | "unlimited" => Ok(Self(u64::MAX)),
            _ => decimal(text).map(Self).ok_or_else(|| {
                Fault::new(format!("{} isn't a limit", quote(text))).help("write a number, or -1 for no limit")
            }),
        }
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(Self::parse(&number.to_string()))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": -1 },
            { "type": "string", "pattern": "^(0|[1-9][0-9]*|-1|unlimited)$" },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(Rlim::parse("1024"), Ok(Rlim(1024)));
        assert_eq!(Rlim::parse("unlimited"), Ok(Rlim(u64::MAX)));
        assert_eq!(Rlim::from_integer(-1), Some(Ok(Rlim(u64::MAX))));
        for text in ["", "-2", "+1", "01", "1k", "99999999999999999999"] {
            assert!(Rlim::parse(text).is_err(), "{text:?}");
        }
    }
}
