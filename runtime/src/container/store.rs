//! The state directories: one per container beneath the runtime's root, made exclusively, locked by whoever changes it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use rustix::fs::{Access, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, PidfdFlags, Signal, fcntl_getlk, pidfd_open, pidfd_send_signal};

use super::error::{During, Error, Result};
use super::record::{Record, Status};
use super::{cgroup, gate, process};

/// Where containers are written down.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// One container's state directory.
#[derive(Debug)]
pub struct Entry {
    id: String,
    root: PathBuf,
    directory: OwnedFd,
    /// What is locked, as long as this process has the lock: to close any other descriptor of that file would give it up (fcntl(2),
    /// "Record locks").
    locked: RefCell<Weak<OwnedFd>>,
    /// The record that this process has written. As long as it is open, no other file can be it.
    written: RefCell<Option<OwnedFd>>,
}

/// The right to change a container: a lock of this process, which no child inherits and which ends with it.
#[derive(Debug)]
pub struct Lock {
    file: Rc<OwnedFd>,
}

/// The file that keeps the configuration, as it was read.
pub(crate) const CONFIGURATION: &str = "config.json";
const RECORD: &str = "state.json";
const NEW_RECORD: &str = "state.json.new";
/// What is locked. While the container is being made, [`CREATING`] stands in it, and its cgroup's path, which is to be removed if
/// its maker dies early.
const LOCK: &str = "lock";
const CREATING: &str = "creating ";
/// A cgroup's path is no longer.
const LONGEST_LOCK: usize = 8192;
/// Begins the name of a state directory that is being removed; no id has it.
const GRAVE: char = '~';

impl Store {
    /// The store at `root`, or at the usual place of this user.
    pub fn new(root: Option<PathBuf>) -> Result<Self> {
        let root = match root {
            // What is in it is mounted, and looked for by processes that are elsewhere.
            Some(root) => std::path::absolute(&root).during(|| format!("make the path {} absolute", root.display()))?,
            None => usual_root()?,
        };
        Ok(Self { root })
    }

    /// Claims `id`: its state directory is made and locked. An id that is taken is an error.
    pub fn claim(&self, id: &str) -> Result<(Entry, Lock)> {
        check_id(id)?;
        let path = self.root.join(id);
        let made = match mkdir(&path) {
            Err(Errno::NOENT) => make_root(&self.root).and_then(|()| mkdir(&path)),
            other => other,
        };
        if made == Err(Errno::EXIST) {
            return Err(Error::new(format!("container with given ID already exists: {id}")));
        }
        made.during(|| format!("make the state directory {}", path.display()))?;
        let claimed = self.find(id).and_then(|entry| entry.lock().map(|lock| (entry, lock)));
        if claimed.is_err() {
            let _ = std::fs::remove_dir(&path);
        }
        claimed
    }

    /// The container `id`, which must exist.
    pub fn find(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let path = self.root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(Error::new(format!("container does not exist: {id}"))),
            other => {
                let directory = other.during(|| format!("open the state directory {}", path.display()))?;
                Ok(Entry {
                    id: id.to_owned(),
                    root: self.root.clone(),
                    directory,
                    locked: RefCell::default(),
                    written: RefCell::default(),
                })
            }
        }
    }

    /// All ids, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.during(|| format!("read {}", self.root.display()))?;
            if let Some(id) = entry.file_name().to_str().filter(|id| check_id(id).is_ok()) {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }
}

