//! Starting a container: everything outside is prepared here, in the launcher; then one `clone3` child sets itself up.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::AbsentController;
use crate::device_filter::DeviceFilters;
use crate::failure::{Context, Failure, Step};
use crate::hook::Hook;
use crate::launch::{Launch, Process, Seccomp};
use crate::launcher::net_devices::Moved;
pub use crate::launcher::Beside;
use crate::small_file;

/// Where a container is started: what the launcher has at hand.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The cgroup v2 directory beneath which the container's own is made, its controllers enabled for children. `None`: the
    /// container stays in the launcher's cgroup, without limits (an ordinary user without delegation).
    pub cgroup_parent: Option<BorrowedFd<'a>>,
    /// What a setting of an absent controller means.
    pub absent_controller: AbsentController,
    /// Kept from start to start by a launcher that starts many; `None`: the filter is loaded for this start.
    pub device_filters: Option<&'a DeviceFilters>,
    /// Volumes that [`crate::volumes::open`] has opened, by their paths. Their disk isn't touched any more; the others are looked up.
    pub volumes: &'a [(String, OwnedFd)],
    /// The container's root as a mount that is nowhere yet, instead of what [`crate::launch::Root::source`] says; one that stands
    /// there if the container has the launcher's mount namespace.
    pub root: Option<BorrowedFd<'a>>,
}

/// The program's standard streams; `None` is the machine's `/dev/null`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stdio<'a> {
    /// Standard input.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Standard error.
    pub stderr: Option<BorrowedFd<'a>>,
}

/// What a command line wants of a start beyond what PID 1 does. Nothing by default, and then it costs nothing.
#[derive(Clone, Copy, Default)]
pub struct Stages<'a> {
    /// Use an empty cgroup that is there already, instead of making it anew.
    pub adopt_cgroup: bool,
    /// Called with the child's process id before the child does anything that others can see, so that a caller that dies later
    /// leaves a trace.
    pub record: Option<&'a dyn Fn(i32) -> Result<(), Failure>>,
    /// Hooks that are run while the container is made.
    pub hooks: Option<Hooks<'a>>,
    /// A listening Unix socket on which the child waits, right before it executes the program, for a [`GateMessage::Open`]. The
    /// connection then is its report: closed by executing the program, or a failure.
    pub gate: Option<BorrowedFd<'a>>,
    /// There is no program to look for at the gate: it will not be opened.
    pub without_program: bool,
    /// The program gets a terminal of its own instead of the streams.
    pub console: Option<Console<'a>>,
    /// So many descriptors from 3 up reach the program.
    pub preserved: u32,
    /// Look up `HOME` in the container's `/etc/passwd` if its environment has none.
    pub find_home: bool,
    /// Leave the launcher's session keyring to the program, instead of a new one.
    pub keep_keyring: bool,
    /// Leave the launcher's supplementary groups to the program, besides those of none that it has.
    pub keep_groups: bool,
    /// It may run on every processor that its cgroup has, whatever its caller was confined to.
    pub anywhere: bool,
    /// Nothing else is being started, so another processor may be free: what doesn't depend on each other is done side by side.
    pub beside: Option<&'a Beside>,
    /// The child is in the launcher's memory until it executes its program, and the child of the launcher's parent. [`start`] returns
    /// when it has, or has ended.
    pub lodging: Option<&'a Lodging<'a>>,
    /// Move the root over `/` instead of pivot_root(2), which can't replace an initramfs.
    pub no_pivot: bool,
}

/// The exit status of a launcher in whose memory a child was killed.
pub const LODGER_KILLED: i32 = 124;

/// The exit status of a child in its launcher's memory whose launcher ended before it had let it go. It has done nothing.
pub const NOT_LET_GO: i32 = 125;

/// For a launcher that does nothing but start containers, one after the other, for its parent. A start costs less of its children's
/// memory, and of its own, than with a fork; but it waits, and what a child allocates is lost to the launcher, so that it must not go on for ever.
///
/// What the children need of memory until then is charged to the launcher, not to their cgroups.
///
/// A child that is killed before its program is executed takes the launcher with it, which ends with the status [`LODGER_KILLED`].
pub struct Lodging<'a> {
    pub(crate) stack: std::cell::RefCell<crate::sys::lodge::Stack>,
    pub(crate) tell: &'a dyn Fn(&Made<'_>) -> Result<(), Failure>,
    left_well: AtomicBool,
    /// By the launcher, which goes on ignoring them and no others.
    ignored_signals: u64,
    oom_score: OomScore,
}

impl<'a> Lodging<'a> {
    /// `tell` lets the parent know of each child before that does anything that others can see.
    pub fn new(tell: &'a dyn Fn(&Made<'_>) -> Result<(), Failure>) -> Result<Self, Failure> {
        let stack = crate::sys::lodge::Stack::new().at(Step::Clone, || "the child's stack")?;
        Ok(Self { stack: stack.into(), tell, left_well: AtomicBool::new(true), ignored_signals: crate::sys::process::ignored_signals(), oom_score: OomScore::own()? })
    }

    /// Whether the last child left the memory by its own steps. One that was killed may have been anywhere, in the allocator for one.
    pub(crate) fn is_sound(&self) -> bool {
        self.left_well.load(Ordering::Acquire)
    }

    /// What to tell the kernel of a child that declares `score` or none. Processes that share memory share that, too, so that the
    /// launcher has the last child's, and the next child begins with it.
    pub(crate) fn oom_score(&self, score: Option<i32>) -> Option<i32> {
        let OomScore { original, changed } = &self.oom_score;
        changed.set(changed.get() || score.is_some());
        score.or_else(|| changed.get().then_some(*original))
    }

    pub(crate) fn ignored_signals(&self) -> u64 {
        self.ignored_signals
    }

    pub(crate) fn enter(&self) {
        self.left_well.store(false, Ordering::Release);
    }

    /// Nothing is left to the child but system calls.
    pub(crate) fn leave(&self) {
        self.left_well.store(true, Ordering::Release);
    }
}

