//! Users and groups. A word that begins with a digit must be a number to its end: `1x` is neither 1 nor 0.

use serde_json::{Value, json};

use super::digits::decimal;
use crate::container::{Id, User};
use crate::errors::quote;
use crate::read::{Fault, Word};

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdEntry(pub(crate) Id);

/// `user[:group]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserEntry(pub(crate) User);

/// useradd(8) allows 32 bytes; directories (LDAP) give out longer ones.
const LONGEST_NAME: usize = 256;
/// The largest id; the one above means "none" to the kernel.
pub(super) const LARGEST: u32 = u32::MAX - 1;
const PATTERN: &str = r"^(0|[1-9][0-9]{0,9}|[A-Za-z_.][A-Za-z0-9_.@\\-]*\$?)";

impl Word for IdEntry {
    const EXPECTED: &'static str = "a name or a number";

    fn parse(text: &str) -> Result<Self, Fault> {
        id(text).map(Self)
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(from_number(number).map(Self))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "pattern": format!("{PATTERN}$") },
            { "type": "integer", "minimum": 0, "maximum": LARGEST },
        ] })
    }
}

impl Word for UserEntry {
    const EXPECTED: &'static str = "a user such as \"www-data\", 1000 or \"1000:1000\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(id(group)?)),
            None => (text, None),
        };
        Ok(Self(User { user: id(user)?, group }))
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        Some(from_number(number).map(|user| Self(User { user, group: None })))
    }

    fn word_schema() -> Value {
        let id = PATTERN.trim_start_matches('^');
        json!({ "anyOf": [
            { "type": "string", "pattern": format!("{PATTERN}(:{id})?$") },
            { "type": "integer", "minimum": 0, "maximum": LARGEST },
        ] })
    }
}

fn from_number(number: i64) -> Result<Id, Fault> {
    u32::try_from(number)
        .ok()
        .filter(|id| *id <= LARGEST)
        .map(Id::Number)
        .ok_or_else(|| out_of_range(&number.to_string()))
}

fn out_of_range(text: &str) -> Fault {
    Fault::new(format!("{} isn't an id", quote(text))).help(format!("ids are numbers from 0 to {LARGEST}"))
}

fn id(text: &str) -> Result<Id, Fault> {
    if text.is_empty() {
        return Err(Fault::new("a user or group is empty").help("write \"user\" or \"user:group\", by name or number"));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return decimal(text).ok_or_else(|| out_of_range(text)).and_then(from_number);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Fault::new(format!("{} begins like a number but isn't one", quote(text)))
            .help("names of users and groups don't begin with a digit"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '\\');
    let body = text.strip_suffix('$').unwrap_or(text);
    if body.starts_with(['-', '@', '\\']) || body.is_empty() || !body.chars().all(allowed) || text.len() > LONGEST_NAME
    {
        return Err(Fault::new(format!("{} isn't the name of a user or group", quote(text)))
            .help("write letters, digits, `_`, `.` and `-`"));
    }
    Ok(Id::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for text in
            ["root", "www-data", "_apt", "0", "1000", "1000:1000", "www-data:33", "machine$", "4294967294", "a.b:c_d"]
        {
            assert_eq!(UserEntry::parse(text).unwrap().0.to_string(), text);
        }
        for text in [
            "",
            ":",
            "1x",
            "1x:0",
            "0:1x",
            "0x10",
            "010",
            "root:",
            ":root",
            "a:b:c",
            "-1",
            "4294967295",
            "99999999999",
            "a b",
            "$",
            "١",
        ] {
            assert!(UserEntry::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(UserEntry::from_integer(1000), Some(Ok(_))));
        assert!(matches!(UserEntry::from_integer(-1), Some(Err(_))));
    }
}
