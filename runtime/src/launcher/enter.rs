//! Another process in a running container.
//!
//! Its user namespace can only be entered for good, and its pid namespace only takes children. So a go-between enters both, makes
//! the process as a child of the launcher, says which it is, and ends. The process enters the rest by itself.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::failure::{Context, Failure, Step};
use crate::launch::{Process, Seccomp};
use crate::start::{Running, Stages, Started, Stdio};
use crate::{affinity, cgroup, child, report, sys, userns};

/// Namespaces by their files in `/proc/PID/ns`. The first two are the go-between's to enter.
const NAMESPACES: [(&str, ThreadNameSpaceType); 8] = [
    ("user", ThreadNameSpaceType::USER),
    ("pid", ThreadNameSpaceType::PROCESS_ID),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("net", ThreadNameSpaceType::NETWORK),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("time", ThreadNameSpaceType::TIME),
];
/// Those that may belong to the machine, or to another user namespace, whatever the container's is: who has entered that can't join them any more.
const EARLY: ThreadNameSpaceType = ThreadNameSpaceType::NETWORK
    .union(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    .union(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
    .union(ThreadNameSpaceType::CONTROL_GROUP)
    .union(ThreadNameSpaceType::TIME);
const BY_GO_BETWEEN: ThreadNameSpaceType = ThreadNameSpaceType::USER.union(ThreadNameSpaceType::PROCESS_ID);

/// See [`crate::start::enter`].
pub(crate) fn enter(
    running: &Running<'_>,
    process: &Process,
    seccomp: Option<&Seccomp>,
    stdio: Stdio<'_>,
    stages: &Stages<'_>,
) -> Result<Started, Failure> {
    let first = enter_in(running, Seat::Born, process, seccomp, stdio, stages);
    let is_full = |failure: &Failure| failure.step == Step::Clone && failure.errno == libc::EAGAIN;
    match first {
        // Nobody else can be made in a cgroup that has as many processes as it may, but whoever looks after it can be moved there.
        Err(failure) if is_full(&failure) && running.cgroup.is_some() => {
            enter_in(running, Seat::Moved, process, seccomp, stdio, stages).map_err(|_| failure)
        }
        other => other,
    }
}

/// How the process comes into the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// It is made there, at no further cost.
    Born,
    /// It is moved there before it does anything: the limit of processes doesn't count for that (cgroup-v2.rst, "PID").
    Moved,
}

fn enter_in(
    running: &Running<'_>,
    seat: Seat,
    process: &Process,
    seccomp: Option<&Seccomp>,
    stdio: Stdio<'_>,
    stages: &Stages<'_>,
) -> Result<Started, Failure> {
    let kinds = foreign_namespaces(running.pid)?;
    let null = super::open_null()?;
    let stdio = [stdio.stdin, stdio.stdout, stdio.stderr].map(|fd| fd.unwrap_or(null.as_fd()));
    let pipe = |what: &'static str| pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, || what);
    let agent = super::agent::connect_to(seccomp)?;
    let ids = kinds.contains(ThreadNameSpaceType::USER).then(|| userns::maps_of(running.pid)).transpose()?;
    super::give_pipes(process, ids.as_ref(), &stdio);
    let (pid_reader, pid_writer) = pipe("from the go-between")?;
    let (go_reader, go_writer) = pipe("to the child")?;
    let (report_reader, report_writer) = pipe("from the child")?;
    rustix::io::ioctl_fionbio(&report_reader, true).at(Step::Pipe, || "from the child")?;
    let left = Cell::new(kinds.difference(BY_GO_BETWEEN));
    let entrant = child::Entrant {
        pidfd: running.pidfd,
        namespaces: &left,
        root: running.root,
        in_user_namespace: kinds.contains(ThreadNameSpaceType::USER),
        process,
        seccomp,
        go: go_reader.as_fd(),
        report: report_writer.as_fd(),
        stdio,
        theatre: child::Theatre::new(stages, None),
        agent: agent.as_ref().map(AsFd::as_fd),
    };
    let mut kept = kept_descriptors(&entrant, pid_writer.as_fd());
    let first = 3_i32.saturating_add_unsigned(stages.preserved);
    let (go_writer, pid_writer) = (Cell::new(Some(go_writer)), Cell::new(Some(pid_writer)));
    let (born_in, moved_to) = if seat == Seat::Born { (running.cgroup, None) } else { (None, running.cgroup) };
    // The go-between is in the cgroup from its first moment on, and inherits what is set here.
    affinity::set(0, &process.exec_affinity.initial)?;
    let go_between = sys::clone::fork_into(UnshareFlags::empty(), born_in, libc::SIGCHLD, || {
        drop(go_writer.take());
        let closed = sys::process::close_all_but(&mut kept, first).at(Step::CloseDescriptors, || format!("from {first}"));
        let passed = closed.and_then(|()| {
            pass(running.pidfd, process, kinds.intersection(BY_GO_BETWEEN), &left, || {
                drop(pid_writer.take());
                child::enter(&entrant)
            })
        });
        match (passed, pid_writer.take()) {
            (Ok(pid), Some(writer)) => i32::from(rustix::io::write(&writer, &pid.to_ne_bytes()).is_err()),
            (Ok(_), None) => 1,
            (Err(failure), _) => {
                report::write(report_writer.as_fd(), &failure);
                1
            }
        }
    })
    .at(Step::Clone, || "the way into the container")?;
    drop(pid_writer.take());
    let pid = read_pid(pid_reader.as_fd());
    sys::clone::reap(go_between.pid);
    drop(report_writer);
    let Some(pid) = pid else {
        return match report::read(&report_reader) {
            report::Report::Failed(failure) => Err(failure),
            _ => Err(Failure::new(Step::Clone, "in the container: the go-between was killed", Errno::SRCH)),
        };
    };
    let pidfd = pidfd(pid)?;
    let child = sys::clone::Child { pid, pidfd };
    let settle = || {
        if let Some(group) = moved_to {
            cgroup::write(group, "cgroup.procs", &pid.to_string()).at(Step::SetCgroup, || "cgroup.procs")?;
        }
        super::prepare_process(pid, process)?;
        stages.record.map_or(Ok(()), |record| record(pid))?;
        settle_processors(pid, process, stages)?;
        super::let_go(go_writer.take())
    };
    match settle() {
        Ok(()) => Ok(Started {
            pid,
            pidfd: child.pidfd,
            report: report_reader,
            cgroup: None,
            stages: None,
            moved: None,
            degraded: Vec::new(),
        }),
        Err(failure) => {
            sys::clone::kill_and_reap(&child);
            Err(failure)
        }
    }
}

/// Where the process runs in the end: where it is said, else on all that the cgroup has, unless nothing is.
fn settle_processors(pid: i32, process: &Process, stages: &Stages<'_>) -> Result<(), Failure> {
    let affinity = &process.exec_affinity;
    if affinity.last.is_empty() && (stages.anywhere || !affinity.initial.is_empty()) {
        affinity::lift(pid);
    }
    affinity::set(pid, &affinity.last)
}

/// In the go-between: enters what only a passer-by can, and makes the process. Returns its id.
fn pass(
    pidfd: BorrowedFd<'_>,
    process: &Process,
    kinds: ThreadNameSpaceType,
    left: &Cell<ThreadNameSpaceType>,
    enter: impl FnOnce() -> i32,
) -> Result<i32, Failure> {
    // As long as its files in `/proc` are its own: those of a process that nobody may look into are root's.
    super::set_oom_score("self", process.oom_score_adj)?;
    // Nobody inside may look into this copy of the launcher; the process inherits that until it executes its program.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::BecomeRoot, || "non-dumpable")?;
    let early = left.get().intersection(EARLY);
    // Who has no rights over them yet gets those by the user namespace, and joins them then.
    if kinds.contains(ThreadNameSpaceType::USER)
        && !early.is_empty()
        && move_into_thread_name_spaces(pidfd, early).is_ok()
    {
        left.set(left.get().difference(early));
    }
    if !kinds.is_empty() {
        move_into_thread_name_spaces(pidfd, kinds).at(Step::JoinNamespace, || "user and pid of the container")?;
    }
    let process = sys::clone::fork_sibling(UnshareFlags::empty(), enter).at(Step::Clone, || "in the container")?;
    Ok(process.pid)
}

/// All that the go-between, which has `writer` besides, and the process need. In the container somebody may be able to look into either, and the
/// machine's directories would lead out (CVE-2016-9962).
fn kept_descriptors(entrant: &child::Entrant<'_>, writer: BorrowedFd<'_>) -> Vec<RawFd> {
    let console = entrant.theatre.stages().console.map(|console| console.socket);
    let own = [writer, entrant.pidfd, entrant.go, entrant.report];
    let others = [entrant.root, entrant.agent, console];
    let kept = own.into_iter().chain(entrant.stdio).chain(others.into_iter().flatten());
    kept.map(|fd| fd.as_raw_fd()).collect()
}

/// The kinds of namespaces that the container doesn't share with this process.
fn foreign_namespaces(pid: i32) -> Result<ThreadNameSpaceType, Failure> {
    let identity = |process: &str, name: &str| {
        let path = format!("/proc/{process}/ns/{name}");
        match rustix::fs::stat(&path) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            // The kernel has no such kind.
            Err(Errno::NOENT) if process == "self" => Ok(None),
            Err(errno) => Err(errno).at(Step::Open, || path),
        }
    };
    let mut kinds = ThreadNameSpaceType::empty();
    for (name, kind) in NAMESPACES {
        let own = identity("self", name)?;
        if own.is_some() && own != identity(&pid.to_string(), name)? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

/// What the go-between has written; `None`: it failed.
fn read_pid(pipe: BorrowedFd<'_>) -> Option<i32> {
    let mut bytes = [0_u8; 4];
    loop {
        match rustix::io::read(pipe, &mut bytes) {
            Ok(4) => return Some(i32::from_ne_bytes(bytes)),
            Err(Errno::INTR) => {}
            _ => return None,
        }
    }
}

/// The process is this one's child and not reaped, so its id is its own.
fn pidfd(pid: i32) -> Result<OwnedFd, Failure> {
    let id = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(Errno::SRCH);
    id.and_then(|id| pidfd_open(id, PidfdFlags::empty())).at(Step::Clone, || "in the container")
}
