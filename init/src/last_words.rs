//! What a boot says last, and what the next one makes of it.
//!
//! A [`Record`] on the data filesystem says of the boot that is under way that it is, and of one that has ended how. One that still
//! says the first when the next boot reads it ended without a word. What the kernel and the watchdog say beside it is [`Evidence`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use garboard_runtime::plan;
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::console::table::duration;
use crate::kept::OWN;
use crate::supervise::Goal;

/// Bytes of a record, blanks at its end included: all are as long, so that one can be written over another on a full disk.
pub const RECORD: usize = 4096;
/// No text in it is longer, in bytes; each may take six in JSON.
const LONGEST_TEXT: usize = 560;
/// A boot's id has 36.
const LONGEST_ID: usize = 64;
/// What the record looks like.
const VERSION: u32 = 1;

/// Where last words are kept and looked for. For a test, an empty path is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Directory on the data filesystem, of ours alone: containers reach their volumes beside it and nothing else there.
    pub directory: PathBuf,
    /// Where the kernel shows what it kept of its end.
    pub pstore: PathBuf,
    /// What is written here is in pstore in the next boot, if the kernel has it.
    pub pmsg: PathBuf,
    /// The kernel's log.
    pub log: PathBuf,
    /// With `Y` in here the kernel has the end of its log in pstore, however it goes down (`printk.always_kmsg_dump`).
    pub always_dump: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            directory: Path::new(plan::DATA).join(OWN),
            pstore: "/sys/fs/pstore".into(),
            pmsg: "/dev/pmsg0".into(),
            log: "/dev/kmsg".into(),
            always_dump: "/sys/module/printk/parameters/always_kmsg_dump".into(),
        }
    }
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There was none before.
    FirstBoot,
    /// In order: the machine was to start over.
    Reboot,
    /// In order: it was to be switched off.
    Poweroff,
    /// In order: it was to halt.
    Halt,
    /// PID 1 could not go on.
    Crash,
    /// The kernel could not go on.
    Panic,
    /// The watchdog reset the machine.
    Watchdog,
    /// Without a word.
    Unclean,
    /// What was kept of it can't be read.
    Unreadable,
    /// There is nothing to keep it in.
    Unknown,
}

impl Cause {
    /// The word that programs see.
    pub fn text(self) -> &'static str {
        match self {
            Self::FirstBoot => "first_boot",
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
            Self::Crash => "crash",
            Self::Panic => "panic",
            Self::Watchdog => "watchdog",
            Self::Unclean => "unclean",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
        }
    }

    /// A boot that ended so said how.
    fn told(self) -> bool {
        matches!(self, Self::Reboot | Self::Poweroff | Self::Halt | Self::Crash)
    }
}

impl From<Goal> for Cause {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Reboot => Self::Reboot,
            Goal::PowerOff => Self::Poweroff,
            Goal::Halt => Self::Halt,
        }
    }
}

/// A boot's last words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it ends.
    pub cause: Cause,
    /// Why, in words; some may be a container's.
    pub why: String,
    /// After how many milliseconds.
    pub uptime_ms: u64,
}

impl End {
    /// Of the present boot, at this moment.
    pub fn now(cause: Cause, why: &str) -> Self {
        Self { cause, why: cut(why, LONGEST_TEXT), uptime_ms: now_ms() }
    }

    /// As one line.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As a line of at most so many bytes, for which less is said of why.
    pub fn encode_within(&self, bytes: usize) -> String {
        let mut end = self.clone();
        loop {
            let line = end.encode();
            if line.len() <= bytes || end.why.is_empty() {
                return line;
            }
            // Each of its bytes takes six at most.
            let over = line.len().saturating_sub(bytes);
            end.why = cut(&end.why, end.why.len().saturating_sub(over.div_ceil(6)));
        }
    }

    /// Reads such a line, whoever wrote it.
    pub fn decode(line: &[u8]) -> Option<Self> {
        let end: Self = serde_json::from_slice(line).ok()?;
        Some(Self { why: cut(&end.why, LONGEST_TEXT), ..end })
    }

