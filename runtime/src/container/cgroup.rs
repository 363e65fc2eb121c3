//! Where a container's cgroup is: a path beneath the machine's cgroup2 mount, its parents made and their controllers enabled.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{During, Error, Result};
use super::record::Record;
use crate::cgroup as own;
use crate::launch::Cgroup;

/// `f_type` of cgroup2 (`linux/magic.h`).
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// Where it is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How long processes that were killed may take to go.
const GONE_BY: Duration = Duration::from_secs(10);

/// Who makes a container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// This runtime.
    #[default]
    Cgroupfs,
    /// systemd, as that of a scope.
    Systemd,
    /// Nobody: it has none of its own.
    Disabled,
}

/// A cgroup to be made.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory that it is made in.
    pub(crate) parent: OwnedFd,
    /// Its name there.
    pub(crate) name: String,
    /// Its path from the mount on.
    pub(crate) path: String,
}

/// The place for `cgroups_path` of a configuration, or the usual one of container `id`: beneath the mount, for an ordinary user
/// beneath this process's own cgroup. `None`: there is no cgroup2 mount, or an ordinary user has no right to make cgroups there.
pub(crate) fn place(cgroups_path: Option<&str>, id: &str) -> Result<Option<Place>> {
    let wanted = match cgroups_path.filter(|path| !path.is_empty()) {
        Some(path) => path.to_owned(),
        None if super::is_ordinary_user() => format!("{}/{id}", own_path().unwrap_or_default()),
        None => id.to_owned(),
    };
    let wanted = crate::compile::mounts::clean(&wanted);
    let wanted = wanted.as_ref();
    let names: Vec<&str> = wanted.split('/').filter(|name| !name.is_empty()).collect();
    let Some((name, parents)) = names.split_last() else {
        return Err(Error::new("config.json: linux.cgroupsPath: the root cgroup can't be a container's"));
    };
    let Some(mut parent) = mount()? else { return Ok(None) };
    let enter = |parent: &mut OwnedFd| -> std::result::Result<(), Errno> {
        enable_controllers(parent.as_fd());
        for name in parents {
            *parent = child(parent.as_fd(), name)?;
            enable_controllers(parent.as_fd());
        }
        if super::is_ordinary_user() {
            rustix::fs::accessat(parent.as_fd(), ".", rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::empty())?;
        }
        Ok(())
    };
    match enter(&mut parent) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if super::is_ordinary_user() => Ok(None),
        other => {
            other.during(|| format!("make the cgroup above {wanted}"))?;
            expect_unused(parent.as_fd(), name, wanted)?;
            Ok(Some(Place { parent, name: (*name).to_owned(), path: format!("/{}", names.join("/")) }))
        }
    }
}

/// The cgroup of this name in another, made if need be.
pub(super) fn child(parent: BorrowedFd<'_>, name: &str) -> std::result::Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// The cgroup that this process is in, from the mount on (cgroups(7), "/proc files"); `None`: version 1 has all there is.
fn own_path() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Refuses a cgroup that something else is in: it would be killed with the container. And a frozen one, in which nothing would start.
fn expect_unused(parent: BorrowedFd<'_>, name: &str, path: &str) -> Result<()> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) if own::populated(&dir)? => Err(Error::new(format!(
            "make cgroup {path}: container's cgroup is not empty: processes of something else live in it: choose another linux.cgroupsPath"
        ))),
        Ok(dir) if own::frozen(&dir)? => Err(Error::new(format!(
            "make cgroup {path}: container's cgroup unexpectedly frozen: write 0 to its cgroup.freeze"
        ))),
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).during(|| format!("make cgroup {path}")),
    }
}

/// The path of the cgroup that process `pid` is in (cgroups(7), `/proc/PID/cgroup`).
pub(crate) fn of_process(pid: i32) -> Result<String> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).during(|| format!("read {file}"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(str::to_owned).ok_or_else(|| Error::new(format!("read {file}: the process is in no cgroup of version 2")))
}

/// The cgroup that the container's first process was moved to, out of the container's own; `None`: nowhere.
pub(crate) fn moved(record: &Record) -> Result<Option<OwnedFd>> {
    let path = of_process(record.pid)?;
    if record.cgroup.as_deref() == Some(path.as_str()) { Ok(None) } else { open_path(&path) }
}

/// Where the container's cgroup is on this machine.
pub(crate) fn path(record: &Record) -> Result<Option<PathBuf>> {
    let Some(own) = open(record)? else { return Ok(None) };
    let link = format!("/proc/self/fd/{}", own.as_raw_fd());
    std::fs::read_link(&link).map(Some).during(|| format!("read {link}"))
}

/// The container's cgroup, if it has one and it exists.
pub(crate) fn open(record: &Record) -> Result<Option<OwnedFd>> {
    record.cgroup.as_deref().map_or(Ok(None), open_path)
}

fn open_path(path: &str) -> Result<Option<OwnedFd>> {
    let Some(mount) = mount()? else { return Ok(None) };
    // The root's has no name.
    let relative = format!("./{}", path.trim_start_matches('/'));
    match rustix::fs::openat(&mount, relative, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some).during(|| format!("open cgroup {path}")),
    }
}

