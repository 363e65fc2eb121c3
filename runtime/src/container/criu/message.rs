//! Messages of criu's own protocol (`criu/rpc.proto`), in protocol buffers: the few that one command needs. What is asked for is
//! said in the words of the command line, of which each has a field here.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::super::error::{Error, Result};

/// `criu_req_type`.
const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const NOTIFY: u64 = 6;

/// What a flag becomes in `criu_opts`.
#[derive(Clone, Copy)]
enum Kind {
    /// `true`.
    Switch,
    Number,
    Text,
    /// One of these words' numbers.
    Choice(&'static [(&'static str, u64)]),
    /// A descriptor of this process.
    Directory,
    /// `fd[N]:KEY`, as a message of its own.
    Inherited,
    /// A path for all controllers, as a message of its own.
    Cgroup,
    /// This field of the page server's message.
    Server(u32, &'static Kind),
    /// Nothing: the protocol does without it.
    Implied,
}

/// The number of the field of each flag.
const FIELDS: [(&str, u32, Kind); 33] = [
    ("--images-dir", 1, Kind::Directory),
    ("--tree", 2, Kind::Number),
    ("--leave-running", 3, Kind::Switch),
    ("--ext-unix-sk", 4, Kind::Switch),
    ("--tcp-established", 5, Kind::Switch),
    ("--shell-job", 7, Kind::Switch),
    ("--file-locks", 8, Kind::Switch),
    ("--log-file", 10, Kind::Text),
    ("--address", PAGE_SERVER, Kind::Server(1, &Kind::Text)),
    ("--port", PAGE_SERVER, Kind::Server(2, &Kind::Number)),
    ("--root", 13, Kind::Text),
    ("--prev-images-dir", 14, Kind::Text),
    ("--track-mem", 15, Kind::Switch),
    ("--auto-dedup", 16, Kind::Switch),
    ("--work-dir", 17, Kind::Directory),
    ("--link-remap", 18, Kind::Switch),
    ("--cgroup-root", 25, Kind::Cgroup),
    ("--inherit-fd", 27, Kind::Inherited),
    ("--manage-cgroups", 34, Kind::Choice(&[("ignore", 0), ("soft", 3), ("full", 4), ("strict", 5)])),
    ("--external", 37, Kind::Text),
    // A mask of the kernel's flags of clone(2).
    ("--empty-ns", 38, Kind::Choice(&[("net", 0x4000_0000)])),
    ("--freeze-cgroup", 44, Kind::Text),
    ("--skip-in-flight", 46, Kind::Switch),
    ("--lazy-pages", 48, Kind::Switch),
    // Which it opens anew.
    ("--status-fd", 49, Kind::Number),
    ("--config", 51, Kind::Text),
    ("--tcp-close", 52, Kind::Switch),
    ("--lsm-profile", 53, Kind::Text),
    ("--lsm-mount-context", 63, Kind::Text),
    ("--network-lock", 64, Kind::Choice(&[("iptables", 1), ("nftables", 2), ("skip", 3)])),
    // The address says so; it always is; the answer has the process's id.
    ("--page-server", 0, Kind::Implied),
    ("--restore-detached", 0, Kind::Implied),
    ("--pidfile", 0, Kind::Implied),
];
const LOG_LEVEL: u32 = 9;
const PAGE_SERVER: u32 = 11;
const NOTIFY_SCRIPTS: u32 = 12;
const ORPHAN_PTS_MASTER: u32 = 50;

/// The directories that criu is to find by numbers in the process that talks to it, in their order.
pub(super) fn directories(arguments: &[OsString]) -> impl Iterator<Item = &OsStr> {
    let is_one = |flag: &OsStr| FIELDS.iter().any(|(name, _, kind)| flag == *name && matches!(kind, Kind::Directory));
    arguments.windows(2).filter_map(move |pair| match pair {
        [flag, path] if is_one(flag) => Some(path.as_os_str()),
        _ => None,
    })
}

