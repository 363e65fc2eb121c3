//! PAX extended header records: `<length> <key>=<value>\n`, the length counting the whole record.

use std::io;

use super::invalid;

/// The records that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    /// Name without `SCHILY.xattr.`, and value, in order.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*` records in order, without that prefix.
    pub(super) sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Parses a whole extended header. Unknown keys are skipped, as POSIX demands.
    pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let mut records = Self::default();
        while let Some((key, value, rest)) = split_record(bytes)? {
            records.set(key, value)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        // An empty value is as good as none: the header's own field counts, as POSIX and Go have it.
        let given = (!value.is_empty()).then_some(value);
        let number = || given.map(|value| decimal(key, value)).transpose();
        match key {
            b"path" => self.path = given.map(<[u8]>::to_vec),
            b"linkpath" => self.link = given.map(<[u8]>::to_vec),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = given.map(time).transpose()?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Refuses a global header that would give every member a name, a size or attributes: readers differ on those. What is
    /// left of one, such as a comment, has no meaning here.
    pub(super) fn check_global(&self) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        Err(invalid("a global PAX header with a name, size, owner, time, attribute or sparse map"))
    }
}

/// A record as `(key, value, what follows it)`.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_record(bytes: &[u8]) -> io::Result<Option<Split<'_>>> {
    // Some writers pad the header with zeros.
    if bytes.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let malformed = || invalid("a malformed PAX record");
    let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or_else(malformed)?;
    let length = usize::try_from(decimal(b"length", &bytes[..space])?).map_err(|_| malformed())?;
    let record = bytes.get(space + 1..length).ok_or_else(malformed)?;
    let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
    let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
    Ok(Some((&record[..equals], &record[equals + 1..], &bytes[length..])))
}

/// An unsigned decimal number of digits only.
pub(super) fn decimal(key: &[u8], value: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid(format!("PAX record `{}` is not a number", key.escape_ascii())))
}

/// `[-]seconds[.fraction]` as seconds, rounded down, and nanoseconds.
fn time(value: &[u8]) -> io::Result<(i64, u32)> {
    let bad = || invalid("PAX record `mtime` is not a time");
    let (negative, rest) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match rest.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&rest[..dot], &rest[dot + 1..]),
        None => (rest, &[][..]),
    };
    let seconds = i64::try_from(decimal(b"mtime", whole)?).map_err(|_| bad())?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let nanoseconds = (0..9).fold(0, |sum, n| sum * 10 + fraction.get(n).map_or(0, |digit| u32::from(digit - b'0')));
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn a_value_may_hold_newlines_and_equals_signs() {
        let bytes = [record("SCHILY.xattr.security.capability", b"\x01\n9 a=b\n\0"), record("uid", b"70000")].concat();
        let records = Records::parse(&bytes).unwrap();
        assert_eq!(records.xattrs, [(b"security.capability".to_vec(), b"\x01\n9 a=b\n\0".to_vec())]);
        assert_eq!(records.uid, Some(70000));
    }

    #[test]
    fn an_empty_value_is_none() {
        let keys = ["path", "linkpath", "size", "uid", "gid", "mtime"];
        let empty: Vec<u8> = keys.iter().flat_map(|key| record(key, b"")).collect();
        assert_eq!(Records::parse(&empty).unwrap(), Records::default());
        // Also one that takes back an earlier one.
        let given: Vec<u8> = keys.iter().flat_map(|key| record(key, b"1")).collect();
        assert_ne!(Records::parse(&given).unwrap(), Records::default(), "control");
        assert_eq!(Records::parse(&[given, empty].concat()).unwrap(), Records::default());
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12").unwrap(), (12, 0));
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"12.1234567891").unwrap(), (12, 123_456_789));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
        for bad in [&b""[..], b"-", b"1.x", b"1e3", b"99999999999999999999"] {
            assert!(time(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            &b"5"[..],
            b"x uid=1\n",
            b"99 uid=1\n",
            b"3 u\n",
            b"9 uid=1 \n x",
            b"0 \n",
            b"1 ",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
