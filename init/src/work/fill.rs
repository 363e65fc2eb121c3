//! The `fill` worker: puts into a container's new volumes what its image has where they are mounted.

use garboard_runtime::fill;

use super::{emit, report};
use crate::boot;

/// Fills what has nothing in it, of the container with this index in the plan at this path. Status 0: every volume is whole.
pub fn run(arguments: &[String]) -> i32 {
    match fill_all(arguments) {
        Ok(()) => 0,
        Err(fault) => {
            // Status 1 says enough if this can't be said.
            let _ = emit(&report::Fill { fault });
            1
        }
    }
}

fn fill_all(arguments: &[String]) -> Result<(), String> {
    let [index, plan] = arguments else { return Err("fill volumes: not a container's index and a plan".to_owned()) };
    let plan = boot::read_plan_at(plan).map_err(|e| e.to_string())?;
    let container = index.parse().ok().and_then(|index: usize| plan.containers.get(index));
    let fills = container.map(|container| container.fills.as_slice()).ok_or("fill volumes: no such container")?;
    fills.iter().try_for_each(fill::fill).map_err(|failure| failure.to_string())
}