impl Entry {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The path of one of its files, for programs that want one.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(&self.id).join(name)
    }

    /// Waits until nobody else changes the container. It may be gone by then, which is an error.
    pub fn lock(&self) -> Result<Lock> {
        self.wait_for(self.open_lock()?)
    }

    /// The same for who wants the container gone: whoever changes it may wait for a hook that never ends, and is made to give up.
    pub fn lock_by_force(&self) -> Result<Lock> {
        let file = self.open_lock()?;
        let locked = rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
        if matches!(locked, Err(Errno::AGAIN | Errno::ACCESS)) {
            self.interrupt(&file).during(|| format!("interrupt who changes container {}", self.id))?;
        }
        self.wait_for(file)
    }

    /// Kills who makes the container, in which hooks run. Once it is made its process is killed, and with it who is started waits for no
    /// more. Nobody else who has the lock is meant: they change little, and soon end.
    fn interrupt(&self, lock: &OwnedFd) -> std::result::Result<(), Errno> {
        // What can't be read is for the caller to tell when it has the lock.
        let Ok(record) = self.record() else { return Ok(()) };
        let found = if rustix::fs::fstat(lock)?.st_size > 0 {
            let holder = fcntl_getlk(lock, &Flock::from(FlockType::WriteLock))?.and_then(|lock| lock.pid);
            let Some(holder) = holder.filter(|_| record.pid > 0) else { return Ok(()) };
            let pidfd = match pidfd_open(holder, PidfdFlags::empty()) {
                Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
                other => other?,
            };
            // Its maker is its parent. Read after the descriptor was opened, as with the start time.
            let is_maker = |stat: process::Stat| {
                (stat.parent, stat.start_time) == (holder.as_raw_nonzero().get(), record.start_time)
            };
            process::stat(record.pid).is_some_and(is_maker).then_some(pidfd)
        } else {
            process::open(record.pid, record.start_time)?
        };
        match found.map_or(Ok(()), |pidfd| pidfd_send_signal(pidfd, Signal::KILL)) {
            Err(Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    fn gone(&self) -> Error {
        Error::new(format!("container does not exist: {}", self.id))
    }

    fn open_lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.directory, LOCK, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::NOENT) => Err(self.gone()),
            other => other.during(|| format!("lock container {}", self.id)),
        }
    }

    fn wait_for(&self, file: OwnedFd) -> Result<Lock> {
        loop {
            match rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => break other.during(|| format!("lock container {}", self.id))?,
            }
        }
        let here = rustix::fs::stat(self.root.join(&self.id)).map(|stat| (stat.st_dev, stat.st_ino));
        let ours = rustix::fs::fstat(&self.directory).map(|stat| (stat.st_dev, stat.st_ino));
        // Deleted, and perhaps made anew, while this process waited.
        if here.is_err() || here != ours {
            return Err(self.gone());
        }
        let file = Rc::new(file);
        self.locked.replace(Rc::downgrade(&file));
        Ok(Lock { file })
    }

    /// What stands in the lock.
    fn read_lock(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.locked.borrow().upgrade() else { return self.read(LOCK) };
        let mut bytes = vec![0; LONGEST_LOCK];
        let n = rustix::io::pread(&file, &mut bytes, 0).during(|| format!("read {}", self.path(LOCK).display()))?;
        bytes.truncate(n);
        Ok(Some(bytes))
    }

    /// What is written down. A container whose maker died early has a record with no process.
    pub fn record(&self) -> Result<Record> {
        match self.read(RECORD)? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::new(format!("read {}: {error}", self.path(RECORD).display()))),
            None => {
                let creating = self.read_lock()?.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
                let cgroup = creating.strip_prefix(CREATING).filter(|path| !path.is_empty()).map(str::to_owned);
                Ok(Record { id: self.id.clone(), cgroup, ..Record::default() })
            }
        }
    }

    /// Writes it down, once.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::new(format!("{RECORD}: {error}")))?;
        let file = self.write_file(NEW_RECORD, &bytes)?;
        rustix::fs::renameat(&self.directory, NEW_RECORD, &self.directory, RECORD)
            .during(|| format!("write {}", self.path(RECORD).display()))?;
        self.written.replace(Some(file));
        Ok(())
    }

    /// What is written down by now, given what this process has written: another one may have changed it.
    pub fn record_now<'a>(&self, written: &'a Record) -> Result<Cow<'a, Record>> {
        let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let own = self.written.borrow().as_ref().map(|file| rustix::fs::fstat(file).map(identity));
        let now = rustix::fs::statat(&self.directory, RECORD, AtFlags::SYMLINK_NOFOLLOW).map(identity);
        if now.is_ok() && own == Some(now) { Ok(Cow::Borrowed(written)) } else { self.record().map(Cow::Owned) }
    }

    /// Writes down what the container will have besides its process and its cgroup, if anything, so that it is given back if its maker dies
    /// early. It is no container yet for who looks at it.
    pub fn write_intended(&self, record: &Record) -> Result<()> {
        if record.resctrl.is_none() {
            return Ok(());
        }
        let (id, cgroup, resctrl) = (record.id.clone(), record.cgroup.clone(), record.resctrl.clone());
        self.write_record(&Record { id, cgroup, resctrl, ..Record::default() })
    }

    /// Writes one of its files.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_file(name, bytes).map(drop)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || {
            let file = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))?;
            let mut rest = bytes;
            while !rest.is_empty() {
                let n = rustix::io::write(&file, rest)?;
                rest = rest.get(n..).unwrap_or(&[]);
            }
            Ok::<_, Errno>(file)
        };
        write().during(|| format!("write {}", self.path(name).display()))
    }

    /// Whether one of its files may be there. Takes no descriptor, for want of which the container may be undone.
    pub fn may_hold(&self, name: &str) -> bool {
        rustix::fs::accessat(&self.directory, name, Access::EXISTS, AtFlags::empty()) != Err(Errno::NOENT)
    }

    /// Reads one of its files; `None`: it doesn't exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.during(|| format!("read {}", self.path(name).display()))?,
        };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)
            .during(|| format!("read {}", self.path(name).display()))?;
        Ok(Some(bytes))
    }

    /// Where the container is in its life, and its process while that lives.
    pub fn status(&self, record: &Record) -> Result<(Status, Option<OwnedFd>)> {
        let process = process::open(record.pid, record.start_time)
            .during(|| format!("look at process {} of container {}", record.pid, self.id))?;
        let status = if process.is_none() {
            if record.pid == 0 && self.is_locked() { Status::Creating } else { Status::Stopped }
        } else if rustix::fs::statat(&self.directory, LOCK, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|lock| lock.st_size > 0)
        {
            Status::Creating
        } else if cgroup::is_frozen(record) {
            // Before it was started, too: it doesn't come to its gate.
            Status::Paused
        } else if gate::is_closed(self.directory()) {
            Status::Created
        } else {
            Status::Running
        };
        Ok((status, process))
    }

    /// The same of one that is looked at from outside: what has neither a record nor somebody who is making it is no container.
    pub fn look(&self) -> Result<(Record, Status)> {
        let record = self.record()?;
        let (status, _) = self.status(&record)?;
        if record.oci_version.is_empty() && status == Status::Stopped {
            return Err(Error::new(format!(
                "container does not exist: {}: its state directory has no record",
                self.id
            )));
        }
        Ok((record, status))
    }

    /// Whether another process changes the container at this moment.
    pub(crate) fn is_locked(&self) -> bool {
        if self.locked.borrow().strong_count() > 0 {
            return false;
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, LOCK, flags, Mode::empty())
            .is_ok_and(|file| rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
    }

    /// Removes the state directory: first from its name, so that the container is there whole or not at all. Needs no further
    /// descriptor, as want of one may be why it is removed.
    pub fn remove(&self) -> Result<()> {
        let (path, grave) = (self.root.join(&self.id), self.root.join(format!("{GRAVE}{}", self.id)));
        let what = || format!("remove {}", path.display());
        match rustix::fs::rename(&path, &grave) {
            // One of the same name that its remover didn't live to empty.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                std::fs::remove_dir_all(&grave).during(|| format!("remove {}", grave.display()))?;
                rustix::fs::rename(&path, &grave).during(what)?;
            }
            other => other.during(what)?,
        }
        loop {
            self.empty().during(|| format!("empty {}", grave.display()))?;
            match rustix::fs::rmdir(&grave) {
                // Somebody who waits for the lock has just made its file anew.
                Err(Errno::NOTEMPTY) => {}
                other => return other.during(|| format!("remove {}", grave.display())),
            }
        }
    }

    /// Removes all that the directory can hold.
    fn empty(&self) -> std::result::Result<(), Errno> {
        rustix::fs::seek(&self.directory, rustix::fs::SeekFrom::Start(0))?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        let mut entries = rustix::fs::RawDir::new(&self.directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => self.remove_directory(name)?,
                other => other?,
            }
        }
        Ok(())
    }

    /// The only directory there can be is that of the readiness socket.
    fn remove_directory(&self, name: &std::ffi::CStr) -> std::result::Result<(), Errno> {
        match rustix::fs::unlinkat(&self.directory, super::notify::PLACE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR)
    }
}

