//! The child's side of a start: from a fork of the launcher to the container's program. Every line here runs in the child.
//!
//! The order is the point. Mounts while it is root of its user namespace and sees the machine's files by descriptor only;
//! then the root is changed; then the process is; the filter last, right before exec.

mod console;
mod devices;
mod enter;
mod environment;
mod hide;
pub(crate) mod identity;
mod label;
mod landlock;
mod listener;
mod mounts;
pub(crate) mod paths;
mod proc;
mod program;
pub(crate) mod rootfs;
mod stages;
mod sysctl;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::UnshareFlags;

use crate::failure::{Context, Failure, Step};
use crate::launch::{Launch, Namespace, Propagation};
use crate::launcher::{Beside, Network, Trees};
use crate::report;
use crate::sys;
use crate::sys::mount::{Change, set_attributes};

pub(crate) use enter::{Entrant, enter};
pub(crate) use identity::held as held_capabilities;
pub(crate) use stages::Theatre;

/// What the child has from the launcher.
pub(crate) struct Inherited<'a> {
    /// What to do.
    pub(crate) launch: &'a Launch,
    /// The machine's files that the container gets.
    pub(crate) trees: &'a Trees,
    /// One byte comes when ids and limits are set; `None`: they are.
    pub(crate) go: Option<BorrowedFd<'a>>,
    /// Where a failure goes.
    pub(crate) report: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Where it waits for the launcher on the way, if anywhere.
    pub(crate) theatre: Theatre<'a>,
    /// The connection to the seccomp agent.
    pub(crate) agent: Option<BorrowedFd<'a>>,
    /// What is done at the same time, if anything.
    pub(crate) beside: Option<&'a Beside>,
}

/// Where the child waits for the launcher's word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    /// Before it does anything, as ids and limits may change how that goes.
    Beginning,
    /// Before hooks, which may ask who the container is.
    Hooks,
    /// As late as can be: the program must not run before the container is written down.
    Program,
}

impl Inherited<'_> {
    /// Waits for the launcher's word if this is where to.
    fn wait_at(&self, point: Point) -> Result<(), Failure> {
        let right = match self.beside {
            Some(beside) if beside.runs_ahead() && self.theatre.stages().hooks.is_some() => Point::Hooks,
            Some(beside) if beside.runs_ahead() => Point::Program,
            _ => Point::Beginning,
        };
        match self.go {
            Some(go) if point == right => wait_for_go(go),
            _ => Ok(()),
        }
    }

    fn network(&self) -> Option<&Network> {
        self.beside.and_then(Beside::network)
    }
}

/// The exit status of a child that couldn't execute its program; a shell's for "not found".
const NOT_EXECUTED: i32 = 127;

/// Becomes the container's program. Returns only the exit status of having failed, which is reported by then.
pub(crate) fn run(inherited: &Inherited<'_>) -> i32 {
    if let Err(failure) = set_up_and_execute(inherited) {
        report::write(inherited.theatre.report(inherited.report), &failure);
    }
    NOT_EXECUTED
}

fn set_up_and_execute(inherited: &Inherited<'_>) -> Result<(), Failure> {
    let launch = inherited.launch;
    inherited.beside.inspect(|beside| beside.begin_in_child());
    inherited.wait_at(Point::Beginning)?;
    // Nobody may look into this copy of the launcher; exec makes the program visible again.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::BecomeRoot, || "non-dumpable")?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    let labels = label::open(&launch.process)?;
    // Keys have no namespace. While it counts against the launcher's quota, as the container's users may have little.
    if !inherited.theatre.stages().keep_keyring {
        labels.on_keys(|| sys::process::new_session_keyring().at(Step::JoinKeyring, || "of the container's own"))?;
    }
    if launch.in_user_namespace() {
        identity::become_root(&launch.process, inherited.theatre.stages().keep_groups)?;
    }
    let listener = launch.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
    let message = listener.map(listener::message).transpose()?;
    make_late_namespaces(launch)?;
    let terminal = build_root(inherited)?;
    // Not before: the hooks that were run for it are the machine's.
    labels.set()?;
    if launch.namespaces.uts != Namespace::Host {
        set_names(launch)?;
    }
    match inherited.network() {
        Some(network) => network.loopback_is_up()?,
        None if launch.namespaces.network == Namespace::New => {
            sys::net::loopback_up().at(Step::LoopbackUp, || "lo")?;
        }
        None => {}
    }
    let arrived = change_directory(&launch.process.cwd)?;
    inherited.wait_at(Point::Program)?;
    program::execute(&program::Program {
        process: &launch.process,
        seccomp: launch.seccomp.as_ref(),
        stdio: inherited.stdio,
        terminal: terminal.as_ref().map(AsFd::as_fd),
        report: inherited.report,
        theatre: &inherited.theatre,
        arrived,
        umask,
        agent: inherited.agent,
        message: message.as_deref().unwrap_or_default(),
    })
}

