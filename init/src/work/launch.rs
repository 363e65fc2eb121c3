//! The `launch` worker: starts containers as PID 1's children, one after the other.
//!
//! It is a small process, and its children live in its memory until they execute their programs, so that a start costs a fraction of what
//! a fork of PID 1 costs, and PID 1 next to nothing. For a single container that isn't worth a process; for a crowd it is.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use garboard_runtime::cgroup::AbsentController;
use garboard_runtime::device_filter::DeviceFilters;
use garboard_runtime::failure::{Failure, Step};
use garboard_runtime::plan::Plan;
use garboard_runtime::start::{Lodging, Made, Site, Stages};
use rustix::io::Errno;

use crate::boot;
use crate::launch::{self, fault, in_short, output_pipe};
use crate::orders::{self, Answer};
use crate::supervise::Fault;

/// Does what is ordered on standard input, until nothing more will be. Arguments are the plan's path, the directory for containers' files,
/// and whether standard output is the directory of their cgroups (`true`, `false`).
pub fn run(arguments: &[String]) -> i32 {
    let [plan, run_dir, cgroups] = arguments else { return 1 };
    // PID 1 finds out by the end of this process, and starts them itself.
    let Ok(plan) = boot::read_plan_at(plan) else { return 1 };
    let Ok(has_cgroups) = cgroups.parse::<bool>() else { return 1 };
    serve(&plan, Path::new(run_dir), has_cgroups).map_or(1, |()| 0)
}

/// The order that is being carried out.
struct Order {
    index: usize,
    output: OwnedFd,
}

fn serve(plan: &Plan, run_dir: &Path, has_cgroups: bool) -> Result<(), Failure> {
    let (socket, cgroup) = (std::io::stdin(), std::io::stdout());
    let device_filters = DeviceFilters::default();
    let site = Site {
        cgroup_parent: has_cgroups.then(|| cgroup.as_fd()),
        absent_controller: AbsentController::Record,
        device_filters: Some(&device_filters),
        volumes: &[],
        root: None,
    };
    let current: RefCell<Option<Order>> = RefCell::new(None);
    let tell = |made: &Made<'_>| {
        let current = current.borrow();
        let told = current.as_ref().ok_or(Errno::INVAL).and_then(|order| {
            let answer = Answer::Made { index: order.index, pid: made.pid, degraded: in_short(made.degraded) };
            orders::answer(&socket, &answer, &[made.report, order.output.as_fd()]).map_err(|_| Errno::PIPE)
        });
        // The child isn't let go, then: nobody knows of it.
        told.map_err(|errno| Failure::new(Step::Pipe, "to PID 1", errno))
    };
    let lodging = Lodging::new(&tell)?;
    let stages = Stages { lodging: Some(&lodging), ..Stages::default() };
    while let Some(index) = orders::next(&socket) {
        let started = output_pipe().and_then(|(output, writer)| {
            *current.borrow_mut() = Some(Order { index, output });
            let container = plan.containers.get(index);
            let container = container.ok_or_else(|| Fault { text: "no such container".into(), transient: false })?;
            let launch = container.launch.unpack().map_err(|f| fault(&f))?;
            launch::start(container, &launch, run_dir, &site, &writer, &stages)
        });
        *current.borrow_mut() = None;
        if let Err(Fault { text, transient }) = started
            && orders::answer(&socket, &Answer::Failed { index, text, transient }, &[]).is_err()
        {
            break;
        }
    }
    Ok(())
}
