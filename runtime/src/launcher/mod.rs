//! The launcher's side of a start: check, open everything of the machine, make the cgroup, fork, map ids, let go.

mod agent;
mod beside;
mod dress;
mod enter;
mod joined;
mod lodge;
pub(crate) mod net_devices;
mod netlink;
pub(crate) mod nodes;
pub(crate) mod rdt;
mod staged;
mod trees;
pub(crate) mod volume;

use std::borrow::Cow;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::failure::{Context, Failure, Step};
use crate::launch::{Cgroup, IdMap, Launch, Namespace, Process};
use crate::start::{Site, Stages, Started, Stdio};
use crate::{affinity, cgroup, check, child, device, sys, userns};

pub use beside::Beside;
pub(crate) use beside::Network;
pub(crate) use enter::enter;
pub(crate) use joined::Visits;
pub(crate) use nodes::Nodes;
pub(crate) use dress::{propagate, set_unless_empty};
pub(crate) use trees::{Mount, STANDARD_DEVICES, Tree, Trees, of_container};

/// See [`crate::start::start`].
pub(crate) fn start(
    launch: &Launch,
    name: &str,
    site: &Site<'_>,
    stdio: Stdio<'_>,
    stages: &Stages<'_>,
) -> Result<Started, Failure> {
    check::launch(launch)?;
    if launch.namespaces.mount == Namespace::Host && site.root.is_none() {
        return Err(Failure::check("a container with the launcher's mounts, and its root isn't among them"));
    }
    expect_one_thread()?;
    let settings = device::resolve(&launch.cgroup)?;
    let joined = launch.namespaces.user.as_deref().map(joined::open).transpose()?;
    let agent = agent::connect_to(launch.seccomp.as_ref())?;
    let trees = Trees::open(launch, joined.as_ref().map(AsFd::as_fd), site)?;
    let null = open_null()?;
    let stdio = [stdio.stdin, stdio.stdout, stdio.stderr].map(|fd| fd.unwrap_or(null.as_fd()));

    let begin = |start: &Start<'_>, degraded: &[String]| match stages.lodging {
        Some(lodging) => lodge::run(start, lodging, degraded),
        None => run(start, agent),
    };
    let unlimited = Start { launch, name, trees: &trees, group: None, stdio, stages, limit: &|| Ok(Vec::new()) };
    let Some(parent) = site.cgroup_parent else {
        return begin(&unlimited, &[]);
    };
    let absent = site.absent_controller;
    let (group, mut degraded) = cgroup::create_with(parent, name, &settings, absent, stages.adopt_cgroup)?;
    let limit = || cgroup::complete(group.as_fd(), &settings, absent, site.device_filters);
    let start = Start { group: Some(group.as_fd()), limit: &limit, ..unlimited };
    match begin(&start, &degraded) {
        Ok(started) => {
            degraded.extend(started.degraded);
            Ok(Started { cgroup: Some(group), degraded, ..started })
        }
        Err(failure) => {
            // The failure of the start is the one to report.
            let _ = cgroup::remove(parent, name);
            Err(failure)
        }
    }
}

/// The child is a fork. A lock that another thread holds at that moment, the allocator's first of all, would be held in it for
/// good.
fn expect_one_thread() -> Result<(), Failure> {
    // Of a process with one thread this asks nothing, else it is an error (unshare(2), "CLONE_THREAD").
    if sys::process::unshare(UnshareFlags::from_bits_retain(libc::CLONE_THREAD.cast_unsigned())) == Ok(()) {
        return Ok(());
    }
    // A filter may forbid to ask like that.
    const TASKS: &str = "/proc/self/task";
    // One link per thread, besides the two of every directory.
    let threads = rustix::fs::stat(TASKS).at(Step::Open, || TASKS)?.st_nlink.saturating_sub(2);
    if threads <= 1 {
        return Ok(());
    }
    Err(Failure::check(format!("the launcher has {threads} threads, and a fork of one could wait for another for ever")))
}