impl Lock {
    /// Says that the container is being made, with this cgroup.
    pub fn begin(&self, cgroup: Option<&str>) -> Result<()> {
        let text = format!("{CREATING}{}", cgroup.unwrap_or_default());
        match rustix::io::write(&self.file, text.as_bytes()) {
            Ok(n) if n == text.len() => Ok(()),
            Ok(_) => Err(Errno::NOSPC),
            Err(errno) => Err(errno),
        }
        .during(|| format!("write {LOCK}"))
    }

    /// Says that it is made.
    pub fn finish(&self) -> Result<()> {
        rustix::fs::ftruncate(&self.file, 0).during(|| format!("empty {LOCK}"))
    }
}

fn mkdir(path: &Path) -> std::result::Result<(), Errno> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))
}

/// The root and what is missing above it, closed to others: state says what runs, and the gates are in it.
fn make_root(root: &Path) -> std::result::Result<(), Errno> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// `/run/garboard-runtime` for root, beneath `XDG_RUNTIME_DIR` for an ordinary user.
fn usual_root() -> Result<PathBuf> {
    const NAME: &str = "garboard-runtime";
    if !super::is_ordinary_user() {
        return Ok(Path::new("/run").join(NAME));
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| path != OsStr::new("")) {
        Some(path) => Ok(Path::new(&path).join(NAME)),
        None => Err(Error::new("find the state directory: XDG_RUNTIME_DIR isn't set: set it or give --root")),
    }
}

