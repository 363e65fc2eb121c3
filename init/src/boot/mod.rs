//! Boot: from the kernel's exec of `/init` to a machine that can launch its first container.
//!
//! [`stage_one`] runs from the initramfs: it loads the modules that reach the system disk, seals that disk with dm-verity and
//! makes it the root. [`stage_two`] makes a machine of it: control groups, kernel settings, host name. What may block or is
//! not needed by a first container (further modules, data partition, network) is in [`crate::work`].

pub mod cmdline;
pub mod error;
pub mod features;
pub mod trace;

use std::os::fd::OwnedFd;

use garboard_runtime::plan::Plan;

pub use cmdline::Cmdline;
pub use error::BootError;
pub use features::{Feature, Verdict};
pub use trace::{Step, Trace};

/// What stage one leaves behind: the system image is the root, verified, and its plan is read.
#[derive(Debug)]
pub struct StageOne {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// The plan of the system image.
    pub plan: Plan,
}

/// A machine that can launch containers.
#[derive(Debug)]
pub struct Booted {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// The plan of the system image.
    pub plan: Plan,
    /// What the kernel can do, and what that means here.
    pub features: Vec<Feature>,
    /// The directory `/sys/fs/cgroup/garboard`, parent of the containers' control groups.
    pub cgroup: OwnedFd,
}

/// From the initramfs to the verified system image as root.
pub fn stage_one(trace: &mut Trace) -> Result<StageOne, BootError> {
    trace.mark("stage one");
    Err(BootError::new("boot", "", "unfinished"))
}

/// From the root to a machine that can launch containers.
pub fn stage_two(one: StageOne, trace: &mut Trace) -> Result<Booted, BootError> {
    trace.mark("stage two");
    Err(BootError::new("boot", one.plan.appliance, "unfinished"))
}

/// Reads the plan of the running system image; also for a PID 1 that executed itself again, and for workers.
pub fn read_plan() -> Result<Plan, BootError> {
    Err(BootError::new("read the plan", "", "unfinished"))
}

/// Reads the kernel command line from `/proc/cmdline`.
pub fn read_cmdline() -> Result<Cmdline, BootError> {
    Err(BootError::new("read the kernel command line", "", "unfinished"))
}

/// Says on the console why the boot can't go on, then powers off, starts over or halts (`garboard.stop=`). Only for PID 1.
pub fn stop(error: &BootError) -> ! {
    eprintln!("{error}");
    loop {
        std::thread::park();
    }
}