/// What the kernel thinks of the launcher when memory is short (proc_pid_oom_score_adj(5)).
struct OomScore {
    /// When it began.
    original: i32,
    /// A child has had another one.
    changed: std::cell::Cell<bool>,
}

impl OomScore {
    fn own() -> Result<Self, Failure> {
        const OWN: &str = "/proc/self/oom_score_adj";
        let text = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| small_file::read(file, 64));
        let number = text.and_then(|text| text.trim().parse().map_err(|_| Errno::INVAL));
        Ok(Self { original: number.at(Step::SetOomScore, || OWN)?, changed: false.into() })
    }
}

/// A child that was made and waits.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// As in [`Started`].
    pub pid: i32,
    /// As in [`Started`].
    pub report: BorrowedFd<'a>,
    /// As in [`Started`].
    pub degraded: &'a [String],
}

/// Hooks that belong between the child's steps.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// The launcher has some to run: the child says [`StageMessage::Mounted`] and waits for a byte on [`Started::stages`].
    pub in_launcher: bool,
    /// Run by the child before its root is changed.
    pub create_container: &'a [Hook],
    /// Run by the child right before the program.
    pub start_container: &'a [Hook],
    /// Where these write; `None`: where the program does.
    pub output: [Option<BorrowedFd<'a>>; 2],
    /// The container's state as JSON, given its status and the process id that the hook sees. Called in the child.
    pub state: &'a dyn Fn(&str, i32) -> Vec<u8>,
}

/// A terminal to be made in the container.
#[derive(Debug, Clone, Copy)]
pub struct Console<'a> {
    /// A connected Unix socket that gets the outer side.
    pub socket: BorrowedFd<'a>,
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    /// Lines end as they do in files: nobody shows them on a terminal, which would want a carriage return before each newline.
    pub plain_lines: bool,
}

/// What the child says on [`Started::stages`], one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StageMessage {
    /// Everything is mounted; it waits for an answer of one byte.
    Mounted = b'm',
    /// Nothing is left but the program; it waits at the gate.
    AtGate = b'g',
}

/// What is said at a gate, one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GateMessage {
    /// Go on and execute the program.
    Open = b'o',
}

/// A child that is setting itself up or has executed its program.
#[derive(Debug)]
pub struct Started {
    /// Its process id, as the launcher sees it. Reap it: SIGCHLD comes when it ends.
    pub pid: i32,
    /// Its pid descriptor, readable when it has ended.
    pub pidfd: OwnedFd,
    /// Read end of the report pipe, non-blocking; for [`crate::report::read`].
    pub report: OwnedFd,
    /// The container's cgroup directory. The caller removes the cgroup when the container has ended.
    pub cgroup: Option<OwnedFd>,
    /// The launcher's end of a socket on which the child tells its stages, if it was given some to tell; it closes with exec.
    pub stages: Option<OwnedFd>,
    /// Interfaces of the machine that are the child's now.
    pub(crate) moved: Option<Moved>,
    /// Limits that were declared and couldn't be set ([`AbsentController::Record`]).
    pub degraded: Vec<String>,
}

impl Started {
    /// Gives the machine the interfaces back that the container got, as they were: for a child that has ended before its program began.
    pub fn give_interfaces_back(self) {
        if let Some(moved) = self.moved {
            moved.give_back();
        }
    }
}

/// Starts `launch` as the cgroup `name` of the site.
///
/// Returns as soon as the child exists: it never waits for it. The child is a fork, so a process with more than one thread is
/// refused. Temporary shortages are the caller's to retry: see [`Failure::is_temporary`]. On failure nothing is left behind.
pub fn start(launch: &Launch, name: &str, site: &Site<'_>, stdio: Stdio<'_>) -> Result<Started, Failure> {
    start_in_stages(launch, name, site, stdio, &Stages::default())
}

/// [`start`] with stages in between.
pub fn start_in_stages(
    launch: &Launch,
    name: &str,
    site: &Site<'_>,
    stdio: Stdio<'_>,
    stages: &Stages<'_>,
) -> Result<Started, Failure> {
    crate::launcher::start(launch, name, site, stdio, stages)
}

/// A running container, to put another process into.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Its first process, as this pid namespace sees it.
    pub pid: i32,
    /// The same by descriptor, so that it can't be another one.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroup, where the new process will be.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Its root, if it has no mount namespace of its own that would have it.
    pub root: Option<BorrowedFd<'a>>,
}

/// Starts `process` in all namespaces of a running container, with `seccomp` as its filter.
///
/// Blocks for the fraction of a millisecond that the go-between lives, which makes the process a child of the caller. Hooks
/// and a gate are for containers, not for single processes: `stages` must have neither.
pub fn enter(
    running: &Running<'_>,
    process: &Process,
    seccomp: Option<&Seccomp>,
    stdio: Stdio<'_>,
    stages: &Stages<'_>,
) -> Result<Started, Failure> {
    crate::launcher::enter(running, process, seccomp, stdio, stages)
}