    fn told(&self) -> String {
        let how = match self.cause {
            Cause::Reboot => "started over: ",
            Cause::Poweroff => "switched off: ",
            Cause::Halt => "halted: ",
            _ => "",
        };
        format!("{how}{}", self.why)
    }
}

/// What is kept of the boot that is under way, or was last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    /// Its number: those before it on this data filesystem, and one.
    pub boot: u64,
    /// The kernel's name for it (`/proc/sys/kernel/random/boot_id`).
    pub id: String,
    /// None: it is under way.
    pub end: Option<End>,
}

impl Record {
    /// Of the boot with that number and id.
    pub fn new(boot: u64, id: &str, end: Option<End>) -> Self {
        Self { v: VERSION, boot, id: cut(id, LONGEST_ID), end }
    }

    /// Its bytes, [`RECORD`] of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.resize(RECORD.saturating_sub(1), b' ');
        bytes.push(b'\n');
        bytes
    }

    /// Reads whatever lies where a record should; why it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > RECORD {
            return Err(format!("it has more than {RECORD} bytes"));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|e| cut(&e.to_string(), 200))?;
        if record.v != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", record.v));
        }
        let end = record.end.map(|end| End { why: cut(&end.why, LONGEST_TEXT), ..end });
        Ok(Self::new(record.boot, &record.id, end))
    }
}

/// What others than PID 1 say of how the boot before ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The watchdog says that it reset the machine.
    pub watchdog: bool,
    /// The kernel's own last line of a panic.
    pub panic: Option<String>,
    /// Its last lines.
    pub kernel: Vec<String>,
    /// What PID 1 gave the kernel to keep.
    pub end: Option<End>,
}

/// What was found where the record should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing keeps one.
    Nowhere,
    /// There is none.
    Nothing,
    /// It can't be read, and why.
    Unreadable(String),
    /// It.
    Record(Record),
}

/// How the boot before ended, as the status tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// In a word.
    pub cause: Cause,
    /// In words, of which some may be a container's or the kernel's: to be escaped wherever they are shown.
    pub text: String,
    /// Its number; none: not known.
    pub boot: Option<u64>,
    /// How long it was up, in milliseconds; none: not known.
    pub uptime_ms: Option<u64>,
    /// The kernel's last lines, if it kept them.
    pub kernel: Vec<String>,
}

impl Previous {
    /// Not known, and why.
    pub fn unknown(why: &str) -> Self {
        Self { cause: Cause::Unknown, text: why.to_owned(), boot: None, uptime_ms: None, kernel: Vec::new() }
    }

    /// What follows from all that there is. Who has the last word is asked first: a kernel that panicked did so after whatever
    /// PID 1 said; a watchdog bites those that say nothing.
    pub fn judge(kept: Kept, evidence: Evidence) -> Self {
        let Evidence { watchdog, panic, kernel, end } = evidence;
        let mut previous = Self { kernel, ..Self::of(kept, end) };
        if let Some(line) = panic {
            let before =
                if previous.cause.told() { format!("; before that: {}", previous.text) } else { String::new() };
            previous.text = cut(&format!("its kernel panicked: {}{before}", cut(&line, 200)), LONGEST_TEXT);
            previous.cause = Cause::Panic;
        } else if watchdog && !previous.cause.told() {
            previous.cause = Cause::Watchdog;
            "its watchdog reset the machine, as nobody fed it any more".clone_into(&mut previous.text);
        }
        previous
    }

    fn of(kept: Kept, end: Option<End>) -> Self {
        let plain = |cause, text: &str| Self { cause, ..Self::unknown(text) };
        let told = |end: End, boot| Self {
            cause: end.cause,
            text: cut(&end.told(), LONGEST_TEXT),
            boot,
            uptime_ms: Some(end.uptime_ms),
            kernel: Vec::new(),
        };
        match (kept, end) {
            (Kept::Nowhere, None) => Self::unknown("nothing keeps how a boot ends: there is no data filesystem"),
            (Kept::Nowhere, Some(end)) => told(end, None),
            (Kept::Nothing, _) => plain(Cause::FirstBoot, "this is the first boot that the data filesystem knows of"),
            (Kept::Unreadable(why), _) => {
                plain(Cause::Unreadable, &cut(&format!("what is kept of it can't be read: {why}"), LONGEST_TEXT))
            }
            (Kept::Record(Record { boot, end: Some(end), .. }), _)
            // The disk took no more.
            | (Kept::Record(Record { boot, end: None, .. }), Some(end)) => told(end, Some(boot)),
            (Kept::Record(Record { boot, end: None, .. }), None) => {
                let text = "ended without a word: power was lost, the machine was reset, or its kernel died";
                Self { boot: Some(boot), ..plain(Cause::Unclean, text) }
            }
        }
    }

