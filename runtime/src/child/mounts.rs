//! The mounts on top of the root, in the launch's order.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MountAttrFlags, MountFlags, fsconfig_reconfigure, fspick};

use super::paths::{Kind, Links};
use super::{devices, hide, open_directory, paths, proc};
use crate::failure::{Context, Failure, Step};
use crate::launch::{EndLinks, Launch, Mount, MountSource};
use crate::launcher::{Mount as Mounted, Network, Tree, Trees, of_container, propagate, set_unless_empty};
use crate::sys::mount::{Change, set_attributes};
use crate::{filesystem, fill};

/// What is left to be done when everything is mounted.
pub(crate) struct Made<'a> {
    /// To be made read-only when nothing more has to be made on it.
    writable: Vec<(&'a Mount, Mounted<'a>)>,
    /// What was mounted on the root itself, in order: the last one is the root from then on.
    on_root: Vec<OwnedFd>,
}

impl Made<'_> {
    /// The root that was begun with, or what lies on it.
    pub(crate) fn root<'a>(&'a self, first: BorrowedFd<'a>) -> BorrowedFd<'a> {
        self.on_root.last().map_or(first, AsFd::as_fd)
    }

    /// How many roots lie beneath that one.
    pub(crate) fn covered(&self) -> usize {
        self.on_root.len()
    }

    /// Goes on with what was mounted if that is on the root: whoever holds the root that it covers sees nothing of it.
    fn go_on_with(&mut self, mounted: BorrowedFd<'_>, mount: &Mount) -> Result<(), Failure> {
        if mount.covers_root() {
            let copy = rustix::io::fcntl_dupfd_cloexec(mounted, 3).at(Step::Open, || "what is mounted on /")?;
            self.on_root.push(copy);
        }
        Ok(())
    }

    /// Makes read-only what was to be it from the beginning, had there not been mount targets and devices to make on it.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.writable.iter().try_for_each(|(mount, mounted)| {
            let change = Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() };
            set_attributes(mounted.as_fd(), change).at(Step::MountAttributes, || mount.target.as_str())
        })
    }
}

/// Mounts everything. A tmpfs on `/dev` gets its nodes and links at once, so that later mounts can go on top.
pub(crate) fn mount_all<'a>(
    launch: &'a Launch,
    trees: &'a Trees,
    first: BorrowedFd<'_>,
    network: Option<&Network>,
) -> Result<Made<'a>, Failure> {
    // One in a user namespace may have no right to be where the launcher is.
    let here = open_directory(".").ok();
    let mut dev_is_done = false;
    let mut opened_devices = trees.standard_devices.as_deref();
    let mut made = Made { writable: Vec::new(), on_root: Vec::new() };
    for (index, (mount, opened)) in launch.mounts.iter().zip(&trees.binds).enumerate() {
        let root = made.root(first);
        let on_dev = mount.target.trim_end_matches('/') == "/dev";
        match (&mount.source, opened) {
            (MountSource::Filesystem { fstype, .. }, instead) => {
                network.map_or(Ok(()), |network| network.join_for(fstype))?;
                if !on_dev && !mount.covers_root() && mount_at_once(mount, root, here.as_ref())? {
                    if let Some(place) = complete(mount, root)? {
                        made.writable.push((mount, Mounted::Own(place)));
                    }
                    continue;
                }
                let mounted = new_filesystem(mount, instead.as_ref(), root)?;
                // The machine's devtmpfs has its nodes, and is the machine's.
                if on_dev && fstype != "devtmpfs" {
                    // After it is attached, as nothing can be mounted on what isn't.
                    devices::populate(mounted.as_fd(), launch, trees)?;
                }
                propagate(mounted.as_fd(), &mount.flags.propagation)
                    .at(Step::MountAttributes, || mount.target.as_str())?;
                made.go_on_with(mounted.as_fd(), mount)?;
                if mount.flags.is_readonly() {
                    made.writable.push((mount, mounted));
                }
            }
            (MountSource::Bind { path, .. }, Some(Tree::Link(link))) => {
                paths::ensure_link(root, &mount.target, link, links(&mount.target))
                    .at(Step::Create, || format!("{} as the link that {path} is", mount.target))?;
            }
            (MountSource::Bind { path, .. }, Some(tree)) => {
                let source = tree.detached()?;
                bind(mount, path, source.as_fd(), root)?;
                made.go_on_with(source.as_fd(), mount)?;
                if launch.closes_late(index) {
                    made.writable.push((mount, source));
                }
            }
            (MountSource::Inside { path, recursive }, _) => {
                let object = || format!("{path} of the container on {}", mount.target);
                let place = paths::resolve(root, path, Links::Follow).at(Step::Mount, object)?;
                let source = of_container(place.as_fd(), path, *recursive, &mount.flags)?;
                bind(mount, path, source.as_fd(), root)?;
                made.go_on_with(source.as_fd(), mount)?;
            }
            (MountSource::Existing { options }, _) => change_existing(mount, options.as_deref(), root)?,
            (MountSource::Bind { path, .. }, None) => {
                return Err(Failure::check(format!("{path} was not opened by the launcher")));
            }
        }
        if mount.covers_root() && dev_is_done {
            // What was done lies beneath.
            (dev_is_done, opened_devices) = (false, None);
        }
        // A machine's own directory that was bound there isn't added to.
        dev_is_done |= on_dev && !matches!(opened, Some(Tree::Link(_)));
    }
    if launch.populate_dev && !dev_is_done {
        let dev = paths::ensure(made.root(first), "/dev", Kind::Directory, Links::Refuse).at(Step::MountTarget, || "/dev")?;
        devices::add_to(dev.as_fd(), opened_devices, launch)?;
    }
    Ok(made)
}