/// A request for what criu does with these arguments, `dump` or `restore` first, whose [`directories`] are open here; and to mind a
/// terminal whose outer side is elsewhere.
pub(super) fn request(arguments: &[OsString], directories: &[OwnedFd]) -> Result<Vec<u8>> {
    let unknown = |word: &OsStr| Error::new(format!("talk to criu: {}: not in its protocol", word.display()));
    let mut words = arguments.iter().map(OsString::as_os_str);
    let kind = match words.next() {
        Some(word) if word == "dump" => DUMP,
        Some(word) if word == "restore" => RESTORE,
        other => return Err(unknown(other.unwrap_or_default())),
    };
    let (mut options, mut server, mut directories) = (Vec::new(), Vec::new(), directories.iter());
    number(&mut options, NOTIFY_SCRIPTS, 1);
    number(&mut options, ORPHAN_PTS_MASTER, 1);
    while let Some(word) = words.next() {
        let text = word.to_str().ok_or_else(|| unknown(word))?;
        if let Some(level) = text.strip_prefix("-v") {
            number(&mut options, LOG_LEVEL, level.parse().map_err(|_| unknown(word))?);
            continue;
        }
        let (flag, joined) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value)));
        let (_, field, kind) = FIELDS.iter().find(|(name, ..)| *name == flag).ok_or_else(|| unknown(word))?;
        let (out, field, kind) = match kind {
            Kind::Server(field, kind) => (&mut server, field, *kind),
            kind => (&mut options, field, kind),
        };
        let mut value = || joined.map(OsStr::new).or_else(|| words.next()).ok_or_else(|| unknown(word));
        match kind {
            Kind::Switch => number(out, *field, 1),
            Kind::Number => {
                let value = value()?;
                number(out, *field, value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| unknown(value))?);
            }
            Kind::Text => bytes(out, *field, value()?.as_bytes()),
            Kind::Choice(choices) => {
                let value = value()?;
                let chosen = choices.iter().find(|(name, _)| *name == value).ok_or_else(|| unknown(value))?;
                number(out, *field, chosen.1);
            }
            Kind::Directory => {
                let path = value()?;
                let directory = directories.next().ok_or_else(|| unknown(path))?;
                number(out, *field, u64::try_from(directory.as_raw_fd()).unwrap_or_default());
            }
            Kind::Inherited => bytes(out, *field, &inherited(value()?).ok_or_else(|| unknown(word))?),
            Kind::Cgroup => {
                let mut message = Vec::new();
                bytes(&mut message, 2, value()?.as_bytes());
                bytes(out, *field, &message);
            }
            Kind::Implied if flag == "--pidfile" => drop(value()?),
            Kind::Implied | Kind::Server(..) => {}
        }
    }
    if !server.is_empty() {
        bytes(&mut options, PAGE_SERVER, &server);
    }
    let mut request = Vec::new();
    number(&mut request, 1, kind);
    bytes(&mut request, 2, &options);
    Ok(request)
}

/// The message for `fd[N]:KEY`.
fn inherited(value: &OsStr) -> Option<Vec<u8>> {
    let (fd, key) = value.to_str()?.strip_prefix("fd[")?.split_once("]:")?;
    let mut message = Vec::new();
    bytes(&mut message, 1, key.as_bytes());
    number(&mut message, 2, fd.parse().ok()?);
    Some(message)
}

/// The answer to a notification: go on, or give up.
pub(super) fn answer(goes_on: bool) -> Vec<u8> {
    let mut request = Vec::new();
    number(&mut request, 1, NOTIFY);
    number(&mut request, 3, goes_on.into());
    request
}

/// What criu says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It has come to this stage, and waits.
    Stage(String),
    /// It has done what it was asked for; the process that it has restored.
    Done(Option<i32>),
    /// It couldn't.
    Failed,
}

