//! From rings to files: everything that containers with kept logs print, in order and once, as long as this keeps up.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use garboard_runtime::plan::{KeptLog, Plan};

use super::files::{self, Files};
use super::format::{self, Boot};
use super::progress::{Progress, Record};
use crate::clock::now_ms;
use crate::logs::{Follower, Place};

/// The clock was set when it is so many milliseconds from where it should be.
const SET_MS: u64 = 1000;

/// A log whose files failed is tried again so long after, twice as long after each further failure. The others go on meanwhile.
const FIRST_AGAIN: Duration = Duration::from_millis(500);
/// But no longer than this.
const LAST_AGAIN: Duration = Duration::from_secs(60);

/// All kept logs.
#[derive(Debug)]
pub struct Writer {
    directory: OwnedFd,
    follower: Follower,
    progress: Progress,
    boot: Boot,
    logs: Vec<Log>,
    behind: bool,
}

#[derive(Debug)]
struct Log {
    /// The container's index.
    index: usize,
    /// And its name.
    name: String,
    kept: KeptLog,
    /// `None`: not opened yet, or failed.
    files: Option<Files>,
    place: Place,
    /// The newest file says whose lines follow.
    marked: bool,
    fault: Option<Fault>,
}

/// Why a log is not kept at the moment.
#[derive(Debug)]
struct Fault {
    text: String,
    /// When it is tried again, and how long that is after the last time.
    again: Instant,
    pause: Duration,
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
        let log = |(index, name, kept): (usize, &str, KeptLog)| {
            let place = progress.load(index).place;
            Log { index, name: name.to_owned(), kept, files: None, place, marked: false, fault: None }
        };
        let mut logs: Vec<Log> = kept(plan).map(log).collect();
        let directory = directory.try_clone().map_err(|e| format!("open the logs: {e}"))?;
        // Those that are too many go, whether anything is printed or not.
        for log in &mut logs {
            let opened = log.open(&directory).map(drop);
            log.note(opened);
        }
        let boot = Boot { id: boot_id.to_owned(), began_ms: began_ms() };
        Ok(Self { directory, follower, progress, boot, logs, behind: false })
    }

    /// Why a log, the first of those, is not kept.
    pub fn fault(&self) -> Option<&str> {
        self.logs.iter().find_map(|log| log.fault.as_ref()).map(|fault| fault.text.as_str())
    }

    /// How long it is until a log that failed is tried again, if there is one.
    pub fn again(&self) -> Option<Duration> {
        let faults = self.logs.iter().filter_map(|log| log.fault.as_ref());
        faults.map(|fault| fault.again.saturating_duration_since(Instant::now())).min()
    }

    /// Takes a piece of each ring. False: there was nothing left. What is missing is told with the next line that isn't, or when this is
    /// the `last` time: while more is printed than can be read, it would be told again and again.
    pub fn pass(&mut self, last: bool) -> bool {
        let began_ms = began_ms();
        if began_ms.abs_diff(self.boot.began_ms) > SET_MS {
            self.boot.began_ms = began_ms;
            self.logs.iter_mut().for_each(|log| log.marked = false);
        }
        let mut any = false;
        self.behind = false;
        for log in &mut self.logs {
            // The last time it gets its last chance.
            if !last && log.fault.as_ref().is_some_and(|fault| fault.again > Instant::now()) {
                continue;
            }
            let taken = log.take((&self.directory, &self.follower, &self.progress), &self.boot, last);
            let taken = log.note(taken).unwrap_or(Taken::Nothing);
            any |= taken != Taken::Nothing;
            self.behind |= taken == Taken::Piece;
        }
        any
    }

    /// There is more of a log than the last pass took.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Has the disk take what was written.
    pub fn sync(&mut self) {
        for log in &mut self.logs {
            let synced = log.files.as_mut().map_or(Ok(()), Files::sync);
            if synced.is_err() {
                log.note(synced);
            }
        }
    }
}

/// What one pass took of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Nothing,
    /// All that there was.
    All,
    /// Part of it.
    Piece,
}

impl Log {
    /// One that has failed begins anew from what was accounted for last.
    fn note<T>(&mut self, done: Result<T, String>) -> Option<T> {
        match done {
            Ok(done) => {
                self.fault = None;
                Some(done)
            }
            Err(text) => {
                let before = self.fault.as_ref().map(|fault| fault.pause);
                let pause = before.map_or(FIRST_AGAIN, |pause| pause.saturating_mul(2).min(LAST_AGAIN));
                let now = Instant::now();
                let fault = Fault { text, again: now.checked_add(pause).unwrap_or(now), pause };
                (self.files, self.marked, self.fault) = (None, false, Some(fault));
                None
            }
        }
    }

