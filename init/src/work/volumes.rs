//! The `volumes` worker: makes a container's volumes, puts into new ones what its image has there, and opens them for PID 1.

use std::os::fd::{AsRawFd, OwnedFd};

use garboard_runtime::failure::Failure;
use garboard_runtime::plan::Container;
use garboard_runtime::{fill, volumes};
use rustix::event::{PollFd, PollFlags, poll};

use super::{emit, report};
use crate::boot;
use crate::supervise::Fault;

/// Opens the volumes of the container with this index in the plan at this path, with some filled first: those of its fills whose numbers
/// are said, with commas between them. Status 0: every volume is whole, and PID 1 has what was opened.
pub fn run(arguments: &[String]) -> i32 {
    match open(arguments) {
        Ok(opened) => {
            let numbers = opened.iter().map(AsRawFd::as_raw_fd).collect();
            let status = emit(&report::Volumes { opened: numbers, ..Default::default() });
            until_taken();
            status
        }
        Err(Fault { text, transient }) => {
            // Status 1 says enough if this can't be said.
            let _ = emit(&report::Volumes { opened: vec![], fault: Some(text), transient });
            1
        }
    }
}

fn open(arguments: &[String]) -> Result<Vec<OwnedFd>, Fault> {
    let lasting = |text: String| Fault { text, transient: false };
    let [fills, index, plan] = arguments else {
        return Err(lasting("open volumes: not what to fill, a container's index and a plan".to_owned()));
    };
    let plan = boot::read_plan_at(plan).map_err(|e| lasting(e.to_string()))?;
    let container = index.parse().ok().and_then(|index: usize| plan.containers.get(index));
    let container = container.ok_or_else(|| lasting("open volumes: no such container".to_owned()))?;
    let wanted: Vec<usize> = fills.split(',').filter_map(|number| number.parse().ok()).collect();
    open_all(container, &wanted)
        .map_err(|failure| Fault { text: failure.to_string(), transient: failure.is_temporary() })
}

fn open_all(container: &Container, wanted: &[usize]) -> Result<Vec<OwnedFd>, Failure> {
    wanted.iter().filter_map(|number| container.fills.get(*number)).try_for_each(fill::fill)?;
    volumes::of(&container.launch.unpack()?).map(|(path, create)| volumes::open(path, create)).collect()
}

/// PID 1 copies the descriptors out of this process. When it has them it kills this one, or has closed its end of the pipe.
fn until_taken() {
    let stdout = std::io::stdout();
    // An error is always waited for.
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    while poll(&mut polled, None).is_err() {}
}
