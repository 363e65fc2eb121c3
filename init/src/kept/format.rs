//! Lines of kept logs, written and read.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, parse_rfc3339};

use crate::escape::escape_into;
use crate::logs::Entry;

/// No line that was written here is longer, in bytes: a piece of a line, every byte of it written out, and what stands before.
pub const LONGEST: usize = 11 << 10;
/// How a boot's line begins.
pub const BOOT: &[u8] = b"# boot ";
/// The same of a boot's id; the kernel's have 36.
const LONGEST_ID: usize = 64;

/// A boot, as far as its lines' times are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's name of it.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
}

/// What a line of a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Lines of this boot follow.
    Boot(Boot),
    /// So many bytes are missing.
    Gap(u64),
    /// Something was printed.
    Printed {
        /// When, in milliseconds since 1970.
        time_ms: u64,
        /// The next line goes on where this one ends.
        unfinished: bool,
        /// What, made plain.
        text: &'a [u8],
    },
}

/// Appends a line that names the boot of those that follow.
pub fn boot(out: &mut String, boot: &Boot) {
    let _ = writeln!(out, "# boot {} began {}", boot.id, time(boot.began_ms));
}

/// Appends a line that says that so many bytes are missing.
pub fn gap(out: &mut String, bytes: u64) {
    let _ = writeln!(out, "# missing {bytes} bytes");
}

/// Appends what was printed in this boot.
pub fn printed(out: &mut String, boot: &Boot, entry: &Entry) {
    let tag = if entry.unfinished { 'P' } else { 'F' };
    let _ = write!(out, "{} stdout {tag} ", time(boot.began_ms.saturating_add(entry.time_ms)));
    plain(out, &entry.text);
    out.push('\n');
}

/// Appends foreign text as one line that steers no terminal. What is plain stays as it is.
pub fn plain(out: &mut String, text: &[u8]) {
    for (place, part) in text.split(|byte| *byte == b'\t').enumerate() {
        if place > 0 {
            out.push('\t');
        }
        escape_into(out, part);
    }
}

/// Milliseconds since 1970 as RFC 3339 has it.
pub fn time(ms: u64) -> String {
    let mut text = String::new();
    // A year of five digits has no such form.
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    let _ = write!(text, "{}", format_rfc3339_millis(at));
    text
}

/// What a line without its line feed says; `None`: it was not written here, or was damaged.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    if let Some(own) = line.strip_prefix(b"# ") {
        let words: Vec<&str> = std::str::from_utf8(own).ok()?.split(' ').collect();
        return match words[..] {
            ["boot", id, "began", time] if is_id(id) => {
                Some(Line::Boot(Boot { id: id.to_owned(), began_ms: ms(time)? }))
            }
            ["missing", bytes, "bytes"] => Some(Line::Gap(bytes.parse().ok()?)),
            _ => None,
        };
    }
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = words.next()?;
    let (stream, tag, text) = (words.next()?, words.next()?, words.next()?);
    let unfinished = match tag {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let known = stream == b"stdout" || stream == b"stderr";
    let time_ms = ms(std::str::from_utf8(time).ok()?)?;
    known.then_some(Line::Printed { time_ms, unfinished, text })
}

/// Whether it looks like a boot's, as the kernel makes them: whoever reads the line keeps it beside each of the boot's.
fn is_id(id: &str) -> bool {
    id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn ms(time: &str) -> Option<u64> {
    let since: Duration = SystemTime::duration_since(&parse_rfc3339(time).ok()?, UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_boot() -> Boot {
        Boot { id: "6f1c9e9c-0001".to_owned(), began_ms: 1_772_366_400_000 }
    }

    fn entry(text: &[u8], unfinished: bool) -> Entry {
        Entry { time_ms: 2_345, continues: false, unfinished, text: text.to_vec() }
    }

    fn line(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn lines_are_as_cri_has_them() {
        assert_eq!(line(|out| boot(out, &a_boot())), "# boot 6f1c9e9c-0001 began 2026-03-01T12:00:00.000Z\n");
        let text = line(|out| printed(out, &a_boot(), &entry(b"a\tb\x1b[2J \\ \xff", true)));
        assert_eq!(text, "2026-03-01T12:00:02.345Z stdout P a\tb\\x1b[2J \\ \\xff\n");
        assert_eq!(line(|out| gap(out, 7)), "# missing 7 bytes\n");
        // Without a clock.
        let unset = Boot { began_ms: 0, ..a_boot() };
        assert!(
            line(|out| printed(out, &unset, &entry(b"", false))).starts_with("1970-01-01T00:00:02.345Z stdout F \n")
        );
    }

    #[test]
    fn a_container_passes_for_nobody_else() {
        let forged = line(|out| printed(out, &a_boot(), &entry(b"# boot x began 2026-03-01T12:00:00Z", false)));
        assert!(matches!(parse(forged.trim_end().as_bytes()), Some(Line::Printed { .. })), "{forged}");
        for other in [
            "",
            "# boot",
            "# boot x began y",
            "# missing x bytes",
            "2026 stdout F x",
            "x",
            "\u{1b}",
            "2026-03-01T12:00:00Z stdout F",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in proptest::collection::vec(any::<u8>(), 0..1024), unfinished in any::<bool>(), time_ms in 0_u64..1 << 40) {
            let entry = Entry { time_ms, ..entry(&text, unfinished) };
            let written = line(|out| printed(out, &a_boot(), &entry));
            prop_assert!(written.len() <= LONGEST);
            let (body, end) = written.split_at(written.len() - 1);
            prop_assert_eq!(end, "\n");
            prop_assert!(!body.chars().any(|c| c.is_control() && c != '\t'));
            let Some(Line::Printed { time_ms: at, unfinished: partial, text: again }) = parse(body.as_bytes()) else {
                panic!("{body:?}");
            };
            prop_assert_eq!((at, partial), (a_boot().began_ms + time_ms, unfinished));
            // What is plain stays so.
            let twice = line(|out| plain(out, again));
            prop_assert_eq!(twice.as_bytes(), again);
        }

        #[test]
        fn any_bytes_are_a_line_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"# boot x began ", &bytes[..]].concat());
        }
    }
}
