//! The `words` worker: how did the boot before end, and that this one is under way. The `stop` worker adds how this one ends.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{emit, own_file, pstore, report};
use crate::kept::boot_id;
use crate::last_words::{Cause, End, Evidence, Kept, Previous, RECORD, Record};

const NAME: &str = "last-words";
/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// A record of the kernel's log has 1,024 bytes, some of which are its head and the line feed.
const LOG_LINE: usize = 900;

/// `directory` is where the record is kept, `pstore` where the kernel shows what it kept, each empty for nowhere; `watchdog` is
/// `reset` if it says that it reset the machine. What is known is told before anything is written: a disk that hangs only then is
/// known to have worked.
pub fn run(arguments: &[String]) -> i32 {
    let [directory, pstore, watchdog] = arguments else { return 1 };
    let id = boot_id();
    let mount = pstore::mount(pstore);
    let evidence = Evidence { watchdog: watchdog == "reset", ..pstore::look(Path::new(pstore)) };
    let kept = if directory.is_empty() { Kept::Nowhere } else { look(directory) };
    // What can't be read, too, is replaced; what is counted begins anew then.
    let boot = if let Kept::Record(record) = &kept { record.boot.saturating_add(1) } else { 1 };
    let told = emit(&report::Words::Previous(Previous::judge(kept, evidence)));
    // Told: the flash that it lies in isn't to fill up.
    pstore::clear(Path::new(pstore));
    drop(mount);
    if directory.is_empty() {
        return told;
    }
    emit(&match write(directory, &Record::new(boot, &id, None)) {
        Ok(()) => report::Words::Kept(boot),
        Err(fault) => report::Words::Fault(fault),
    })
}

/// Keeps how this boot ends: in the record in a directory, or else, if there is one, in what the kernel keeps for PID 1. Nobody is
/// left to be told that it failed.
pub fn end(arguments: &[String]) {
    let [directory, pmsg, log, always_dump, end] = arguments else { return };
    let Some(end) = End::decode(end.as_bytes()) else { return };
    let kept = !directory.is_empty() && keep_end(directory, end.clone()).is_ok() && !is_memory(directory);
    // Flash is small, and wears: who asked for an end in order is not worth it.
    if !kept && tell_kernel(pmsg, &end).is_err() && end.cause == Cause::Crash {
        let _ = leave_in_log(log, always_dump, &end);
    }
}

/// A PID 1 that gives up doesn't know whether the data filesystem is one that outlives the machine.
fn is_memory(directory: &str) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|found| found.f_type == TMPFS)
}

fn keep_end(directory: &str, end: End) -> Result<(), String> {
    let id = boot_id();
    let boot = match look(directory) {
        Kept::Record(record) if record.id == id => record.boot,
        // It was never said that this one is under way.
        Kept::Record(record) => record.boot.saturating_add(1),
        _ => 1,
    };
    write(directory, &Record::new(boot, &id, Some(end)))
}

/// What lies where the record should.
fn look(directory: &str) -> Kept {
    let limit = u64::try_from(RECORD).unwrap_or(0).saturating_add(1);
    match own_file::read(Path::new(directory), NAME, limit) {
        Ok(bytes) => Record::decode(&bytes).map_or_else(Kept::Unreadable, Kept::Record),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Kept::Nothing,
        Err(e) => Kept::Unreadable(e.to_string()),
    }
}

/// Replaces the record, and makes its directory first if need be.
fn write(directory: &str, record: &Record) -> Result<(), String> {
    let place = Path::new(directory);
    let bytes = record.encode();
    let kept = match own_file::replace(place, NAME, &bytes) {
        // Better a record that a power cut could tear than one that says what isn't so any more.
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOSPC | Errno::DQUOT)) => {
            overwrite(place, &bytes).map_err(|_| e)
        }
        other => other,
    };
    kept.map_err(|e| format!("keep in {directory} how this boot goes: {e}; the next one won't know how it ended"))
}