/// Filesystems whose options name no files.
const WITHOUT_FILES: [&str; 4] = ["proc", "tmpfs", "devpts", "mqueue"];
/// Bytes of an option's value, for fsconfig(2). An overlay's list of layers may well have more.
const LONGEST_VALUE: usize = 255;
/// Bytes of all options together, for mount(2), which leaves out what follows without a word.
const LONGEST_OPTIONS: usize = 4095;
/// Labels of files. Their commas belong to them, which mount(2) doesn't know.
const LABELS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

/// Attributes that mount(2) has by the same bits.
const SAME_IN_BOTH: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Mounts a new filesystem by mount(2), if nothing is to be done with it afterwards, which takes half as long as [`new_filesystem`], or if
/// its options are possible in no other way. Where it doesn't succeed, the longer way does or tells why not.
fn mount_at_once(mount: &Mount, root: BorrowedFd<'_>, here: Option<&OwnedFd>) -> Result<bool, Failure> {
    let (MountSource::Filesystem { fstype, device, options, copy_up: false }, Some(here)) = (&mount.source, here) else {
        return Ok(false);
    };
    let bits = mount.flags.own.set | mount.flags.tree.set;
    let has_mode = fstype != "tmpfs" || states_mode(options);
    let is_long = |option: &String| option.split_once('=').is_some_and(|(_, value)| value.len() > LONGEST_VALUE);
    // Of several in one text only the filesystem knows where one ends.
    let only_so = options.iter().any(|option| is_long(option) || option.contains(','));
    let names_files = !WITHOUT_FILES.contains(&fstype.as_str());
    let is_label = |option: &String| option.contains(',') && LABELS.iter().any(|label| option.starts_with(label));
    let is_simple = !names_files && bits & !SAME_IN_BOTH == 0 && mount.flags.propagation.is_empty();
    let suits = (only_so || is_simple) && has_mode && !options.iter().any(is_label);
    let (true, Ok(options)) = (suits, CString::new(options.join(","))) else { return Ok(false) };
    let failure = |errno| Failure::new(Step::Mount, format!("{fstype} on {}", mount.target), errno);
    if options.as_bytes().len() > LONGEST_OPTIONS {
        return if only_so { Err(failure(Errno::TOOBIG)) } else { Ok(false) };
    }
    let flags = MountFlags::from_bits_truncate(u32::try_from(bits & SAME_IN_BOTH).unwrap_or_default());
    let target = target(root, mount, Kind::Directory, || Ok(fstype == "proc"))?;
    let device = device.as_deref().unwrap_or(fstype);
    // mount(2) takes names only: one that means the place that is held, whatever others lead to.
    let at = |place: &str| rustix::mount::mount(device, place, fstype.as_str(), flags, options.as_c_str());
    let mounted = if names_files {
        // They must not be looked for in the target, which is the image's. For the others this takes longer.
        at(&format!("/proc/self/fd/{}", target.as_raw_fd()))
    } else {
        if rustix::process::fchdir(&target).is_err() {
            return Ok(false);
        }
        let mounted = at(".");
        rustix::process::fchdir(here).at(Step::ChangeDirectory, || "back from a mount target")?;
        mounted
    };
    match mounted {
        Err(errno) => match failure(errno) {
            failure if only_so && !(mount.flags.is_readonly() && is_readonly_device(&failure)) => Err(failure),
            _ => Ok(false),
        },
        Ok(()) => Ok(true),
    }
}

