//! What a container printed in earlier boots, read from its files. They may hold anything by now.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};

use super::files::{beneath, numbered};
use super::format::{self, Line as Parsed};
use crate::work::report::KeptLine;

/// No container has more files: the declaration allows a hundred.
const MOST_FILES: u32 = 100;
/// Of a line that was not written here so many bytes are shown.
const LONGEST_OTHER: usize = 1 << 10;

/// What a line takes of the room for all, besides its text.
const OVERHEAD: usize = 64;

/// The newest `count` lines of earlier boots than `this`, oldest first, of no more than `bytes` bytes.
pub fn tail(directory: &OwnedFd, this: &str, count: usize, bytes: usize) -> VecDeque<KeptLine> {
    let mut all: VecDeque<KeptLine> = VecDeque::new();
    let (mut count, mut bytes) = (count, bytes);
    // A file that is renamed meanwhile, as all are when a new one begins, comes again under its next name.
    let mut seen = BTreeSet::new();
    for number in 0..MOST_FILES {
        let Some((file, inode)) = open(directory, &numbered(number)) else { continue };
        if !seen.insert(inode) {
            continue;
        }
        let mut tail = Tail {
            this,
            boot: None,
            unfinished: false,
            lines: VecDeque::new(),
            count,
            bytes,
            printed: 0,
            used: 0,
            cut: false,
        };
        // What could be read counts.
        let _ = lines(file, |line| tail.take(line));
        // A line may go on in the next file.
        if let (Some(next), true) = (all.front_mut(), tail.unfinished) {
            next.continues = true;
        }
        count = count.saturating_sub(tail.printed);
        bytes = bytes.saturating_sub(tail.used);
        tail.lines.into_iter().rev().for_each(|line| all.push_front(line));
        if tail.cut {
            break;
        }
    }
    all
}

/// A file, and its number in its filesystem.
fn open(directory: &OwnedFd, name: &str) -> Option<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = beneath(directory, name, flags).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| (file.into(), stat.st_ino))
}

/// The end of one file.
struct Tail<'a> {
    this: &'a str,
    boot: Option<format::Boot>,
    /// The line before goes on.
    unfinished: bool,
    lines: VecDeque<KeptLine>,
    /// There is room for so many lines that were printed; what is said of missing ones comes besides.
    count: usize,
    /// So many there are.
    printed: usize,
    /// And for so many bytes, of which so many are used.
    bytes: usize,
    used: usize,
    /// There was no room for the oldest.
    cut: bool,
}

impl Tail<'_> {
    fn take(&mut self, line: &[u8]) {
        let parsed = format::parse(line);
        if let Some(Parsed::Boot(boot)) = parsed {
            self.unfinished &= self.boot.as_ref().is_some_and(|before| before.id == boot.id);
            self.boot = Some(boot);
            return;
        }
        if line.starts_with(format::BOOT) {
            // Of which boot what follows is can't be said.
            self.boot = None;
        }
        if self.boot.as_ref().is_some_and(|boot| boot.id == self.this) {
            return;
        }
        let continues = std::mem::take(&mut self.unfinished);
        let boot = self.boot.as_ref().map(|boot| boot.id.clone());
        let line = match parsed {
            Some(Parsed::Printed { time_ms, unfinished, text }) => {
                self.unfinished = unfinished;
                let began = self.boot.as_ref().map_or(0, |boot| boot.began_ms);
                let time = Some(format::time(time_ms));
                let text = plain(text.get(..format::LONGEST).unwrap_or(text));
                KeptLine { time_ms: time_ms.saturating_sub(began), text, continues, time, boot, missing: 0 }
            }
            Some(Parsed::Gap(missing)) => KeptLine { missing, boot, ..KeptLine::default() },
            // Torn, or damaged.
            _ => KeptLine { text: plain(line.get(..LONGEST_OTHER).unwrap_or(line)), boot, ..KeptLine::default() },
        };
        self.add(line);
    }

    fn add(&mut self, line: KeptLine) {
        self.used = self.used.saturating_add(cost(&line));
        self.printed = self.printed.saturating_add(usize::from(line.missing == 0));
        self.lines.push_back(line);
        while self.used > self.bytes || self.printed > self.count {
            self.cut = true;
            let Some(oldest) = self.lines.pop_front() else { return };
            self.used = self.used.saturating_sub(cost(&oldest));
            self.printed = self.printed.saturating_sub(usize::from(oldest.missing == 0));
        }
    }
}

/// What a line takes of the room for all.
fn cost(line: &KeptLine) -> usize {
    line.text.len().saturating_add(OVERHEAD)
}

fn plain(text: &[u8]) -> String {
    let mut out = String::new();
    format::plain(&mut out, text);
    out
}

/// Gives out every line of a file, without its line feed. Of one that is longer than any that was written here, the beginning.
fn lines(mut file: impl Read, mut out: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut line = Vec::new();
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for part in buffer.get(..n).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = format::LONGEST.saturating_sub(line.len());
            line.extend_from_slice(text.get(..room).unwrap_or(text));
            if whole {
                out(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        out(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