    /// The line for a person.
    pub fn sentence(&self) -> String {
        if matches!(self.cause, Cause::FirstBoot | Cause::Unknown) {
            return self.text.clone();
        }
        let number = self.boot.map(|boot| format!(" (number {boot})")).unwrap_or_default();
        let after = self.uptime_ms.map(|ms| format!(", after {}", duration(ms))).unwrap_or_default();
        format!("the boot before this one{number}{after}: {}", self.text)
    }
}

impl Places {
    /// What the `stop` worker is told of the end: where to keep it, and it. `kept`: the data filesystem is there.
    pub fn arguments(&self, kept: bool, end: &End) -> [OsString; 5] {
        let directory = if kept { self.directory.clone() } else { PathBuf::new() };
        let [pmsg, log, always_dump] = [&self.pmsg, &self.log, &self.always_dump].map(|path| path.clone().into());
        [directory.into(), pmsg, log, always_dump, end.encode().into()]
    }
}

/// At most so many bytes of a text, between two characters.
fn cut(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(cause: Cause, why: &str) -> Kept {
        Kept::Record(Record::new(7, "id", Some(End { cause, why: why.into(), uptime_ms: 61_000 })))
    }

    fn judged(kept: Kept) -> Previous {
        Previous::judge(kept, Evidence::default())
    }

    #[test]
    fn an_orderly_end_is_told_with_its_reason() {
        let previous = judged(ended(Cause::Reboot, "web was given up"));
        assert_eq!((previous.cause, previous.boot, previous.uptime_ms), (Cause::Reboot, Some(7), Some(61_000)));
        assert_eq!(
            previous.sentence(),
            "the boot before this one (number 7), after 61 s: started over: web was given up"
        );
        assert_eq!(judged(ended(Cause::Poweroff, "x")).text, "switched off: x");
        assert_eq!(judged(ended(Cause::Halt, "x")).text, "halted: x");
        assert_eq!(judged(ended(Cause::Crash, "PID 1 crashed")).text, "PID 1 crashed");
    }

    #[test]
    fn an_end_without_a_word_is_told_from_a_first_boot_and_from_nothing() {
        let running = Kept::Record(Record::new(3, "id", None));
        let previous = judged(running);
        assert_eq!((previous.cause, previous.boot, previous.uptime_ms), (Cause::Unclean, Some(3), None));
        assert_eq!(judged(Kept::Nothing).cause, Cause::FirstBoot);
        assert_eq!(judged(Kept::Nowhere).cause, Cause::Unknown);
        let unreadable = judged(Kept::Unreadable("it is torn".into()));
        assert!(unreadable.cause == Cause::Unreadable && unreadable.text.ends_with("it is torn"), "{unreadable:?}");
    }

    #[test]
    fn who_spoke_last_is_believed() {
        let watchdog = Evidence { watchdog: true, ..Evidence::default() };
        let panic = Evidence {
            panic: Some("Kernel panic - not syncing: x".into()),
            kernel: vec!["Kernel panic - not syncing: x".into(), "Kernel Offset: disabled".into()],
            watchdog: true,
            end: None,
        };
        let cause = |kept: Kept, evidence: &Evidence| Previous::judge(kept, evidence.clone()).cause;
        let running = || Kept::Record(Record::new(3, "id", None));
        assert_eq!(cause(running(), &watchdog), Cause::Watchdog);
        assert_eq!(cause(Kept::Nowhere, &watchdog), Cause::Watchdog);
        // It may bite a machine that is on its way down; why that was so is worth more.
        assert_eq!(cause(ended(Cause::Reboot, "asked"), &watchdog), Cause::Reboot);
        assert_eq!(cause(running(), &panic), Cause::Panic);
        let late = Previous::judge(ended(Cause::Reboot, "asked"), panic);
        assert_eq!(late.text, "its kernel panicked: Kernel panic - not syncing: x; before that: started over: asked");
        assert_eq!(late.kernel.len(), 2);
    }

    #[test]
    fn what_the_kernel_kept_for_pid_1_serves_without_a_disk() {
        let end = End { cause: Cause::Crash, why: "twice".into(), uptime_ms: 5 };
        let evidence = || Evidence { end: Some(end.clone()), ..Evidence::default() };
        let previous = Previous::judge(Kept::Nowhere, evidence());
        assert_eq!((previous.cause, &*previous.text, previous.boot), (Cause::Crash, "twice", None));
        let unwritten = Previous::judge(Kept::Record(Record::new(3, "id", None)), evidence());
        assert_eq!((unwritten.cause, &*unwritten.text, unwritten.boot), (Cause::Crash, "twice", Some(3)));
        // The disk, where there is one, is what is written to.
        assert_eq!(Previous::judge(ended(Cause::Halt, "x"), evidence()).cause, Cause::Halt);
    }

    #[test]
    fn a_line_is_as_short_as_is_wanted() {
        for why in ["x".repeat(500), "\u{1}é".repeat(180), "no".into()] {
            let end = End { cause: Cause::Crash, why, uptime_ms: 5 };
            let line = end.encode_within(300);
            assert!(line.len() <= 300, "{line}");
            let read = End::decode(line.as_bytes()).unwrap();
            assert!(end.why.starts_with(&read.why) && (read == end || line.len() > 280), "{line}");
        }
        assert!(End::decode(End::now(Cause::Crash, "x").encode_within(0).as_bytes()).is_some());
    }

    #[test]
    fn the_longest_record_is_as_long_as_any() {
        let end = End { cause: Cause::Crash, why: "\u{1}".repeat(10_000), uptime_ms: u64::MAX };
        let record = Record::new(u64::MAX, &"\u{1}".repeat(100), Some(End { why: cut(&end.why, LONGEST_TEXT), ..end }));
        assert_eq!(record.encode().len(), RECORD);
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        let whole = Record::new(3, "id", None).encode();
        for bad in [&b""[..], &whole[..20], b"{\"v\":1}", &[b'x'; 9000]] {
            assert!(Record::decode(bad).is_err());
        }
        let newer = String::from_utf8(whole).unwrap().replace("\"v\":1", "\"v\":2");
        assert_eq!(Record::decode(newer.as_bytes()), Err("it is of version 2, not 1".into()));
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(boot: u64, id in "[0-9a-f-]{36}", why in any::<String>(), up: u64, ended: bool) {
            let end = ended.then(|| End { cause: Cause::Poweroff, why: cut(&why, LONGEST_TEXT), uptime_ms: up });
            let record = Record::new(boot, &id, end);
            let bytes = record.encode();
            prop_assert_eq!(bytes.len(), RECORD);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_bounded_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
            match Record::decode(&bytes) {
                Ok(record) => prop_assert!(record.encode().len() == RECORD),
                Err(why) => prop_assert!(why.len() <= 200),
            }
        }

        #[test]
        fn a_torn_or_flipped_record_never_tells_more_than_it_may(at in 0usize..RECORD, bit in 0u8..8, length in 0usize..=RECORD) {
            let end = End { cause: Cause::Reboot, why: "asked".into(), uptime_ms: 5 };
            let mut bytes = Record::new(3, "id", Some(end)).encode();
            bytes[at] ^= 1 << bit;
            bytes.truncate(length);
            let kept = match Record::decode(&bytes) {
                Ok(record) => Kept::Record(record),
                Err(why) => Kept::Unreadable(why),
            };
            prop_assert!(Previous::judge(kept, Evidence::default()).text.len() <= LONGEST_TEXT);
        }
    }
}