/// Whether the container could overwrite the launcher's own program through `/proc/self/exe` (CVE-2019-5736).
///
/// In a user namespace it can't, as the file isn't its root's. Otherwise the file must be on a read-only mount, sealed, or such that the
/// launcher can't write to it either, as for a root of a user namespace whose containers share that.
fn exposed_program(launch: &Launch) -> Option<String> {
    const OWN_PROGRAM: &str = "/proc/self/exe";
    let guarded = launch.has_other_root()
        || matches!(rustix::fs::access(OWN_PROGRAM, Access::WRITE_OK), Err(Errno::ROFS | Errno::ACCESS))
        || rustix::fs::open(OWN_PROGRAM, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(rustix::fs::fcntl_get_seals)
            .is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    (!guarded).then(|| "the launcher's own program is on a writable mount and within reach of the container's root".to_owned())
}

/// Inheritable capabilities that the kernel won't take, as they are out of bounds (capabilities(7)).
fn out_of_bounds(launch: &Launch) -> Option<String> {
    let sets = &launch.process.capabilities;
    let lacking = sets.inheritable & !sets.bounding;
    (lacking != 0).then(|| {
        format!("process.capabilities.inheritable: {lacking:#x} (by number) can't be granted, as they aren't in the bounding set")
    })
}

/// What isn't as the launch has it, and can't be.
fn not_as_declared(launch: &Launch) -> Vec<String> {
    exposed_program(launch).into_iter().chain(ungranted(launch)).chain(out_of_bounds(launch)).collect()
}

/// Capabilities that the container asks for and the launcher has not, or the kernel knows not.
fn ungranted(launch: &Launch) -> Option<String> {
    let wanted = launch.process.capabilities.bounding | launch.process.capabilities.permitted;
    // Root of a new user namespace has them all.
    let lacking = wanted & !child::held_capabilities().ok().filter(|_| !launch.in_user_namespace())?;
    (lacking != 0).then(|| {
        format!("process.capabilities: {lacking:#x} (by number) can't be granted, as the launcher or the kernel lacks them")
    })
}

/// A start for which everything of the machine is open.
#[derive(Clone, Copy)]
struct Start<'a> {
    launch: &'a Launch,
    name: &'a str,
    trees: &'a Trees,
    /// The container's cgroup, if it has one.
    group: Option<BorrowedFd<'a>>,
    stdio: [BorrowedFd<'a>; 3],
    stages: &'a Stages<'a>,
    /// What the cgroup forbids, once its first process is there, which may be busy with its own meanwhile: devices, and more processes than
    /// there may be. Returns limits that had to be left out.
    limit: &'a dyn Fn() -> Result<Vec<String>, Failure>,
}

/// The pipe for the child's report: the reader, which doesn't wait, and the writer, out of the way of the program's streams, should the
/// launcher have none of its own.
fn report_pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, || "from the child")?;
    rustix::io::ioctl_fionbio(&reader, true).at(Step::Pipe, || "from the child")?;
    let writer = rustix::io::fcntl_dupfd_cloexec(&writer, 3).at(Step::Pipe, || "from the child")?;
    Ok((reader, writer))
}

/// Makes the child, does for it what only the launcher may, and lets it go.
fn run(start: &Start<'_>, agent: Option<OwnedFd>) -> Result<Started, Failure> {
    let Start { launch, name, trees, group, stdio, stages, limit } = *start;
    let (go_reader, go_writer) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, || "to the child")?;
    let (report_reader, report_writer) = report_pipe()?;
    // The child must close its copy of the writing end, or it would never see the launcher's end close.
    let go_writer = Cell::new(Some(go_writer));
    let (stages_here, stages_there) = stage_sockets(stages)?.unzip();
    let stages_here = Cell::new(stages_here);
    let inherited = child::Inherited {
        launch,
        trees,
        go: Some(go_reader.as_fd()),
        report: report_writer.as_fd(),
        stdio,
        theatre: child::Theatre::new(stages, stages_there.as_ref().map(AsFd::as_fd)),
        agent: agent.as_ref().map(AsFd::as_fd),
        beside: stages.beside,
    };
    let mut namespaces = namespaces(launch);
    if let Some(network) = stages.beside.and_then(Beside::network) {
        namespaces.remove(network.kinds());
    }

    let visits = Visits::open(&launch.namespaces)?;
    let stage = staged::Stage::of(launch, &visits);
    let fork = || {
        if let Some(stage) = &stage {
            let ends = staged::Ends { go: &go_writer };
            return staged::fork(stage, launch, namespaces, group, &ends, || child::run(&inherited));
        }
        sys::clone::fork_into(namespaces, group, Signal::CHILD.as_raw(), || {
            drop(go_writer.take());
            drop(stages_here.take());
            child::run(&inherited)
        })
        .at(Step::Clone, || launch.process.args.first().cloned().unwrap_or_default())
    };
    let child = match &stage {
        Some(stage) if stage.visits() => fork()?,
        _ => visits.during(fork, |child| sys::clone::kill_and_reap(&child))?,
    };
    if let Some(beside) = stages.beside {
        beside.make_way();
    }
    let mapped = stage.as_ref().is_some_and(staged::Stage::is_mapped);
    let recorded = || stages.record.map_or(Ok(()), |record| record(child.pid));
    let mut moved = None;
    let given = || give(child.pid, launch, trees, &stdio, group);
    match prepare(child.pid, launch, trees, name, mapped)
        .and_then(|()| net_devices::give(child.pid, launch).map(|devices| moved = devices))
        .and_then(|()| given())
        .and_then(|()| recorded())
        .inspect(|()| if stages.anywhere { affinity::lift(child.pid) })
        .and_then(|()| limit())
        .and_then(|left_out| let_go(go_writer.take()).map(|()| left_out))
    {
        Ok(left_out) => Ok(Started {
            pid: child.pid,
            pidfd: child.pidfd,
            report: report_reader,
            cgroup: None,
            stages: stages_here.take(),
            moved,
            // Looked at while the child is busy.
            degraded: [left_out, not_as_declared(launch)].concat(),
        }),
        Err(failure) => {
            sys::clone::kill_and_reap(&child);
            if let Some(moved) = moved {
                moved.give_back();
            }
            Err(failure)
        }
    }
}

