//! The launcher's side of a start in shared memory: for who starts many, for its parent.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::joined::Visits;
use super::{Start, give, namespaces, not_as_declared, prepare, report_pipe, set_oom_score, staged};
use crate::failure::{Failure, Step};
use crate::start::{LODGER_KILLED, Lodging, Made, Started};
use crate::{child, sys};

/// Makes the child, tells the parent of it, does for it what only the launcher may, and lets it go until it leaves.
pub(super) fn run(start: &Start<'_>, lodging: &Lodging<'_>, degraded: &[String]) -> Result<Started, Failure> {
    let Start { launch, name, trees, group, stdio, stages, limit } = *start;
    let visits = Visits::open(&launch.namespaces)?;
    let joins = staged::Stage::of(launch, &visits).is_some() || !visits.is_empty();
    let listener = launch.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
    if joins || listener.is_some() || stages.hooks.is_some() || stages.gate.is_some() {
        return Err(Failure::check("what joins namespaces, or waits on its way, can't begin in its launcher's memory"));
    }
    // Whoever reads the report waits until nobody can write to it: the child alone has the writer.
    let (report_reader, report_writer) = report_pipe()?;
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
    Ok(Started { pid: child.pid, pidfd: child.pidfd, report: report_reader, cgroup: None, stages: None, moved: None, degraded: missing })
}