/// One less than a file's name may be long: while a container is removed its directory has a name that is longer by one.
const LONGEST_ID: usize = 254;

/// One plain file name of letters, digits and `_ + - .`.
fn check_id(id: &str) -> Result<()> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if !id.is_empty() && plain && id != "." && id != ".." && id.len() <= LONGEST_ID {
        return Ok(());
    }
    // In words that callers of other runtimes know, where there is a character to name.
    let wrong = id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_+-.".contains(*c)));
    let wrong = wrong.map_or(String::new(), |wrong| format!(": invalid character `{wrong}` in the ID"));
    Err(Error::new(format!(
        "invalid container ID format: {id:?}{wrong}: it must be 1 to {LONGEST_ID} letters, digits, '_', '+', '-' or '.', and not '.' or '..'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork_into;

    /// Asked by another process, as a lock is no obstacle for its own.
    fn is_locked_for_others(file: &Path) -> bool {
        let child = fork_into(rustix::thread::UnshareFlags::empty(), None, libc::SIGCHLD, || {
            let file = rustix::fs::open(file, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            let locked = |file| rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).is_err();
            i32::from(file.as_ref().is_ok_and(locked))
        });
        crate::hook::wait(child.unwrap().pidfd.as_fd()).unwrap().exit_status() == Some(1)
    }

    #[test]
    fn who_has_the_lock_may_look_without_giving_it_up() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().to_owned())).unwrap();
        let (entry, lock) = store.claim("c").unwrap();
        lock.begin(Some("/its/cgroup")).unwrap();
        let file = entry.path(LOCK);
        assert!(is_locked_for_others(&file));
        // Its maker died, if it isn't this process: all that is known stands in the lock.
        let record = entry.record().unwrap();
        assert_eq!(record.cgroup.as_deref(), Some("/its/cgroup"));
        assert_eq!(entry.status(&record).unwrap().0, Status::Stopped);
        assert!(!entry.is_locked() && is_locked_for_others(&file));
        // Control: any descriptor of it that is closed gives it up.
        std::fs::read(&file).unwrap();
        assert!(!is_locked_for_others(&file));
        drop(lock);
    }

    #[test]
    fn what_another_process_has_changed_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Some(root.path().to_owned())).unwrap();
        let (entry, _lock) = store.claim("c").unwrap();
        let mut record = Record { id: "c".to_owned(), pid: 7, ..Record::default() };
        entry.write_record(&record).unwrap();
        assert!(matches!(entry.record_now(&record).unwrap(), Cow::Borrowed(_)));
        record.pid = 8;
        store.find("c").unwrap().write_record(&record).unwrap();
        record.pid = 9;
        assert_eq!(entry.record_now(&record).unwrap().pid, 8);
        // As for who has written nothing.
        assert_eq!(store.find("c").unwrap().record_now(&record).unwrap().pid, 8);
        std::fs::remove_file(entry.path(RECORD)).unwrap();
        assert_eq!(entry.record_now(&record).unwrap().pid, 0);
    }

    #[test]
    fn an_id_is_a_plain_name() {
        for id in ["a", "web-1", "A.b_c+d", ".foo", "...", "-x"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
