//! What a container with layers has on the disk, and the process that may serve it: written down in the state directory before it
//! is made, so that whoever deletes the container finds it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::driver::Driver;
use super::removal::{self, DIRECTORY};
use crate::container::error::{During, Error, Result};
use crate::container::store::Entry;
use crate::container::{life, process};
use crate::failure::{Context, Step};
use crate::launch::IdMap;
use crate::userns;

/// Its file in the state directory.
const FILE: &str = "storage";
/// The file of the driver's name.
const DRIVER: &str = "storage-driver";
/// The file of the daemon's process id and start time.
const DAEMON: &str = "storage-daemon";
/// Begins the name of a container's directory in the root's place.
pub(super) const PREFIX: &str = "garboard-";
/// So many bytes of an id are in it, as a name may have 255.
const MOST_OF_ID: usize = 190;

/// A container's directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where it lies: the configuration's root path.
    place: String,
    /// Its name there.
    name: String,
    /// Whose the files in it are: the container's ids.
    ids: Option<IdMap>,
}

impl Kept {
    /// A new one of container `id` in `place`, by a name that nobody else comes upon, as it will be removed by it. The name says
    /// which boot made it, as the state directory may not outlive that.
    pub(super) fn new(place: &str, id: &str, boot: &str, ids: Option<&IdMap>) -> Result<Self> {
        let mut random = [0; 8];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).during(|| "read /dev/urandom")?;
        let id = id.get(..MOST_OF_ID).unwrap_or(id);
        let name = format!("{PREFIX}{boot}-{id}-{:016x}", u64::from_ne_bytes(random));
        Ok(Self { place: place.to_owned(), name, ids: ids.cloned() })
    }

    /// Its path.
    pub(super) fn directory(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    /// Whether the container has ids of its own.
    pub(super) fn has_ids(&self) -> bool {
        self.ids.is_some()
    }

    /// What the container has written, or nothing yet.
    pub(super) fn upper(&self) -> PathBuf {
        self.path().join("upper")
    }

    fn path(&self) -> PathBuf {
        Path::new(&self.place).join(&self.name)
    }

    /// Writes down that it is made next.
    pub(super) fn write_down(&self, entry: &Entry) -> Result<()> {
        entry.write(FILE, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// What was written down. A runtime that was killed while it wrote has made nothing yet.
    pub(super) fn find(entry: &Entry) -> Result<Option<Self>> {
        Ok(entry.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Whether anything was written down.
    pub(super) fn may_exist(entry: &Entry) -> bool {
        entry.may_hold(FILE)
    }

    /// Makes it, with the directories for what is written, owned by the container's root.
    pub(super) fn make(&self) -> Result<()> {
        let path = self.path().display().to_string();
        let root = |ranges: fn(&IdMap) -> &[_]| userns::outside(0, self.ids.as_ref().map(ranges));
        let owner = (root(|ids| &ids.uids), root(|ids| &ids.gids));
        let make = || {
            let place = rustix::fs::open(self.place.as_str(), DIRECTORY, Mode::empty())?;
            let own = make_directory(place.as_fd(), &self.name, 0o700, owner)?;
            make_directory(own.as_fd(), "upper", 0o755, owner)?;
            make_directory(own.as_fd(), "work", 0o700, owner).map(drop)
        };
        Ok(make().at(Step::MakeStorage, || path)?)
    }

    /// Removes it with everything in it, if it is there.
    pub(super) fn remove(&self) -> Result<()> {
        let what = || format!("remove {}", self.path().display());
        let place = match rustix::fs::open(self.place.as_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.during(what)?,
        };
        let own = match rustix::fs::openat(&place, self.name.as_str(), DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.during(what)?,
        };
        removal::remove(place.as_fd(), &self.name, own.as_fd(), self.ids.as_ref(), None)
            .map_err(|failure| Error::new(format!("in {}: {failure}", self.place)))
    }
}

/// With its owner from the start, as nobody else can look into it.
fn make_directory(
    parent: BorrowedFd<'_>,
    name: &str,
    mode: u32,
    (uid, gid): (Option<u32>, Option<u32>),
) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?;
    let made = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    // Whatever the caller's umask is.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    let stat = rustix::fs::fstat(&made)?;
    if Some(stat.st_uid) != uid || Some(stat.st_gid) != gid {
        rustix::fs::fchown(&made, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    }
    Ok(made)
}

/// Writes down which driver has put the root together.
pub(super) fn write_driver_down(entry: &Entry, driver: Driver) -> Result<()> {
    entry.write(DRIVER, driver.name().as_bytes())
}

/// Which one it was.
pub(super) fn driver_of(entry: &Entry) -> Result<Option<Driver>> {
    Ok(entry.read(DRIVER)?.and_then(|name| Driver::named(&String::from_utf8_lossy(&name))))
}

/// Writes down which process serves the root.
pub(super) fn write_daemon_down(entry: &Entry, pid: i32) -> Result<()> {
    let start_time = process::start_time(pid).unwrap_or(0);
    entry.write(DAEMON, format!("{pid} {start_time}").as_bytes())
}

/// Ends it, if it hasn't ended with the mount that it served.
pub(super) fn end_daemon(entry: &Entry) -> Result<()> {
    let text = entry.read(DAEMON)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let numbers: Option<(i32, u64)> =
        text.split_once(' ').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let Some((pid, start_time)) = numbers else { return Ok(()) };
    let Some(process) = process::open(pid, start_time).during(|| "look at fuse-overlayfs")? else { return Ok(()) };
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => life::wait_for_end(process.as_fd(), pid),
        other => other.during(|| format!("kill fuse-overlayfs, process {pid}")),
    }
}
