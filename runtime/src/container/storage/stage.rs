//! Putting layers together in a process of its own: in the container's user namespace, which the mount is to belong to, and in a
//! mount namespace that nobody else has. The root leaves it as a descriptor; with it the container's own namespace is entered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::driver::{self, Driver, Probe};
use super::removal::DIRECTORY;
use super::{Declared, fuse, merge};
use crate::child::identity;
use crate::child::rootfs::{self, Layers};
use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Process, Root, RootSource, Upper};
use crate::launcher::Trees;
use crate::sys::mount::{Change, set_attributes};
use crate::{descriptor, report, sys};

/// A root, and what is to be known about it.
pub(super) struct Built {
    /// Mounted nowhere.
    pub(super) root: OwnedFd,
    pub(super) told: Told,
}

/// What the stage says beside the root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// How they were put together.
    pub(super) driver: Driver,
    /// The process that serves it, as this pid namespace counts.
    pub(super) daemon: Option<i32>,
    /// What a person should know.
    pub(super) warning: Option<String>,
}

/// Puts the layers together with what is in `directory`, in the user namespace `userns` if there is one: what the driver `restored`
/// has written there before, or nothing yet.
pub(super) fn build(
    declared: &Declared,
    directory: &str,
    userns: Option<&OwnedFd>,
    in_user_namespace: bool,
    restored: Option<Driver>,
) -> Result<Built, Failure> {
    let upper = Upper::Directory(directory.to_owned());
    let launch =
        Launch::bare(Root { source: RootSource::Layers { layers: declared.layers.clone(), upper }, ..Root::default() });
    let trees = Trees::of_layers(&launch, &declared.layers, directory)?;
    let (hears, says) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .at(Step::Pipe, || "from the stage")?;
    let launcher = rustix::process::getpid();
    let child = sys::clone::fork_into(UnshareFlags::empty(), None, libc::SIGCHLD, || {
        let built = enter(userns, launcher).and_then(|place| {
            put_together(&launch, &trees, restored.or(declared.forced), restored.is_none(), place, in_user_namespace)
        });
        let told = built.and_then(|built| {
            let beside = postcard::to_stdvec(&built.told).unwrap_or_default();
            descriptor::send(says.as_fd(), &beside, built.root.as_fd()).at(Step::Pipe, || "to the launcher")
        });
        match told {
            Ok(()) => 0,
            Err(failure) => {
                report::write(says.as_fd(), &failure);
                1
            }
        }
    })
    .at(Step::Clone, || "to put the layers together")?;
    drop(says);
    let mut beside = [0_u8; 4096];
    let received = descriptor::receive_with(hears.as_fd(), &mut beside).at(Step::Pipe, || "from the stage");
    sys::clone::reap(child.pid);
    let (root, length) = received?;
    let beside = beside.get(..length).unwrap_or_default();
    match root {
        Some(root) => {
            let told = postcard::from_bytes(beside).map_err(|_| Errno::PROTO).at(Step::Pipe, || "from the stage")?;
            Ok(Built { root, told })
        }
        None if beside.is_empty() => Err(Failure::new(Step::Pipe, "from the stage, which was killed", Errno::PIPE)),
        None => Err(report::decode(beside)),
    }
}

/// Where the workspace is, in the stage's mount namespace alone: a directory that everybody can reach, so that paths in it can be
/// told to a program, and that neither layers nor programs are in.
const PLACE: &str = "/sys";