/// Whether the container is paused.
pub(crate) fn is_frozen(record: &Record) -> bool {
    open(record).ok().flatten().is_some_and(|dir| own::frozen(&dir).unwrap_or(false))
}

/// Kills what is left in the container's cgroup and removes it.
pub(crate) fn remove(record: &Record) -> Result<()> {
    let Some(path) = &record.cgroup else { return Ok(()) };
    let Some(mount) = mount()? else { return Ok(()) };
    let relative = path.trim_start_matches('/');
    let (parent, name) = match relative.rsplit_once('/') {
        Some((parent, name)) => match rustix::fs::openat(&mount, parent, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => (other.during(|| format!("open cgroup {parent}"))?, name),
        },
        None => (mount, relative),
    };
    let deadline = Instant::now() + GONE_BY;
    loop {
        match own::remove(&parent, name) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.errno != Errno::BUSY.raw_os_error() => return Err(failure.into()),
            Err(failure) if Instant::now() > deadline => return Err(failure.into()),
            Err(_) => {}
        }
        if let Ok(dir) = own::open(&parent, name) {
            own::kill(&dir)?;
            wait_for_change(dir.as_fd());
        }
    }
}

/// Waits until the cgroup's population changes, or a moment.
fn wait_for_change(dir: BorrowedFd<'_>) {
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    if let Ok(events) = rustix::fs::openat(dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::read(&events, &mut [0_u8; 256]);
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&MOMENT));
    }
}

/// The machine's cgroup2 mount, if it has one.
pub(crate) fn mount() -> Result<Option<OwnedFd>> {
    for path in MOUNTS {
        let mount = match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            other => other.during(|| format!("open {path}"))?,
        };
        if rustix::fs::fstatfs(&mount).during(|| format!("open {path}"))?.f_type == CGROUP2_SUPER_MAGIC {
            return Ok(Some(mount));
        }
    }
    Ok(None)
}

/// Enables all controllers above the cgroup `path` if one of the settings needs it: systemd passes on those that it knows itself, and
/// neither huge pages nor RDMA. What it has made isn't touched without need.
pub(crate) fn enable_for(settings: &Cgroup, group: BorrowedFd<'_>, path: &str) -> Result<()> {
    if settings.settings.iter().all(|(file, _)| own::has(group, file)) {
        return Ok(());
    }
    let Some(mut parent) = mount()? else { return Ok(()) };
    enable_controllers(parent.as_fd());
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in names.split_last().map_or(&[][..], |(_, above)| above) {
        parent = rustix::fs::openat(&parent, *name, DIRECTORY, Mode::empty())
            .during(|| format!("open cgroup {name} above {path}"))?;
        enable_controllers(parent.as_fd());
    }
    Ok(())
}

/// Enables every controller that a cgroup has for its children. One that can't be shows when a limit of it is to be set.
///
/// A cgroup with processes gets none, but for the root, which alone has no type: some could be enabled, and then no child would
/// take processes (cgroup-v2.rst, "Threads").
pub(super) fn enable_controllers(parent: BorrowedFd<'_>) {
    let controllers = |file| own::read(parent, file).ok().filter(|names| !names.is_empty());
    // Without any there are none to look for; none enabled is what one begins with.
    let Some(available) = controllers("cgroup.controllers") else { return };
    let enabled = controllers("cgroup.subtree_control").unwrap_or_default();
    let is_enabled = |name: &str| enabled.split_whitespace().any(|enabled| enabled == name);
    let missing: Vec<&str> = available.split_whitespace().filter(|name| !is_enabled(name)).collect();
    let has_processes = || own::read(parent, "cgroup.procs").is_ok_and(|pids| !pids.is_empty());
    if missing.is_empty() || own::read(parent, "cgroup.type").is_ok() && has_processes() {
        return;
    }
    for controller in missing {
        let _ = own::write(parent, "cgroup.subtree_control", &format!("+{controller}"));
    }
}
