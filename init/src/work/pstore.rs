//! What the kernel kept of its own end: `/sys/fs/pstore` (Documentation/admin-guide/pstore-blk.rst, ramoops.rst), in the
//! firmware's flash or in memory that a reset leaves alone.
//!
//! A `dmesg-*` file is a piece of the log, under a line such as `Panic#2 Part1`; of one dump, the first part is the log's end.
//! `pmsg-*` holds what PID 1 wrote to `/dev/pmsg0`. Where the kernel has no such device, a PID 1 that gives up writes to the log itself, and has the
//! kernel keep that, as `Shutdown#3 Part1`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::last_words::{End, Evidence};

/// How the line in the log begins that has PID 1's last words.
pub const WORDS: &str = "garboard: last words ";
/// So many files are read, so many bytes of each.
const FILES: usize = 64;
const BYTES: u64 = 128 << 10;
/// So many of the last lines are kept, so many bytes of each.
const LINES: usize = 16;
const LONGEST_LINE: usize = 200;

/// A mount that is gone when this is: every container's mount namespace would copy it.
#[derive(Debug)]
pub struct Mount(PathBuf);

/// Mounts it there, if the kernel has it and nobody did before.
pub fn mount(path: &str) -> Option<Mount> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("pstore", path, "pstore", flags, None).ok()?;
    Some(Mount(path.into()))
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What lies there.
pub fn look(directory: &Path) -> Evidence {
    let mut dumps = Vec::new();
    let mut evidence = Evidence::default();
    for path in files(directory).take(FILES) {
        let text = read(&path);
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with("dmesg-") => dumps.extend(Dump::parse(&text)),
            Some(name) if name.starts_with("pmsg-") => {
                evidence.end = evidence.end.or_else(|| text.lines().rev().find_map(|l| End::decode(l.as_bytes())));
            }
            _ => {}
        }
    }
    // A panic is the end of everything; of several dumps the newest counts, and of that the log's end.
    let Some(last) = dumps.iter().max_by_key(|dump| (dump.panic, dump.count, std::cmp::Reverse(dump.part))) else {
        return evidence;
    };
    let mut parts: Vec<&Dump> =
        dumps.iter().filter(|dump| (dump.panic, dump.count) == (last.panic, last.count)).collect();
    parts.sort_by_key(|dump| std::cmp::Reverse(dump.part));
    let mut lines: Vec<&str> = parts.iter().flat_map(|dump| dump.lines.iter().map(String::as_str)).collect();
    if last.panic {
        let said = lines.iter().rev().find(|line| line.contains("Kernel panic"));
        let line = said.or(lines.last()).copied().unwrap_or("it left no line");
        evidence.panic = Some(without_time(line).to_owned());
    }
    if last.orderly {
        let words = |line: &&str| End::decode(without_time(line).strip_prefix(WORDS)?.as_bytes());
        evidence.end = evidence.end.or_else(|| lines.iter().rev().find_map(words));
        lines.retain(|line| !line.contains(WORDS));
    }
    let first = lines.len().saturating_sub(LINES);
    evidence.kernel = lines.iter().skip(first).map(|line| (*line).to_owned()).collect();
    evidence
}

/// Makes room for the next one: removing a file clears what it was in.
pub fn clear(directory: &Path) {
    for path in files(directory) {
        let _ = std::fs::remove_file(path);
    }
}

fn files(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(directory).ok().into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path())
}

/// Its text; nothing if it is none, as what was compressed and damaged is.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES).read_to_end(&mut bytes));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Debug)]
struct Dump {
    panic: bool,
    /// The machine was to start over: nobody but PID 1 asks for that.
    orderly: bool,
    count: u64,
    part: u64,
    lines: Vec<String>,
}

impl Dump {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (reason, rest) = lines.next()?.split_once('#')?;
        let (count, part) = rest.split_once(" Part")?;
        let lines = lines.map(|line| {
            let line = without_level(line);
            let longest = if line.contains(WORDS) { usize::MAX } else { LONGEST_LINE };
            line.get(..line.floor_char_boundary(longest)).unwrap_or_default().to_owned()
        });
        Some(Self {
            panic: reason == "Panic",
            // The latter before Linux 5.8.
            orderly: matches!(reason, "Shutdown" | "Restart"),
            count: count.parse().ok()?,
            part: part.trim().parse().ok()?,
            lines: lines.filter(|line| !line.is_empty()).collect(),
        })
    }
}