/// Understands a message of criu's; `None`: it is none.
pub(super) fn understand(message: &[u8]) -> Option<Said> {
    let all = fields(message)?;
    let numbered = |wanted: u64| all.iter().find(|(field, _)| *field == wanted).map(|(_, value)| *value);
    if let None | Some(Value::Number(0)) = numbered(2) {
        return Some(Said::Failed);
    }
    let inner = |wanted: u64| match numbered(wanted) {
        Some(Value::Bytes(inner)) => fields(inner)?.into_iter().find(|(field, _)| *field == 1).map(|(_, value)| value),
        _ => None,
    };
    match (numbered(1)?, inner(4), inner(5)) {
        (Value::Number(NOTIFY), _, Some(Value::Bytes(name))) => {
            Some(Said::Stage(String::from_utf8_lossy(name).into_owned()))
        }
        (Value::Number(RESTORE), Some(Value::Number(pid)), _) => {
            i32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| Said::Done(Some(pid)))
        }
        (Value::Number(DUMP), ..) => Some(Said::Done(None)),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in their order; those of other kinds, which criu's messages don't have, make it none.
fn fields(mut rest: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = take(&mut rest)?;
        let number = take(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(number),
            2 => {
                let (bytes, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                rest = after;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        found.push((key >> 3, value));
    }
    Some(found)
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    variable(out, u64::from(field) << 3);
    variable(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    variable(out, u64::from(field) << 3 | 2);
    variable(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Seven bits at a time, the lowest first; all bytes but the last have the highest bit.
fn variable(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_the_command_line_does() {
        let words = [
            "restore",
            "-v4",
            "--log-file",
            "a.log",
            "--images-dir",
            "/images",
            "--manage-cgroups=soft",
            "--tcp-established",
            "--empty-ns",
            "net",
            "--network-lock",
            "skip",
            "--restore-detached",
            "--pidfile",
            "pid",
            "--root",
            "/r",
            "--inherit-fd",
            "fd[300]:extRootNetNS",
            "--external",
            "mnt[/a]:/b",
            "--external",
            "mnt[/c]:/d",
        ];
        let words = words.map(OsString::from);
        assert_eq!(directories(&words).collect::<Vec<_>>(), ["/images"]);
        let images = [OwnedFd::from(tempfile::tempfile().unwrap())];
        let outer = request(&words, &images).unwrap();
        let outer = fields(&outer).unwrap();
        let [(1, Value::Number(RESTORE)), (2, Value::Bytes(options))] = outer[..] else { panic!("{outer:?}") };
        let options = fields(options).unwrap();
        let images = images[0].as_raw_fd().try_into().unwrap();
        let text = |field: u64, text: &'static str| (field, Value::Bytes(text.as_bytes()));
        let number = |field: u64, number: u64| (field, Value::Number(number));
        let inherited = *b"\x0a\x0cextRootNetNS\x10\xac\x02";
        let expected = [
            number(12, 1),
            number(50, 1),
            number(9, 4),
            text(10, "a.log"),
            number(1, images),
            number(34, 3),
            number(5, 1),
            number(38, 0x4000_0000),
            number(64, 3),
            text(13, "/r"),
            // KEY in field 1, N in field 2: 300 takes two bytes.
            (27, Value::Bytes(&inherited)),
            text(37, "mnt[/a]:/b"),
            text(37, "mnt[/c]:/d"),
        ];
        assert_eq!(options, expected);
        let words =
            ["dump", "--tree", "7", "--page-server", "--address", "10.0.0.1", "--port", "99", "--leave-running"];
        let outer = request(&words.map(OsString::from), &[]).unwrap();
        let outer = fields(&outer).unwrap();
        let [(1, Value::Number(DUMP)), (2, Value::Bytes(options))] = outer[..] else { panic!("{outer:?}") };
        let server = text(11, "\x0a\x0810.0.0.1\x10\x63");
        assert_eq!(fields(options).unwrap()[2..], [number(2, 7), number(3, 1), server]);
        for wrong in [
            &["--daemon"][..],
            &["--root"],
            &["--work-dir", "/"],
            &["--inherit-fd", "fd[x]:y"],
            &["--network-lock", "no"],
            &["-vv"],
        ] {
            let words: Vec<OsString> = ["restore"].iter().chain(wrong).map(OsString::from).collect();
            assert!(request(&words, &[]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_criu_says_is_understood() {
        let said = |parts: &[(u32, Value<'_>)]| {
            let mut message = Vec::new();
            for (field, value) in parts {
                match value {
                    Value::Number(value) => number(&mut message, *field, *value),
                    Value::Bytes(value) => bytes(&mut message, *field, value),
                }
            }
            understand(&message)
        };
        let (ok, failed) = ((2, Value::Number(1)), (2, Value::Number(0)));
        let stage = Value::Bytes(b"\x0a\x0apre-resume");
        assert_eq!(said(&[(1, Value::Number(6)), ok, (5, stage)]), Some(Said::Stage("pre-resume".into())));
        let restored = |pid: &'static [u8]| said(&[(1, Value::Number(2)), ok, (4, Value::Bytes(pid))]);
        assert_eq!(restored(b"\x08\x96\x01"), Some(Said::Done(Some(150))));
        // No process is 0 or negative; what isn't whole is nothing.
        for wrong in [&b"\x08\0"[..], b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x08", b"\x0d\0", b""] {
            assert_eq!(restored(wrong), None, "{wrong:?}");
        }
        assert_eq!(said(&[(1, Value::Number(1)), ok]), Some(Said::Done(None)));
        assert_eq!(said(&[(1, Value::Number(2)), failed, (7, Value::Number(3))]), Some(Said::Failed));
        assert_eq!(understand(b""), Some(Said::Failed));
        for cut in 1..answer(true).len() {
            assert_ne!(understand(&answer(true)[..cut]), Some(Said::Done(None)));
        }
        assert_eq!(understand(&[0xff; 30]), None);
    }
}
