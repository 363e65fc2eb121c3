//! What the plan says about supervising one container.

use garboard_runtime::plan::{Condition, Container, Restart, Supervision};

/// One `depends_on` edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Index of the container that is depended on.
    pub on: usize,
    /// What it must have reached.
    pub condition: Condition,
}

/// What never changes about one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// When to start it again.
    pub restart: Restart,
    /// What must have happened before its first start.
    pub needs: Vec<Need>,
    /// Milliseconds from its stop signal to `cgroup.kill`.
    pub stop_grace_ms: u64,
    /// It uses `/data`, so it waits for it.
    pub needs_data: bool,
    /// Whether a person had stopped it stands on `/data`, so it waits for that, be it there or not.
    pub needs_record: bool,
    /// It uses devices of the machine, so it waits for the modules that bring them.
    pub needs_devices: bool,
    /// How it is watched, and what follows when it is given up.
    pub supervision: Supervision,
    /// The pod with which it starts and stops.
    pub pod: Option<usize>,
}

impl Rules {
    /// The rules of the container at `index`. An edge to itself or to a later container, which a valid plan doesn't have, is
    /// left out: it could never be met. `data`: the machine is to have `/data`.
    pub fn of(container: &Container, index: usize, data: bool) -> Self {
        let needs = container.depends_on.iter().filter_map(|d| {
            let on = usize::try_from(d.container).ok().filter(|on| *on < index)?;
            Some(Need { on, condition: d.condition })
        });
        Self {
            restart: container.restart,
            needs: needs.collect(),
            stop_grace_ms: container.stop_grace_ms,
            needs_data: container.launch.uses_data(),
            needs_record: data && container.restart == Restart::UnlessStopped,
            needs_devices: container.launch.uses_devices(),
            supervision: container.supervision.clone(),
            pod: container.pod.and_then(|pod| usize::try_from(pod).ok()),
        }
    }
}