/// Gives a filesystem that was mounted by mount(2) what that can't give it. Returns it if it is still to be made read-only.
fn complete(mount: &Mount, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
    let rest = (mount.flags.own.set | mount.flags.tree.set) & !SAME_IN_BOTH;
    if rest == 0 && mount.flags.propagation.is_empty() {
        return Ok(None);
    }
    let object = || mount.target.as_str();
    let place = paths::resolve(root, &mount.target, links(&mount.target)).at(Step::MountAttributes, object)?;
    // How times of access are kept is one choice of several, which must be taken back to be made (mount_setattr(2)).
    let clear = if rest & libc::MOUNT_ATTR__ATIME == 0 { 0 } else { libc::MOUNT_ATTR__ATIME };
    let change = Change { set: rest & !libc::MOUNT_ATTR_RDONLY, clear, ..Change::default() };
    set_unless_empty(place.as_fd(), change)
        .and_then(|()| propagate(place.as_fd(), &mount.flags.propagation))
        .at(Step::MountAttributes, object)?;
    Ok(mount.flags.is_readonly().then_some(place))
}

/// Mounts a new filesystem, not yet read-only, or what the machine has instead.
fn new_filesystem<'a>(mount: &Mount, instead: Option<&'a Tree>, root: BorrowedFd<'_>) -> Result<Mounted<'a>, Failure> {
    let MountSource::Filesystem { fstype, device, options, copy_up } = &mount.source else {
        return Err(Failure::check(format!("{} is no new filesystem", mount.target)));
    };
    let bits = (mount.flags.own.set | mount.flags.tree.set) & !libc::MOUNT_ATTR_RDONLY;
    let bits = MountAttrFlags::from_bits_truncate(u32::try_from(bits).unwrap_or_default());
    let device = device.as_deref().unwrap_or(fstype);
    let covered = covered_mode(mount, fstype, options, root);
    let options = covered.as_ref().unwrap_or(options);
    let mut hides_cgroups = false;
    let mounted = match (filesystem::on(fstype, device, options, bits), instead) {
        (Err(failure), Some(instead)) if failure.errno == Errno::PERM.raw_os_error() => {
            hides_cgroups = fstype == "sysfs";
            instead.detached()?
        }
        // A device that can't be written to has to be told that nobody wants to.
        (Err(failure), _) if mount.flags.is_readonly() && is_readonly_device(&failure) => {
            let options: Vec<String> = options.iter().cloned().chain(["ro".to_owned()]).collect();
            Mounted::Own(filesystem::on(fstype, device, &options, bits)?)
        }
        (made, _) => Mounted::Own(made?),
    };
    if *copy_up && let Ok(covered) = paths::resolve(root, &mount.target, links(&mount.target)) {
        copy_what_is_covered(mount, options, covered.as_fd(), mounted.as_fd())?;
    }
    let target = target(root, mount, Kind::Directory, || Ok(fstype == "proc"))?;
    paths::attach(mounted.as_fd(), target.as_fd()).at(Step::Mount, || format!("{fstype} on {}", mount.target))?;
    if hides_cgroups {
        hide::cover_directory(mounted.as_fd(), "fs/cgroup")?;
    }
    Ok(mounted)
}

fn states_mode(options: &[String]) -> bool {
    states(options, "mode=")
}

fn states(options: &[String], name: &str) -> bool {
    options.iter().flat_map(|option| option.split(',')).any(|option| option.starts_with(name))
}

/// A tmpfs of no stated mode has that of the directory that it covers, if there is one: the kernel's own choice would let
/// everybody write to it. Returns the options with it.
fn covered_mode(mount: &Mount, fstype: &str, options: &[String], root: BorrowedFd<'_>) -> Option<Vec<String>> {
    if fstype != "tmpfs" || states_mode(options) {
        return None;
    }
    let covered = paths::resolve(root, &mount.target, links(&mount.target)).ok()?;
    let mode = rustix::fs::fstat(&covered).ok()?.st_mode & 0o7777;
    Some(options.iter().cloned().chain([format!("mode={mode:o}")]).collect())
}