/// Those that have to be made from inside: the cgroup's, and that of queues, which belong to whoever makes it.
fn make_late_namespaces(launch: &Launch) -> Result<(), Failure> {
    let (cgroup, ipc) = (launch.namespaces.cgroup == Namespace::New, launch.makes_queues_late());
    let (kinds, names) = match (cgroup, ipc) {
        (false, false) => return Ok(()),
        (true, false) => (UnshareFlags::NEWCGROUP, "cgroup namespace"),
        (false, true) => (UnshareFlags::NEWIPC, "ipc namespace"),
        (true, true) => (UnshareFlags::NEWCGROUP | UnshareFlags::NEWIPC, "cgroup and ipc namespaces"),
    };
    sys::process::unshare(kinds).at(Step::Unshare, || names)
}

/// Waits until the launcher has written maps and limits. If it is gone, so is the reason to start.
pub(crate) fn wait_for_go(go: BorrowedFd<'_>) -> Result<(), Failure> {
    loop {
        match rustix::io::read(go, &mut [0_u8; 1]) {
            Ok(1..) => return Ok(()),
            Ok(0) => return Err(Failure::new(Step::Pipe, "from the launcher, which is gone", Errno::PIPE)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::new(Step::Pipe, "from the launcher", errno)),
        }
    }
}

/// Goes to a directory of the root. What covers it counts: nothing held from before may be gone to. `false`: root may not, but the program's
/// user may, as it is on filesystems that know no root (NFS, FUSE), or whose ids aren't all mapped.
fn change_directory(path: &str) -> Result<bool, Failure> {
    let root = open_directory("/")?;
    let place = paths::resolve(root.as_fd(), path, paths::Links::Follow);
    match place.and_then(rustix::process::fchdir) {
        Err(Errno::ACCESS) => Ok(false),
        other => other.map(|()| true).at(Step::ChangeDirectory, || path),
    }
}

/// The same for who can't become anybody else any more.
fn change_directory_at_last(path: &str) -> Result<(), Failure> {
    if change_directory(path)? { Ok(()) } else { Err(Failure::new(Step::ChangeDirectory, path, Errno::ACCESS)) }
}

/// Builds the root filesystem, makes it this process's root, and returns the terminal in it.
fn build_root(inherited: &Inherited<'_>) -> Result<Option<OwnedFd>, Failure> {
    let Inherited { launch, trees, theatre, .. } = inherited;
    let shares_mounts = launch.namespaces.mount == Namespace::Host;
    let slash = open_directory("/")?;
    if !shares_mounts {
        let change = Change { propagation: libc::MS_PRIVATE, recursive: true, ..Change::default() };
        set_attributes(slash.as_fd(), change).at(Step::MakePrivate, || "/")?;
    }

    let shown = theatre.root_shown_at(launch).filter(|_| !shares_mounts).map(open_directory).transpose()?;
    let direct = if shares_mounts {
        Some(rootfs::stands(trees)?)
    } else if shown.is_none() && !theatre.stages().no_pivot {
        rootfs::build_on(launch, trees, slash.as_fd())?
    } else {
        None
    };
    let (workspace, root) = match (direct, &shown) {
        (Some(root), _) => (None, root),
        (None, Some(place)) => {
            let (workspace, root) = rootfs::build_at(launch, trees, place.as_fd())?;
            (Some(workspace), root)
        }
        (None, None) => {
            let workspace = rootfs::workspace(launch, slash.as_fd())?;
            let root = rootfs::build(launch, trees, workspace.as_fd())?;
            (Some(workspace), root)
        }
    };
    let made = mounts::mount_all(launch, trees, root.as_fd(), inherited.network())?;
    let root = made.root(root.as_fd());
    devices::supply_declared(launch, trees, root, workspace.as_ref().map(AsFd::as_fd))?;
    // While directories can be made. It is gone to only when everything that lies on it is there, too.
    match paths::ensure(root, &launch.process.cwd, paths::Kind::Directory, paths::Links::Follow) {
        // Where root may not look, either.
        Err(Errno::ACCESS) => {}
        other => drop(other.at(Step::ChangeDirectory, || launch.process.cwd.as_str())?),
    }
    let terminal = theatre.stages().console.as_ref();
    let terminal = terminal.map(|console| console::open(root, &launch.process, console)).transpose()?;
    if let Some(terminal) = &terminal {
        console::bind(root, terminal.as_fd())?;
    }
    made.close()?;
    inherited.network().map_or(Ok(()), Network::join)?;
    sysctl::set_all(&launch.sysctls, root)?;
    inherited.wait_at(Point::Hooks)?;
    theatre.mounted(root)?;
    hide::make_readonly(launch, root)?;
    hide::mask(launch, root)?;
    if launch.root.is_readonly() {
        let change = Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() };
        set_attributes(root, change).at(Step::MountAttributes, || "/ (read-only)")?;
    }
    if shares_mounts {
        change_to(root)?;
    } else if theatre.stages().no_pivot {
        move_to(root)?;
    } else {
        let above = match (&workspace, &shown) {
            (None, _) => made.covered().saturating_add(1),
            (Some(_), None) => 2,
            (Some(_), Some(_)) => 1,
        };
        pivot_to(root, above)?;
    }
    // Only now: a shared parent of the new root would have kept it from becoming the root.
    let propagation = match launch.root.propagation {
        Propagation::Private | Propagation::Slave => return Ok(terminal),
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    };
    let change = Change { propagation, ..Change::default() };
    set_attributes(root.as_fd(), change).at(Step::MountAttributes, || "/ (propagation)")?;
    Ok(terminal)
}

