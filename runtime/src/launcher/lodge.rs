//! The launcher's side of a start in shared memory: for who starts many, for its parent.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::joined::Visits;
use super::{Limit, Trees, give, namespaces, not_as_declared, prepare, set_oom_score, staged};
use crate::failure::{Context, Failure, Step};
use crate::launch::Launch;
use crate::start::{LODGER_KILLED, Lodging, Made, Stages, Started};
use crate::{child, sys};

/// Makes the child, tells the parent of it, does for it what only the launcher may, and lets it go until it leaves.
#[expect(clippy::too_many_arguments, reason = "as many as there are of a start")]
pub(super) fn run(
    launch: &Launch,
    name: &str,
    trees: &Trees,
    group: Option<BorrowedFd<'_>>,
    stdio: [BorrowedFd<'_>; 3],
    stages: &Stages<'_>,
    lodging: &Lodging<'_>,
    limit: Limit<'_>,
    degraded: &[String],
) -> Result<Started, Failure> {
    let visits = Visits::open(&launch.namespaces)?;
    let joins = staged::Stage::of(launch, &visits).is_some() || !visits.is_empty();
    let listener = launch.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
    if joins || listener.is_some() || stages.hooks.is_some() || stages.gate.is_some() {
        return Err(Failure::check("what joins namespaces, or waits on its way, can't begin in its launcher's memory"));
    }
    let (report_reader, writer) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, || "from the child")?;
    let report_writer = rustix::io::fcntl_dupfd_cloexec(&writer, 3).at(Step::Pipe, || "from the child")?;
    // Whoever reads the report waits until nobody can write to it.
    drop(writer);
    rustix::io::ioctl_fionbio(&report_reader, true).at(Step::Pipe, || "from the child")?;
    let mut missing = not_as_declared(launch);
    let mut body = |report: BorrowedFd<'_>| {
        let theatre = child::Theatre::new(stages, None);
        let inherited =
            child::Inherited { launch, trees, go: None, report, stdio, theatre, agent: None, beside: None };
        let status = child::run(&inherited);
        lodging.leave();
        status
    };
    let mut stack = lodging.stack.try_borrow_mut().map_err(|_| Failure::new(Step::Clone, "one in another", Errno::BUSY))?;
    let shared = sys::lodge::share(&mut stack, namespaces(launch), group, report_writer, &mut body, |child| {
        set_oom_score(&child.pid.to_string(), lodging.oom_score(launch.process.oom_score_adj))?;
        prepare(child.pid, launch, trees, name, false)?;
        give(child.pid, launch, trees, &stdio, group)?;
        missing.extend(limit()?);
        let degraded = [degraded, &missing].concat();
        (lodging.tell)(&Made { pid: child.pid, report: report_reader.as_fd(), degraded: &degraded })?;
        lodging.enter();
        Ok(())
    });
    if !lodging.is_sound() {
        // Whatever it was at, nothing in this memory can be relied on.
        sys::clone::exit(LODGER_KILLED);
    }
    let child = shared.map_err(|fault| match fault {
        sys::lodge::Fault::Clone(errno) => {
            Failure::new(Step::Clone, launch.process.args.first().cloned().unwrap_or_default(), errno)
        }
        sys::lodge::Fault::Meanwhile(failure) => failure,
    })?;
    Ok(Started { pid: child.pid, pidfd: child.pidfd, report: report_reader, cgroup: None, stages: None, degraded: missing })
}