/// `<4>[   12.345678] text` without its level.
fn without_level(line: &str) -> &str {
    line.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(line, |(_, rest)| rest)
}

/// `[   12.345678] text` without its time.
fn without_time(line: &str) -> &str {
    line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::last_words::Cause;

    fn shown(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Evidence) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let evidence = look(directory.path());
        (directory, evidence)
    }

    #[test]
    fn the_end_of_the_log_is_found_among_its_parts_and_then_cleared() {
        let earlier: String = (0..100).map(|i| format!("<6>[    1.{i:06}] line {i}\n")).collect();
        let end = "<0>[   12.345678] Kernel panic - not syncing: Attempted to kill init!\n<4>[   12.345700] CPU: 0\n";
        let (directory, evidence) = shown(&[
            ("dmesg-efi-1", format!("Panic#2 Part1\n{end}").as_bytes()),
            ("dmesg-efi-2", format!("Panic#2 Part2\n{earlier}").as_bytes()),
            ("dmesg-efi-3", b"Oops#1 Part1\n<4>[    5.000000] BUG: something\n"),
            ("dmesg-efi-4.enc.z", &[0x78, 0x9c, 0xff, 0xff]),
        ]);
        assert_eq!(evidence.panic.as_deref(), Some("Kernel panic - not syncing: Attempted to kill init!"));
        assert_eq!(evidence.kernel.len(), LINES);
        assert_eq!(evidence.kernel.last().unwrap(), "[   12.345700] CPU: 0");
        assert_eq!(evidence.kernel.first().unwrap(), "[    1.000086] line 86");
        clear(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(look(directory.path()), Evidence::default(), "told once");
    }

    #[test]
    fn an_oops_that_the_kernel_survived_is_no_end() {
        let (_directory, evidence) = shown(&[("dmesg-ramoops-0", b"Oops#1 Part1\n<4>[    5.000000] BUG: x\n")]);
        assert_eq!((evidence.panic, evidence.kernel), (None, vec!["[    5.000000] BUG: x".to_owned()]));
    }

    #[test]
    fn the_newest_line_that_pid_1_wrote_counts() {
        let end = |why: &str| End { cause: Cause::Crash, why: why.into(), uptime_ms: 3 };
        let text = format!("torn{{\n{}\n{}\nnoise\n", end("first").encode(), end("second").encode());
        let (_directory, evidence) = shown(&[("pmsg-ramoops-0", text.as_bytes())]);
        assert_eq!(evidence.end, Some(end("second")));
    }

    #[test]
    fn what_pid_1_left_in_the_log_counts_if_it_was_pid_1_who_ended_the_boot() {
        let end = End { cause: Cause::Crash, why: "x".repeat(500), uptime_ms: 3 };
        let log = format!("<14>[    5.000000] {WORDS}{}\n<6>[    5.100000] reboot: Restarting system\n", end.encode());
        let found = |reason: &str| shown(&[("dmesg-efi-1", format!("{reason}#1 Part1\n{log}").as_bytes())]).1;
        let evidence = found("Shutdown");
        assert_eq!((evidence.end, evidence.panic), (Some(end), None));
        assert_eq!(evidence.kernel, ["[    5.100000] reboot: Restarting system"]);
        assert_eq!(found("Panic").end, None);
    }

    #[test]
    fn where_there_is_none_there_is_no_evidence() {
        assert_eq!(look(Path::new("")), Evidence::default());
        clear(Path::new(""));
        assert!(mount("").is_none());
    }

    proptest! {
        #[test]
        fn whatever_flash_holds_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..8000), head in 0usize..3) {
            let head = ["Panic#1 Part1\n", "Panic#18446744073709551616 Part\n", ""][head];
            let (_directory, evidence) = shown(&[("dmesg-x", &[head.as_bytes(), &bytes].concat())]);
            prop_assert!(evidence.kernel.len() <= LINES);
            prop_assert!(evidence.kernel.iter().all(|line| line.len() <= LONGEST_LINE));
        }
    }
}
