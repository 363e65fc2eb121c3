//! What a container has written above its layers, beside criu's images of it. The layers themselves aren't: like a root that is a
//! directory, they are to be where it is made anew.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::clear;
use super::driver::Driver;
use super::kept::{self, Kept};
use super::removal::DIRECTORY;
use crate::container::error::{During, Error, Result};
use crate::container::record::Record;
use crate::container::store::Entry;
use crate::fill::copy;

/// Its directory among the images. Nobody but root may look into it: there may be programs with the setuid bit.
const PLACE: &str = "layers";
const UPPER: &str = "upper";
/// The name of the driver that understands it.
const DRIVER: &str = "driver";

/// Refuses roots that criu, which isn't in the container's user namespace, may not look into.
pub(crate) fn expect_open(entry: &Entry) -> Result<()> {
    let has_ids = Kept::find(entry)?.is_some_and(|kept| kept.has_ids());
    if !has_ids || kept::driver_of(entry)? != Some(Driver::Fuse) {
        return Ok(());
    }
    let why = "FUSE lets nobody outside a user namespace see what is mounted in it, not even criu: use overlay or copy";
    Err(Error::new(format!("annotations[{}]: fuse-overlayfs: {why}", super::DRIVER)))
}

/// Saves what the container of `entry` has written, while it stands still.
pub(crate) fn save(entry: &Entry, record: &Record, images: &Path) -> Result<()> {
    let unknown =
        || Error::new(format!("save what container {} has written: its layers aren't written down", entry.id()));
    let kept = Kept::find(entry)?.ok_or_else(unknown)?;
    let driver = kept::driver_of(entry)?.ok_or_else(unknown)?;
    let place = images.join(PLACE);
    let what = || format!("make {}", place.display());
    match std::fs::create_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.during(what)?,
    }
    let own = open(&place)?;
    rustix::fs::fchmod(&own, Mode::RWXU).during(what)?;
    // What an earlier checkpoint has left would come back.
    clear::everything_in(own.as_fd(), None).during(|| format!("empty {}", place.display()))?;
    rustix::fs::mkdirat(&own, UPPER, Mode::RWXU).during(what)?;
    if driver == Driver::Fuse {
        // The kernel may hold back what the program hasn't been told yet.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = format!("/proc/{}/root", record.pid);
        let root = rustix::fs::open(root, flags, Mode::empty()).during(|| "open the container's root")?;
        rustix::fs::syncfs(root).during(|| "sync the container's root")?;
    }
    duplicate(&kept.upper(), &place.join(UPPER))?;
    std::fs::write(place.join(DRIVER), driver.name()).during(what)
}

/// Puts what was saved into the empty directory `upper`, and says which driver understands it.
pub(super) fn load(images: &Path, upper: &Path) -> Result<Driver> {
    let place = images.join(PLACE);
    let file = place.join(DRIVER);
    let name = std::fs::read_to_string(&file).during(|| format!("read {}: a root of layers", file.display()))?;
    let driver = Driver::named(name.trim());
    let driver = driver.ok_or_else(|| Error::new(format!("read {}: there is no driver {name:?}", file.display())))?;
    duplicate(&place.join(UPPER), upper)?;
    Ok(driver)
}

fn duplicate(from: &Path, to: &Path) -> Result<()> {
    copy::layer(open(from)?.as_fd(), open(to)?.as_fd())
        .or_else(|(path, errno)| Err(errno).during(|| format!("copy {}{path} to {}", from.display(), to.display())))
}

fn open(directory: &Path) -> Result<OwnedFd> {
    rustix::fs::open(directory, DIRECTORY, Mode::empty()).during(|| format!("open {}", directory.display()))
}
