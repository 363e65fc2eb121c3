//! Boot: from the kernel's exec of `/init` to a machine that can launch its first container.
//!
//! [`stage_one`] runs from the initramfs: it loads the modules that reach the system disk, seals that disk with dm-verity and
//! makes it the root. [`stage_two`] makes a machine of it: control groups, kernel settings, host name. What may block or is
//! not needed by a first container (further modules, data partition, network) is in [`crate::work`].

pub mod cmdline;
pub mod disk;
pub mod erofs;
pub mod error;
pub mod features;
pub mod field;
pub mod gpt;
pub mod machine;
pub mod modalias;
pub mod modules;
pub mod order;
pub mod probe;
pub mod root;
pub mod stop;
pub mod trace;
pub mod verity;
pub mod volumes;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use garboard_runtime::plan::{self, Plan};

pub use cmdline::Cmdline;
pub use error::BootError;
pub use features::{Feature, Verdict};
pub use stop::stop;
pub use trace::{Step, Trace};

/// What stage one leaves behind: the system image is the root, verified, and its plan is read.
#[derive(Debug)]
pub struct StageOne {
    /// The kernel command line.
    pub cmdline: Cmdline,
    /// The plan of the system image.
    pub plan: Plan,
    /// What the kernel was found to have.
    found: probe::Found,
    /// Modules that could not be loaded.
    faults: Vec<BootError>,
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
    /// A sentence for each thing that could not be set and stops nothing.
    pub warnings: Vec<String>,
}

/// From the initramfs to the verified system image as root.
pub fn stage_one(trace: &mut Trace) -> Result<StageOne, BootError> {
    root::mount_basics()?;
    let cmdline = read_cmdline()?;
    trace.mark("basics");

    let mut faults = modules::load(&modules::of_initrd()?, &cmdline, trace);
    let cgroup = machine::mount_cgroups();
    let found = probe::probe(cgroup.as_ref().ok().map(AsFd::as_fd));
    judge(&found, None, &faults)?;
    cgroup?;
    trace.mark("features");

    let root_hash = cmdline.root_hash.ok_or_else(|| {
        BootError::new("find the system image", "", "the kernel command line has no roothash=")
            .fix("use the command line in image.json")
    })?;
    let system = disk::find(&root_hash, |system| {
        trace.mark("disk");
        open_system(system, &root_hash, trace).inspect_err(|_| root::unmount_system())
    });
    let disk::Found { used: plan, refused } = system.map_err(|error| perhaps_because(error, &faults))?;
    faults.extend(refused);
    root::switch()?;
    trace.mark("root");
    Ok(StageOne { cmdline, plan, found, faults })
}

/// Verifies and mounts a system image that was found, as far as the boot itself reads it; its plan.
fn open_system(system: &disk::System, root_hash: &[u8; 32], trace: &mut Trace) -> Result<Plan, BootError> {
    let device = root::verify(system, root_hash)?;
    trace.mark("verity");
    root::mount_system(&device, system)?;
    trace.mark("mount");
    let plan = read_plan_at(format!("{}{}", root::SYSROOT, plan::PATH))?;
    trace.mark("plan");
    Ok(plan)
}

/// From the root to a machine that can launch containers.
pub fn stage_two(one: StageOne, trace: &mut Trace) -> Result<Booted, BootError> {
    let StageOne { cmdline, plan, found, faults } = one;
    let features = judge(&found, Some(&plan), &faults)?;
    machine::check_memory(&plan)?;
    let cgroup = machine::delegate_controllers()?;
    trace.mark("control groups");
    let mut warnings: Vec<String> = faults.iter().map(ToString::to_string).collect();
    warnings.extend(machine::configure(&plan));
    volumes::mount_in_memory(&plan.memory_volumes)?;
    trace.mark("settings");
    Ok(Booted { cmdline, plan, features, cgroup, warnings })
}

/// A module that could not be loaded is what a disk that can't be found is often about; which of them, only a person can tell.
fn perhaps_because(mut error: BootError, faults: &[BootError]) -> BootError {
    if !faults.is_empty() {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        error.cause = format!("{} (perhaps because of this: {})", error.cause, faults.join("; "));
    }
    error
}

/// The feature table, unless it says that the appliance can't run.
fn judge(found: &probe::Found, plan: Option<&Plan>, faults: &[BootError]) -> Result<Vec<Feature>, BootError> {
    let features = features::check(found, plan);
    let missing: Vec<&str> =
        features.iter().filter(|f| f.verdict == Verdict::Missing).map(|f| f.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(features);
    }
    // A feature whose module could not be loaded is missing because of that.
    let own = |fault: &&BootError| missing.contains(&order::module_name(&fault.object).as_str());
    let because: Vec<String> = faults.iter().filter(own).map(ToString::to_string).collect();
    let cause = match because.as_slice() {
        [] => format!("the kernel lacks {}; build with one that has it", missing.join(", ")),
        because => format!("the kernel lacks {} ({})", missing.join(", "), because.join("; ")),
    };
    let table = features::table(&features, plan.is_some());
    Err(BootError::new("check the kernel", "", cause).fix(format!("what that breaks:\n{table}")))
}

/// Reads the plan of the running system image; also for a PID 1 that executed itself again, and for workers.
pub fn read_plan() -> Result<Plan, BootError> {
    read_plan_at(plan::PATH)
}

/// Reads a plan.
pub fn read_plan_at(path: impl AsRef<Path>) -> Result<Plan, BootError> {
    let path = path.as_ref();
    let fault = |cause: &dyn std::fmt::Display| BootError::new("read the plan", path.to_string_lossy(), cause);
    let file = File::open(path).map_err(|e| fault(&e).fix(plan_fix(&e)))?;
    let limit = u64::try_from(plan::MAX_SIZE).unwrap_or(u64::MAX).saturating_add(1);
    // In one piece, as it may be large.
    let size = file.metadata().map_or(0, |file| file.len()).min(limit).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.take(limit).read_to_end(&mut bytes).map_err(|e| fault(&e).fix(plan_fix(&e)))?;
    Plan::decode(&bytes).map_err(|e| fault(&e).fix("build initrd and system image together"))
}

fn plan_fix(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound {
        "the system image has none: build it again"
    } else {
        root::corrupt_fix()
    }
}

/// Reads the kernel command line from `/proc/cmdline`.
pub fn read_cmdline() -> Result<Cmdline, BootError> {
    let path = "/proc/cmdline";
    let bytes = std::fs::read(path).map_err(|e| BootError::new("read the kernel command line", path, e))?;
    Cmdline::parse(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module_fault(name: &str) -> BootError {
        BootError::new("load module", format!("/modules/07-{name}.ko"), "ENOEXEC")
    }

    #[test]
    fn a_disk_that_is_not_found_and_modules_that_are_not_loaded_are_both_told() {
        let error =
            || BootError::new("find the system image", "", "it is on none of the disks: sda (empty)").fix("attach it");
        let text = perhaps_because(error(), &[module_fault("snd"), module_fault("ahci")]).to_string();
        for part in ["sda (empty)", "07-snd.ko: ENOEXEC", "07-ahci.ko: ENOEXEC", "; attach it"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(perhaps_because(error(), &[]), error());
    }

    #[test]
    fn a_feature_is_missing_because_of_its_own_module() {
        let plan = features::tests::plan();
        let faults = [module_fault("snd"), module_fault("overlay")];
        let text = judge(&probe::Found::default(), Some(&plan), &faults).unwrap_err().to_string();
        assert!(text.contains("07-overlay.ko: ENOEXEC") && !text.contains("snd"), "{text}");
    }
}