/// A socket pair for the stages, if the child has any to tell: the launcher's end and the child's.
fn stage_sockets(stages: &Stages<'_>) -> Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    if stages.gate.is_none() && !stages.hooks.is_some_and(|hooks| hooks.in_launcher) {
        return Ok(None);
    }
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map(Some)
        .at(Step::Pipe, || "for the stages")
}

/// The namespaces that the child is made in. The cgroup namespace comes later, from inside the cgroup, and that of queues when it is root
/// of its user namespace, or they would be nobody's there ([`Launch::makes_queues_late`]).
fn namespaces(launch: &Launch) -> UnshareFlags {
    let wanted = [
        (launch.new_map().is_some(), UnshareFlags::NEWUSER),
        (launch.namespaces.pid == Namespace::New, UnshareFlags::NEWPID),
        (launch.namespaces.network == Namespace::New, UnshareFlags::NEWNET),
        (launch.namespaces.ipc == Namespace::New && !launch.makes_queues_late(), UnshareFlags::NEWIPC),
        (launch.namespaces.uts == Namespace::New, UnshareFlags::NEWUTS),
        (launch.namespaces.mount == Namespace::New, UnshareFlags::NEWNS),
    ];
    wanted.iter().filter(|(new, _)| *new).fold(UnshareFlags::empty(), |flags, (_, flag)| flags | *flag)
}

/// What a process in a user namespace may not do for itself.
fn prepare(pid: i32, launch: &Launch, trees: &Trees, name: &str, mapped: bool) -> Result<(), Failure> {
    if let Some(ids) = launch.new_map().filter(|_| !mapped) {
        userns::write_maps(pid, ids)?;
    }
    trees.give_ids(pid)?;
    if let Some(rdt) = &launch.intel_rdt {
        rdt::assign(rdt, name, pid)?;
    }
    set_oom_score(&pid.to_string(), launch.process.oom_score_adj)?;
    prepare_process(pid, &launch.process).map_err(|failure| explain_scheduler(failure, &launch.cgroup))
}

/// The kernel has no deadlines for who may use some processors only, and says no more than EPERM (sched_setattr(2)).
fn explain_scheduler(failure: Failure, cgroup: &Cgroup) -> Failure {
    let bound = cgroup.settings.iter().any(|(file, _)| file == "cpuset.cpus");
    if failure.step != Step::SetScheduler || failure.errno != Errno::PERM.raw_os_error() || !bound {
        return failure;
    }
    let why = "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)";
    Failure::new(failure.step, format!("{}: {why}", failure.object), Errno::PERM)
}

/// The same for the program alone.
fn prepare_process(pid: i32, process: &Process) -> Result<(), Failure> {
    if let Some(scheduler) = &process.scheduler {
        sys::schedule::set_scheduler(pid, scheduler).at(Step::SetScheduler, || format!("policy {}", scheduler.policy))?;
    }
    if let Some(priority) = process.io_priority {
        sys::schedule::set_io_priority(pid, priority).at(Step::SetIoPriority, || format!("class {}", priority >> 13))?;
    }
    for limit in &process.rlimits {
        // Only the launcher may raise a limit. Down to the declared one the child goes itself when it is set up: it needs more
        // descriptors for that than the program may be allowed.
        sys::process::raise_limit(pid, limit)
            .at(Step::SetResourceLimit, || limit.to_string())?;
    }
    Ok(())
}