/// Becomes root of the user namespace and leaves the launcher's mount namespace. Returns the place for the workspace.
fn enter(userns: Option<&OwnedFd>, launcher: Pid) -> Result<OwnedFd, Failure> {
    if let Some(userns) = userns {
        move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User))
            .at(Step::JoinNamespace, || "of the layers' ids")?;
        identity::become_root(&Process::default(), false)?;
    }
    // After the change of user, which takes it back. A copy may take long, and is nobody's when the launcher is gone.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .at(Step::Clone, || "that ends with the launcher")?;
    if rustix::process::getppid() != Some(launcher) {
        return Err(Failure::new(Step::Pipe, "to the launcher, which is gone", Errno::PIPE));
    }
    sys::process::unshare(UnshareFlags::NEWNS).at(Step::Unshare, || "mount namespace")?;
    let open = |path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Open, || path)
    };
    // A daemon may stay in it for long: what the machine unmounts must not stay mounted here.
    let change = Change { propagation: libc::MS_SLAVE, recursive: true, ..Change::default() };
    set_attributes(open("/")?.as_fd(), change).at(Step::MakePrivate, || "/")?;
    open(PLACE)
}

fn put_together(
    launch: &Launch,
    trees: &Trees,
    forced: Option<Driver>,
    is_new: bool,
    place: OwnedFd,
    in_user_namespace: bool,
) -> Result<Built, Failure> {
    let workspace = rootfs::workspace(launch, place.as_fd())?;
    let layers = Layers::place(launch, trees, workspace.as_fd())?;
    if is_new {
        layers.dress_upper(workspace.as_fd())?;
    }
    let try_overlay = || overlay(&layers, workspace.as_fd(), in_user_namespace);
    let (driver, overlay, warning) = match forced {
        Some(Driver::Overlay) => (Driver::Overlay, Some(try_overlay()?), None),
        Some(driver) => (driver, None, None),
        None => match try_overlay() {
            Ok(root) => (Driver::Overlay, Some(root), None),
            Err(failure) => {
                let errno = Errno::from_raw_os_error(failure.errno);
                if !driver::is_refusal(errno) {
                    return Err(failure);
                }
                let (driver, warning) = driver::choose(&Probe { overlay: Some(errno), fuse: fuse::probe() });
                (driver, None, warning)
            }
        },
    };
    let (root, daemon) = match (driver, overlay) {
        (_, Some(root)) => (root, None),
        (Driver::Fuse, None) => fuse::mount(&layers, workspace.as_fd()).map(|(root, daemon)| (root, Some(daemon)))?,
        // It is all there.
        (_, None) if !is_new => (detached(open_in(workspace.as_fd(), layers.upper.0)?.as_fd())?, None),
        (Driver::Overlay | Driver::Copy, None) => (copy(&layers, workspace.as_fd())?, None),
    };
    Ok(Built { root, told: Told { driver, daemon, warning } })
}

/// The kernel's overlay. One that it makes read-only, for want of something in the upper's filesystem, is none.
fn overlay(layers: &Layers<'_>, workspace: BorrowedFd<'_>, in_user_namespace: bool) -> Result<OwnedFd, Failure> {
    let mount = layers.overlay(workspace, in_user_namespace)?;
    let is_readonly = rustix::fs::fstatvfs(&mount).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_readonly {
        return Err(Failure::new(Step::Mount, "overlay", Errno::ROFS));
    }
    detached(mount.as_fd())
}

/// A copy of what an overlay would show, where it would write to.
fn copy(layers: &Layers<'_>, workspace: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let open = |path: &str| open_in(workspace, path);
    let sources = (0..layers.mounts.len()).map(|number| open(&format!("layers/{number}"))).collect::<Result<_, _>>()?;
    let upper = open(layers.upper.0)?;
    merge::copy(sources, upper.as_fd())
        .map_err(|(path, errno)| Failure::new(Step::CopyLayers, if path.is_empty() { "/" } else { &path }, errno))?;
    detached(upper.as_fd())
}

fn open_in(workspace: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(workspace, path, DIRECTORY, Mode::empty()).at(Step::Open, || path)
}

/// What `place` shows, as a mount that is nowhere.
fn detached(place: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(place, "", flags).at(Step::OpenTree, || "the layers' root")?;
    let change = Change { propagation: libc::MS_PRIVATE, ..Change::default() };
    set_attributes(mount.as_fd(), change).at(Step::MountAttributes, || "the layers' root")?;
    Ok(mount)
}