/// On a full disk: what is as long needs no room.
fn overwrite(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = own_file::open(&own_file::open_directory(directory)?, NAME, OFlags::WRONLY)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// What the kernel has for it keeps lines.
fn tell_kernel(pmsg: &str, end: &End) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let device = rustix::fs::open(OsStr::new(pmsg), flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&device)?.st_mode) != FileType::CharacterDevice {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::File::from(device).write_all(format!("\n{}\n", end.encode()).as_bytes())
}

/// Writes it to the kernel's log, which is to outlive the machine: the kernel has a place for its own last lines on machines where PID 1 has none.
fn leave_in_log(log: &str, always_dump: &str, end: &End) -> io::Result<()> {
    let open = |path: &str| std::fs::File::options().write(true).open(path);
    let words = end.encode_within(LOG_LINE.saturating_sub(pstore::WORDS.len()));
    // In one write, which is one record; less urgent than what `quiet` has the kernel print.
    open(log)?.write_all(format!("<6>{}{words}\n", pstore::WORDS).as_bytes())?;
    open(always_dump)?.write_all(b"Y\n")
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use rustix::mount::{MountFlags, UnmountFlags};
    use tempfile::TempDir;

    use super::*;

    /// The directory that a worker makes in a new data filesystem.
    fn place() -> (TempDir, String) {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join(".garboard").to_str().unwrap().to_owned();
        (data, directory)
    }

    fn boot(directory: &str, number: u64, id: &str) {
        write(directory, &Record::new(number, id, None)).unwrap();
    }

    fn asked(why: &str) -> End {
        End { cause: Cause::Reboot, why: why.into(), uptime_ms: 5 }
    }

    fn record(directory: &str) -> Record {
        match look(directory) {
            Kept::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_boot_is_under_way_until_it_says_how_it_ends() {
        let (_data, directory) = place();
        assert_eq!(look(&directory), Kept::Nothing);
        boot(&directory, 1, "a");
        assert_eq!(record(&directory), Record::new(1, "a", None));
        let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(&format!("{directory}/{NAME}"))), (0o700, 0o600));
        keep_end(&directory, asked("x")).unwrap();
        // It was of another boot: this one is the next.
        let id = std::fs::read_to_string(crate::kept::BOOT_ID).unwrap();
        assert_eq!(record(&directory), Record::new(2, id.trim(), Some(asked("x"))));
        keep_end(&directory, asked("y")).unwrap();
        assert_eq!(record(&directory), Record::new(2, id.trim(), Some(asked("y"))));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn whatever_lies_there_is_bounded_said_and_replaced() {
        let (data, directory) = place();
        std::fs::create_dir(&directory).unwrap();
        let path = PathBuf::from(&directory).join(NAME);
        std::fs::write(data.path().join("elsewhere"), "precious").unwrap();
        let new = PathBuf::from(&directory).join(format!("{NAME}.new"));
        let clear = || {
            let _ = std::fs::remove_file(&path);
        };
        let cases: [(&str, &dyn Fn()); 7] = [
            ("garbage", &|| std::fs::write(&path, [0xff; 100]).unwrap()),
            ("torn", &|| std::fs::write(&path, &Record::new(1, "a", None).encode()[..25]).unwrap()),
            ("empty", &|| std::fs::write(&path, "").unwrap()),
            ("huge", &|| std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap()),
            ("link", &|| symlink(data.path().join("elsewhere"), &path).unwrap()),
            ("directories", &|| {
                std::fs::create_dir_all(path.join("in/it")).unwrap();
                std::fs::create_dir_all(new.join(OsStr::from_bytes(b"no \xff text"))).unwrap();
            }),
            ("pipe", &|| {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
            }),
        ];
        for (name, make) in cases {
            clear();
            make();
            let Kept::Unreadable(why) = look(&directory) else { panic!("{name}") };
            assert!(!why.is_empty() && why.len() <= 200, "{name}: {why}");
            boot(&directory, 1, "a");
            assert_eq!(record(&directory).boot, 1, "{name}");
        }
        assert_eq!(std::fs::read(data.path().join("elsewhere")).unwrap(), b"precious");
        // Nor is a directory that is none followed.
        std::fs::remove_dir_all(&directory).unwrap();
        symlink(data.path(), &directory).unwrap();
        assert!(matches!(look(&directory), Kept::Unreadable(_)));
        assert!(write(&directory, &Record::new(1, "a", None)).is_err());
    }

    /// A filesystem of 64 KiB, for this test only.
    struct Small(TempDir);

    impl Small {
        fn new() -> Self {
            let at = tempfile::tempdir().unwrap();
            let options = CString::new("size=64k").unwrap();
            rustix::mount::mount("tmpfs", at.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
            Self(at)
        }

        fn directory(&self) -> String {
            self.0.path().join(".garboard").to_str().unwrap().to_owned()
        }

        fn fill(&self) {
            let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
            while file.write_all(&[1; 4096]).is_ok() {}
        }

        fn remount(&self, flags: MountFlags) {
            rustix::mount::mount_remount(self.0.path(), flags, "").unwrap();
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
        }
    }

    #[test]
    fn a_full_disk_keeps_the_record_up_to_date() {
        let disk = Small::new();
        boot(&disk.directory(), 4, "a");
        let before = std::fs::metadata(format!("{}/{NAME}", disk.directory())).unwrap().ino();
        disk.fill();
        keep_end(&disk.directory(), asked("full")).unwrap();
        assert_eq!(record(&disk.directory()).end, Some(asked("full")));
        let after = std::fs::metadata(format!("{}/{NAME}", disk.directory())).unwrap().ino();
        assert_eq!(before, after, "the control: there was no room for another");
    }

    #[test]
    fn where_nothing_can_be_kept_that_is_said() {
        let full = Small::new();
        full.fill();
        let fault = write(&full.directory(), &Record::new(1, "a", None)).unwrap_err();
        assert!(fault.contains("No space left on device") && fault.contains(".garboard"), "{fault}");
        let disk = Small::new();
        boot(&disk.directory(), 4, "a");
        disk.remount(MountFlags::RDONLY);
        assert_eq!(record(&disk.directory()).boot, 4, "it is read all the same");
        let fault = write(&disk.directory(), &Record::new(5, "b", None)).unwrap_err();
        assert!(fault.contains("Read-only file system"), "{fault}");
    }

    #[test]
    fn the_kernel_is_told_through_its_device_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(tell_kernel(file.path().to_str().unwrap(), &asked("x")).is_err());
        assert!(tell_kernel("/nowhere", &asked("x")).is_err());
        tell_kernel("/dev/null", &asked("x")).unwrap();
    }

    /// What is in the log, and whether the kernel is to keep it.
    fn left_in_log(directory: &str, pmsg: &str, end: &End) -> (String, String) {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        for name in ["log", "dump"] {
            std::fs::write(path(name), "").unwrap();
        }
        super::end(&[directory.to_owned(), pmsg.to_owned(), path("log"), path("dump"), end.encode()]);
        (std::fs::read_to_string(path("log")).unwrap(), std::fs::read_to_string(path("dump")).unwrap())
    }

    #[test]
    fn only_a_crash_that_nothing_else_keeps_is_left_in_the_log() {
        let crash = End { cause: Cause::Crash, why: "\u{1}".repeat(500), uptime_ms: 7 };
        let (log, dump) = left_in_log("", "", &crash);
        assert!(log.len() < 1000 && log.matches('\n').count() == 1, "{log}");
        let line = log.strip_prefix(&format!("<6>{}", pstore::WORDS)).unwrap();
        assert_eq!(End::decode(line.as_bytes()).map(|end| (end.cause, end.uptime_ms)), Some((Cause::Crash, 7)));
        assert_eq!(dump, "Y\n");
        // Nor is what only memory keeps kept.
        let memory = Small::new();
        assert_eq!(left_in_log(&memory.directory(), "", &crash).1, "Y\n");
        // The controls.
        let nothing = (String::new(), String::new());
        assert_eq!(left_in_log("", "", &asked("x")), nothing);
        assert_eq!(left_in_log("", "/dev/null", &crash), nothing);
        let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let disk = tempfile::tempdir_in(disk).unwrap();
        assert_eq!(left_in_log(disk.path().join("x").to_str().unwrap(), "", &crash), nothing);
    }
}