fn is_readonly_device(failure: &Failure) -> bool {
    [Errno::ROFS, Errno::ACCESS].iter().any(|errno| errno.raw_os_error() == failure.errno)
}

/// `tmpcopyup`: the directory's contents, and the owner that nobody has stated. Its mode, if none is stated, the filesystem has already
/// ([`covered_mode`]). It isn't in its place yet, so nobody else sees it.
fn copy_what_is_covered(
    mount: &Mount,
    options: &[String],
    covered: BorrowedFd<'_>,
    onto: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let object = || mount.target.as_str();
    let open = |place: BorrowedFd<'_>| {
        rustix::fs::openat(place, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::CopyUp, object)
    };
    let (from, to) = (open(covered)?, open(onto)?);
    fill::copy::contents(from.as_fd(), to.as_fd())
        .map_err(|(path, errno)| Failure::new(Step::CopyUp, format!("{}{path}", mount.target), errno))?;
    let stat = rustix::fs::fstat(&from).at(Step::CopyUp, object)?;
    let uid = (!states(options, "uid=")).then(|| Uid::from_raw(stat.st_uid));
    let gid = (!states(options, "gid=")).then(|| Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&to, uid, gid).at(Step::CopyUp, object)
}

fn bind(mount: &Mount, path: &str, source: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(source).at(Step::Open, || path)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    let kind = if is_directory { Kind::Directory } else { Kind::File };
    let target = target(root, mount, kind, || proc::is_procfs(source, &stat))?;
    paths::attach(source, target.as_fd()).at(Step::Mount, || format!("{path} on {}", mount.target))
}

/// Changes the mount that is at the target already, and with `options` its filesystem.
fn change_existing(mount: &Mount, options: Option<&[String]>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let object = || mount.target.as_str();
    let place = paths::resolve(root, &mount.target, links(&mount.target)).at(Step::MountTarget, object)?;
    if let Some(options) = options.filter(|options| !options.is_empty()) {
        let context = fspick(&place, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)
            .at(Step::MountAttributes, object)?;
        filesystem::set_options(context.as_fd(), &mount.target, options)?;
        fsconfig_reconfigure(context.as_fd()).at(Step::MountAttributes, object)?;
    }
    let flags = &mount.flags;
    set_unless_empty(place.as_fd(), Change { set: flags.own.set, clear: flags.own.clear, ..Change::default() })
        .and_then(|()| {
            let tree = Change { set: flags.tree.set, clear: flags.tree.clear, recursive: true, ..Change::default() };
            set_unless_empty(place.as_fd(), tree)
        })
        .and_then(|()| propagate(place.as_fd(), &flags.propagation))
        .at(Step::MountAttributes, object)
}

/// The place that is mounted on. `comes` says whether what comes there is a procfs.
fn target(
    root: BorrowedFd<'_>,
    mount: &Mount,
    kind: Kind,
    comes: impl FnOnce() -> Result<bool, Errno>,
) -> Result<OwnedFd, Failure> {
    let links = match (links(&mount.target), &mount.source) {
        (Links::Follow, MountSource::Bind { links: EndLinks::Kept { target: true, .. }, .. }) => Links::KeepLast,
        (links, _) => links,
    };
    let place = paths::ensure(root, &mount.target, kind, links).at(Step::MountTarget, || mount.target.as_str())?;
    proc::expect_harmless(root, &mount.target, place.as_fd(), comes)?;
    Ok(place)
}

/// Links are refused on the way to the kernel's own filesystems: an image that ships `/proc`, `/sys` or `/dev` as a link would
/// have them, and what is masked in them, somewhere else than every other rule expects.
pub(super) fn links(target: &str) -> Links {
    match target.split('/').find(|name| !name.is_empty() && *name != ".") {
        Some("proc" | "sys" | "dev") => Links::Refuse,
        _ => Links::Follow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernel_filesystems_refuse_links() {
        for strict in ["/proc", "/dev/pts", "//sys/fs/cgroup", "/./dev"] {
            assert_eq!(links(strict), Links::Refuse, "{strict}");
        }
        for lenient in ["/var/run", "/process", "/", "/srv/dev"] {
            assert_eq!(links(lenient), Links::Follow, "{lenient}");
        }
    }
}