/// What the kernel thinks of a process, by its name in `/proc`, when memory is short; its children inherit that.
pub(crate) fn set_oom_score(whose: &str, score: Option<i32>) -> Result<(), Failure> {
    let Some(score) = score else { return Ok(()) };
    let path = format!("/proc/{whose}/oom_score_adj");
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(&file, score.to_string().as_bytes()))
        .map(drop)
        .at(Step::SetOomScore, || format!("oom_score_adj to {score}"))
}

/// Makes what is the container's user's own that user's. The child, which is in its user namespace, waits meanwhile, or has not come to
/// its program.
fn give(
    pid: i32,
    launch: &Launch,
    trees: &Trees,
    stdio: &[BorrowedFd<'_>; 3],
    group: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let ids = ids(launch, pid)?;
    nodes::give(launch, &trees.devices, ids.as_deref())?;
    give_pipes(&launch.process, ids.as_deref(), stdio);
    group.map_or(Ok(()), |group| give_group(launch, ids.as_deref(), group))
}

/// What the container's ids are outside; `None`: themselves. A namespace that is joined has maps of its own, whatever the launch says.
fn ids(launch: &Launch, pid: i32) -> Result<Option<Cow<'_, IdMap>>, Failure> {
    match &launch.ids {
        Some(ids) => Ok(Some(Cow::Borrowed(ids))),
        None if launch.in_user_namespace() => userns::maps_of(pid).map(Cow::Owned).map(Some),
        None => Ok(None),
    }
}

/// Gives the cgroup to the user of the container of this process, if that is asked for and it has an id outside.
#[cfg(feature = "cli")]
pub(crate) fn give_cgroup(launch: &Launch, pid: i32, group: BorrowedFd<'_>) -> Result<(), Failure> {
    give_group(launch, ids(launch, pid)?.as_deref(), group)
}

fn give_group(launch: &Launch, ids: Option<&IdMap>, group: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(uid) = launch.cgroup.owner else { return Ok(()) };
    let gid = userns::outside(launch.process.gid, ids.map(|ids| ids.gids.as_slice()));
    let outside = userns::outside(uid, ids.map(|ids| ids.uids.as_slice()));
    outside.map_or(Ok(()), |uid| cgroup::give_to(group, uid, gid))
}

/// Tells the waiting child to go on.
fn let_go(writer: Option<OwnedFd>) -> Result<(), Failure> {
    let writer = writer.ok_or_else(|| Failure::new(Step::Pipe, "to the child", Errno::BADF))?;
    // An empty pipe takes one byte at once; a child that was killed meanwhile shows in its pid descriptor.
    match rustix::io::write(&writer, &[1]) {
        Ok(_) | Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(Failure::new(Step::Pipe, "to the child", errno)),
    }
}

/// The machine's null device, certainly that one: a swapped `/dev/null` must not become a container's stream or mask.
pub(crate) fn open_null() -> Result<OwnedFd, Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Open, || "/dev/null")?;
    expect_null(null.as_fd())?;
    Ok(null)
}

/// Refuses what isn't the null device.
pub(crate) fn expect_null(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    trees::expect_device(fd, "/dev/null", (1, 3))
}

/// Makes the container's user the owner of its pipes, so that `/dev/stdout` can be opened by name. Nothing else is touched:
/// a terminal or a file stays its owner's. Where it isn't allowed (an ordinary user's own pipes), it isn't needed.
pub(crate) fn give_pipes(process: &Process, ids: Option<&IdMap>, stdio: &[BorrowedFd<'_>; 3]) {
    let uid = userns::outside(process.uid, ids.map(|ids| ids.uids.as_slice()));
    let gid = userns::outside(process.gid, ids.map(|ids| ids.gids.as_slice()));
    for fd in stdio {
        let is_pipe = rustix::fs::fstat(fd)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
        if is_pipe {
            let _ = rustix::fs::fchown(fd, uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_that_some_processors_keep_out_is_explained() {
        let explained = |errno, file: &str| {
            let cgroup = Cgroup { settings: vec![(file.to_owned(), "0".to_owned())], ..Cgroup::default() };
            explain_scheduler(Failure::new(Step::SetScheduler, "policy 6", errno), &cgroup).to_string()
        };
        let why = "process scheduler can't be used together with AllowedCPUs";
        assert!(explained(Errno::PERM, "cpuset.cpus").starts_with(&format!("set scheduler policy 6: {why}")));
        for other in [explained(Errno::PERM, "cpuset.mems"), explained(Errno::INVAL, "cpuset.cpus")] {
            assert!(!other.contains(why), "{other}");
        }
    }
}