    fn open(&mut self, directory: &OwnedFd) -> Result<&mut Files, String> {
        match &mut self.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(Files::open(directory, &self.name, self.kept)?)),
        }
    }

    fn take(
        &mut self,
        (directory, follower, progress): (&OwnedFd, &Follower, &Progress),
        boot: &Boot,
        last: bool,
    ) -> Result<Taken, String> {
        let Record { inode, size, place } = progress.load(self.index);
        if self.fault.is_some() {
            self.place = place;
            self.open(directory)?;
        }
        let batch = follower.after(self.index, self.place);
        if batch.entries.is_empty() && (batch.gap == 0 || !(last || batch.lost)) {
            return Ok(Taken::Nothing);
        }
        self.open(directory)?.begin(inode, size)?;
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
        Ok(if batch.more { Taken::Piece } else { Taken::All })
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
        if self.files.as_ref().is_some_and(|files| !files.has_room(text.len())) {
            text.truncate(before);
            self.flush(progress, text)?;
            self.files.as_mut().map_or(Ok(()), Files::rotate)?;
            self.account(progress);
            format::boot(text, boot);
            write(text);
        }
        self.marked = true;
        Ok(())
    }

    fn flush(&mut self, progress: &Progress, text: &mut String) -> Result<(), String> {
        self.files.as_mut().map_or(Ok(()), |files| files.append(text.as_bytes()))?;
        text.clear();
        self.account(progress);
        Ok(())
    }

    /// From here on another worker would go on.
    fn account(&self, progress: &Progress) {
        let (inode, size) = self.files.as_ref().map_or((0, 0), Files::written);
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
    fn one_whose_files_fail_holds_up_no_other_and_is_tried_again() {
        let data = tempfile::tempdir().unwrap();
        let mut plan = plan();
        let first = plan.containers[0].clone();
        plan.containers = ["bad", "good"]
            .map(|name| {
                let kept_log = Some(KeptLog { file_size: 100_000, files: 2 });
                garboard_runtime::plan::Container { name: name.to_owned(), kept_log, ..first.clone() }
            })
            .into();
        let mut rings = Rings::create(2, 64 << 10).unwrap();
        let follower = Follower::new(rings.as_fd().try_clone_to_owned().unwrap(), 2, 64 << 10);
        let directory = files::open_logs(data.path().to_str().unwrap()).unwrap();
        // In the way, and too deep to be removed.
        let obstacle = data.path().join(".garboard/logs/bad/obstacle");
        std::fs::create_dir_all(obstacle.join("d/".repeat(100))).unwrap();
        let mut writer = Writer::new(&plan, &directory, follower, Progress::create(2).unwrap(), "boot").unwrap();
        assert!(writer.fault().unwrap().contains("logs/bad"), "{:?}", writer.fault());
        for index in 0..2 {
            rings.push(Piece { text: b"line", continues: false, unfinished: false }, 1);
            rings.commit(index);
        }
        while writer.pass(false) {}
        let text = |name: &str| std::fs::read_to_string(data.path().join(".garboard/logs").join(name).join("log"));
        assert!(text("good").unwrap().ends_with(" line\n"));
        let pause = |writer: &Writer| writer.logs[0].fault.as_ref().unwrap().pause;
        std::thread::sleep(writer.again().unwrap());
        assert!(!writer.pass(false) && pause(&writer) == 2 * FIRST_AGAIN);
        std::fs::remove_dir_all(&obstacle).unwrap();
        while writer.pass(false) {}
        assert!(text("bad").is_err(), "too soon");
        // But for the last time.
        while writer.pass(true) {}
        assert!(text("bad").unwrap().ends_with(" line\n"));
        assert_eq!((writer.fault(), text("good").unwrap().matches("line").count()), (None, 1));
    }

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
            assert!(!writer.pass(false));
        }
        rings.push(Piece { text: b"line", continues: false, unfinished: false }, 1);
        rings.commit(0);
        assert_eq!((writer.pass(false), writer.pass(false)), (true, false));
        rings.drop_bytes(0, 9);
        assert_eq!((writer.pass(false), writer.pass(true), writer.pass(true)), (false, true, false));
        let log = data.path().join(format!(".garboard/logs/{}/log", plan.containers[0].name));
        let text = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).map(|line| line.rsplit(" F ").next().unwrap()).collect();
        assert_eq!(lines, ["# missing 700 bytes", "line", "# missing 9 bytes"], "{text}");
    }

    #[test]
    fn who_is_behind_goes_on_at_once_and_who_is_not_gathers() {
        let data = tempfile::tempdir().unwrap();
        let mut plan = plan();
        plan.containers[0].kept_log = Some(KeptLog { file_size: 10_000_000, files: 2 });
        let count = plan.containers.len();
        let budget = 4 << 20;
        let mut rings = Rings::create(count, budget).unwrap();
        let follower = Follower::new(rings.as_fd().try_clone_to_owned().unwrap(), count, budget);
        let directory = files::open_logs(data.path().to_str().unwrap()).unwrap();
        let progress = Progress::create(count).unwrap();
        let mut writer = Writer::new(&plan, &directory, follower, progress, "boot").unwrap();
        assert!(!writer.pass(false) && !writer.is_behind());
        for _ in 0..2000 {
            rings.push(Piece { text: &[b'x'; 90], continues: false, unfinished: false }, 1);
        }
        rings.commit(0);
        let passes = std::iter::from_fn(|| writer.pass(false).then(|| writer.is_behind())).collect::<Vec<_>>();
        let (last, others) = passes.split_last().unwrap();
        assert!(!last && others.len() >= 2 && others.iter().all(|behind| *behind), "{passes:?}");
    }
}