/// Makes `root` this process's root and no other's, as they have the same mounts.
fn change_to(root: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(root).at(Step::PivotRoot, || "to the root (shared mounts)")?;
    rustix::process::chroot(".").at(Step::PivotRoot, || "to the root (shared mounts)")?;
    expect_nothing_above()
}

/// Moves `root` over `/` and makes it this process's root, where pivot_root(2) can't: on an initramfs.
fn move_to(root: BorrowedFd<'_>) -> Result<(), Failure> {
    leave_behind("/proc")?;
    leave_behind("/sys")?;
    rustix::process::fchdir(root).at(Step::PivotRoot, || "to the new root (moved)")?;
    let slash = open_directory("/")?;
    paths::attach(root, slash.as_fd()).at(Step::PivotRoot, || "to the new root (moved)")?;
    rustix::process::chroot(".").at(Step::PivotRoot, || "to the new root (moved)")?;
    rustix::process::chdir("/").at(Step::PivotRoot, || "into the new root")?;
    expect_nothing_above()
}

/// The machine's own filesystem stays beneath the moved root: a program that may make a user namespace could mount another one, as
/// the kernel grants whatever is to be seen in full somewhere in the mount namespace. Paths still begin at the machine's root.
fn leave_behind(path: &str) -> Result<(), Failure> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // It is the user namespace's above, or nothing is mounted there.
        Err(Errno::INVAL | Errno::PERM) => {
            let flags = rustix::mount::MountFlags::RDONLY;
            rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"size=0,nr_inodes=1,mode=555")
                .at(Step::Mount, || format!("nothing over the machine's {path}"))
        }
        Err(errno) => Err(Failure::new(Step::PivotRoot, format!("away from the machine's {path}"), errno)),
    }
}

/// Makes `root` the root of this mount namespace and lets go of everything else in it (pivot_root(2), "pivot_root(".", ".")").
///
/// On the new root there then lies the old one, and on that what was mounted there: the workspace, or the roots that others cover.
/// With the old one that is so many mounts `above`.
fn pivot_to(root: BorrowedFd<'_>, above: usize) -> Result<(), Failure> {
    rustix::process::fchdir(root).at(Step::PivotRoot, || "to the new root")?;
    rustix::process::pivot_root(".", ".").at(Step::PivotRoot, || "to the new root")?;
    for _ in 0..above {
        rustix::mount::unmount(".", UnmountFlags::DETACH).at(Step::PivotRoot, || "away from the old root")?;
    }
    rustix::process::chdir("/").at(Step::PivotRoot, || "into the new root")?;
    expect_nothing_above()
}

/// `/..` follows what may still be mounted on the root. It must be the root itself, or the machine's files are reachable; the same file on
/// another mount is not it.
fn expect_nothing_above() -> Result<(), Failure> {
    let of = |path: &'static str| {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(CWD, path, AtFlags::empty(), wanted).at(Step::PivotRoot, || path)?;
        Ok::<_, Failure>((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
    };
    if of("/")? == of("/..")? {
        Ok(())
    } else {
        Err(Failure::new(Step::PivotRoot, "away from what lies on the new root", Errno::BUSY))
    }
}

fn set_names(launch: &Launch) -> Result<(), Failure> {
    if let Some(name) = &launch.hostname {
        rustix::system::sethostname(name.as_bytes()).at(Step::SetHostname, || name.as_str())?;
    }
    if let Some(name) = &launch.domainname {
        rustix::system::setdomainname(name.as_bytes()).at(Step::SetHostname, || name.as_str())?;
    }
    Ok(())
}

/// A directory by its path outside.
fn open_directory(path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(Step::Open, || path)
}
