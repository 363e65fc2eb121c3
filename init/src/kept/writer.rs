//! From rings to files: everything that containers with kept logs print, in order and once, as long as this keeps up.

use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use garboard_runtime::plan::{KeptLog, Plan};

use super::files::{self, Files};
use super::format::{self, Boot};
use super::progress::{Progress, Record};
use crate::clock::now_ms;
use crate::logs::{Follower, Place};

/// The clock was set when it is so many milliseconds from where it should be.
const SET_MS: u64 = 1000;

/// All kept logs.
#[derive(Debug)]
pub struct Writer {
    follower: Follower,
    progress: Progress,
    boot: Boot,
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    /// The container's index.
    index: usize,
    files: Files,
    place: Place,
    /// The newest file says whose lines follow.
    marked: bool,
}

impl Writer {
    /// Goes on where `progress` says, in the directory of all logs.
    pub fn new(
        plan: &Plan,
        directory: &OwnedFd,
        follower: Follower,
        progress: Progress,
        boot_id: &str,
    ) -> Result<Self, String> {
        files::retain(directory, |name| kept(plan).any(|(_, other, _)| name == other))?;
        let mut logs = Vec::new();
        for (index, name, kept) in kept(plan) {
            let files = Files::open(directory, name, kept)?;
            logs.push(Log { index, files, place: progress.load(index).place, marked: false });
        }
        Ok(Self { follower, progress, boot: Boot { id: boot_id.to_owned(), began_ms: began_ms() }, logs })
    }

    /// Takes a piece of each ring. False: there was nothing left. What is missing is told with the next line that isn't, or when this is
    /// the `last` time: while more is printed than can be read, it would be told again and again.
    pub fn pass(&mut self, last: bool) -> Result<bool, String> {
        let began_ms = began_ms();
        if began_ms.abs_diff(self.boot.began_ms) > SET_MS {
            self.boot.began_ms = began_ms;
            self.logs.iter_mut().for_each(|log| log.marked = false);
        }
        let mut any = false;
        for log in &mut self.logs {
            any |= log.take(&self.follower, &self.progress, &self.boot, last)?;
        }
        Ok(any)
    }

    /// Has the disk take what was written.
    pub fn sync(&mut self) -> Result<(), String> {
        self.logs.iter_mut().try_for_each(|log| log.files.sync())
    }
}

impl Log {
    fn take(&mut self, follower: &Follower, progress: &Progress, boot: &Boot, last: bool) -> Result<bool, String> {
        let batch = follower.after(self.index, self.place);
        if batch.entries.is_empty() && (batch.gap == 0 || !last) {
            return Ok(false);
        }
        let Record { inode, size, .. } = progress.load(self.index);
        self.files.begin(inode, size)?;
        self.place = batch.from;
        let mut text = String::new();
        if batch.gap > 0 {
            self.line(progress, boot, &mut text, |out| format::gap(out, batch.gap))?;
        }
        for entry in &batch.entries {
            self.line(progress, boot, &mut text, |out| format::printed(out, boot, entry))?;
            self.place = self.place.after(entry);
        }
        self.flush(progress, &mut text)?;
        Ok(true)
    }

    /// Adds a line to what is about to be written, in the next file if there is no room in this one.
    fn line(
        &mut self,
        progress: &Progress,
        boot: &Boot,
        text: &mut String,
        write: impl Fn(&mut String),
    ) -> Result<(), String> {
        let before = text.len();
        if !self.marked {
            format::boot(text, boot);
        }
        write(text);
        if !self.files.has_room(text.len()) {
            text.truncate(before);
            self.flush(progress, text)?;
            self.files.rotate()?;
            self.account(progress);
            format::boot(text, boot);
            write(text);
        }
        self.marked = true;
        Ok(())
    }

    fn flush(&mut self, progress: &Progress, text: &mut String) -> Result<(), String> {
        self.files.append(text.as_bytes())?;
        text.clear();
        self.account(progress);
        Ok(())
    }

    /// From here on another worker would go on.
    fn account(&self, progress: &Progress) {
        let (inode, size) = self.files.written();
        progress.save(self.index, Record { place: self.place, inode, size });
    }
}

/// The containers whose logs are kept: index, name and how much.
pub fn kept(plan: &Plan) -> impl Iterator<Item = (usize, &str, KeptLog)> {
    let all = plan.containers.iter().enumerate();
    all.filter_map(|(index, container)| Some((index, container.name.as_str(), container.kept_log?)))
}

/// When this boot began, by the clock of this moment, in milliseconds since 1970.
fn began_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0).saturating_sub(now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::features::tests::plan;
    use crate::logs::{Piece, Rings};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_missing_is_told_once_with_what_is_not() {
        let data = tempfile::tempdir().unwrap();
        let mut plan = plan();
        plan.containers[0].kept_log = Some(KeptLog { file_size: 100_000, files: 2 });
        let count = plan.containers.len();
        let mut rings = Rings::create(count, 64 << 10).unwrap();
        let follower = Follower::new(rings.as_fd().try_clone_to_owned().unwrap(), count, 64 << 10);
        let directory = files::open_logs(data.path().to_str().unwrap()).unwrap();
        let progress = Progress::create(count).unwrap();
        let mut writer = Writer::new(&plan, &directory, follower, progress, "boot").unwrap();
        for _ in 0..100 {
            rings.drop_bytes(0, 7);
            assert_eq!(writer.pass(false), Ok(false));
        }
        rings.push(Piece { text: b"line", continues: false, unfinished: false }, 1);
        rings.commit(0);
        assert_eq!((writer.pass(false), writer.pass(false)), (Ok(true), Ok(false)));
        rings.drop_bytes(0, 9);
        assert_eq!((writer.pass(false), writer.pass(true), writer.pass(true)), (Ok(false), Ok(true), Ok(false)));
        let log = data.path().join(format!(".garboard/logs/{}/log", plan.containers[0].name));
        let text = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).map(|line| line.rsplit(" F ").next().unwrap()).collect();
        assert_eq!(lines, ["# missing 700 bytes", "line", "# missing 9 bytes"], "{text}");
    }
}
