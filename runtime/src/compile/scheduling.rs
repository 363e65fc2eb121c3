//! What a spec says about processors, disks and memory nodes of a process: numbers of the kernel's headers.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler as SpecScheduler,
};

use super::list;
use crate::launch::{MemoryPolicy, Scheduler};
use crate::spec::Error;

/// `linux/sched.h`
pub(super) fn scheduler(scheduler: &SpecScheduler) -> Result<Scheduler, Error> {
    use LinuxSchedulerPolicy as Policy;
    let wrong = |field: &str, why: String| Err(Error::new(format!("process.scheduler.{field}"), why));
    let policy = *scheduler.policy();
    let number = match policy {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => return wrong("policy", "SCHED_ISO is reserved, no kernel has it".to_owned()),
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return wrong("nice", format!("{nice} isn't from -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let real_time = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if !(if real_time { 1..=99 } else { 0..=0 }).contains(&priority) {
        return wrong("priority", format!("{priority}: SCHED_FIFO and SCHED_RR have 1 to 99, the others 0"));
    }
    let [runtime, deadline, period] =
        [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|value| value.unwrap_or(0));
    if policy != Policy::SchedDeadline && (runtime, deadline, period) != (0, 0, 0) {
        return wrong("runtime", "runtime, deadline and period are SCHED_DEADLINE's".to_owned());
    }
    if policy == Policy::SchedDeadline {
        deadline_fits(scheduler)?;
    }
    let mut flags = 0;
    for flag in scheduler.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x1,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x2,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x4,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x8,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    let priority = u32::try_from(priority).unwrap_or_default();
    Ok(Scheduler { policy: number, flags, nice, priority, runtime, deadline, period })
}

/// What the kernel would say no to without a reason (sched_setattr(2), `__checkparam_dl` of the kernel). A period may be left out.
fn deadline_fits(scheduler: &SpecScheduler) -> Result<(), Error> {
    const LEAST: u64 = 1024;
    const MOST: u64 = i64::MAX.cast_unsigned();
    let wrong = |field: &str, why: String| {
        Err(Error::new(format!("process.scheduler.{field}"), format!("sched_setattr: `SCHED_DEADLINE` {why}")))
    };
    let Some(runtime) = *scheduler.runtime() else { return wrong("runtime", "requires `runtime`".to_owned()) };
    let Some(deadline) = *scheduler.deadline() else { return wrong("deadline", "requires `deadline`".to_owned()) };
    let period = scheduler.period().filter(|period| *period != 0).unwrap_or(deadline);
    if runtime == 0 {
        return wrong("runtime", "runtime must be greater than 0".to_owned());
    }
    if !(LEAST..=MOST).contains(&runtime) {
        return wrong("runtime", format!("runtime {runtime} must be between {LEAST} and {MOST}"));
    }
    if runtime > deadline {
        return wrong("runtime", format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    if deadline > period {
        return wrong("deadline", format!("deadline {deadline} must be <= period {period}"));
    }
    if period > MOST {
        return wrong("period", format!("period {period} must be between {LEAST} and {MOST}"));
    }
    Ok(())
}

/// `linux/ioprio.h`
pub(super) fn io_priority(priority: &LinuxIOPriority) -> Result<u16, Error> {
    let class: u16 = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(priority.priority()).ok().filter(|level| *level < 8);
    let level = level.ok_or_else(|| {
        Error::new("process.ioPriority.priority", format!("{} isn't from 0 to 7", priority.priority()))
    })?;
    Ok(class << 13 | level)
}

/// `linux/mempolicy.h`
pub(super) fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy, Error> {
    use MemoryPolicyFlagType as Flag;
    use MemoryPolicyModeType as Mode;
    let mode = policy.mode();
    let number: u32 = match mode {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let mut flags = 0_u32;
    for flag in policy.flags().iter().flatten() {
        flags |= match flag {
            Flag::MpolFNumaBalancing => 1 << 13,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFStaticNodes => 1 << 15,
        };
    }
    // As the kernel would have it.
    let wrong = |field: &str, why: &str| {
        let why = format!("invalid memory policy {field}: {why} (set_mempolicy(2): invalid argument)");
        Err(Error::new(format!("linux.memoryPolicy.{field}"), why))
    };
    if flags & (1 << 14 | 1 << 15) == 1 << 14 | 1 << 15 {
        return wrong("flags", "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other");
    }
    if flags & 1 << 13 != 0 && !matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany) {
        return wrong("flags", "MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY");
    }
    let nodes = list::mask("linux.memoryPolicy.nodes", policy.nodes().as_deref().unwrap_or_default())
        .map_err(|error| Error::new(error.field, format!("invalid memory policy nodes: {}", error.reason)))?;
    let without = matches!(mode, Mode::MpolDefault | Mode::MpolLocal);
    if without && (!nodes.is_empty() || flags != 0) {
        return wrong("nodes", "MPOL_DEFAULT and MPOL_LOCAL take neither nodes nor flags");
    }
    if !without && mode != Mode::MpolPreferred && nodes.is_empty() {
        return wrong("nodes", "this mode needs some");
    }
    Ok(MemoryPolicy { mode: number | flags, nodes })
}

/// `linux/personality.h`
pub(super) fn personality(personality: &LinuxPersonality) -> Result<u32, Error> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Error::new("linux.personality.flags", format!("{flag:?}: the specification has none")));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_are_the_kernel_s() {
        let of = |json: &str| scheduler(&serde_json::from_str(json).unwrap());
        let made = of(r#"{"policy":"SCHED_FIFO","priority":7,"flags":["SCHED_FLAG_RECLAIM"]}"#).unwrap();
        assert_eq!(made, Scheduler { policy: 1, priority: 7, flags: 2, ..Scheduler::default() });
        let made = of(r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":1024,"period":1025}"#).unwrap();
        assert_eq!((made.policy, made.runtime, made.deadline, made.period), (6, 1024, 1024, 1025));
        assert_eq!(of(r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2048}"#).unwrap().period, 0);
        for (json, field) in [
            (r#"{"policy":"SCHED_ISO"}"#, "scheduler.policy"),
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "scheduler.nice"),
            (r#"{"policy":"SCHED_OTHER","priority":1}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_RR"}"#, "scheduler.priority"),
            (r#"{"policy":"SCHED_BATCH","runtime":5}"#, "scheduler.runtime"),
            (r#"{"policy":"SCHED_DEADLINE","deadline":5}"#, "sched_setattr: `SCHED_DEADLINE` requires `runtime`"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":5}"#, "sched_setattr: `SCHED_DEADLINE` requires `deadline`"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":0,"deadline":5}"#, "runtime must be greater than 0"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":1023,"deadline":5}"#, "runtime 1023 must be between"),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":9223372036854775809,"deadline":9223372036854775810}"#,
                "runtime 9223372036854775809 must be between",
            ),
            (r#"{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":1999}"#, "runtime 2000 must be <= deadline 1999"),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":4000,"period":3000}"#,
                "deadline 4000 must be <= period 3000",
            ),
        ] {
            assert!(of(json).unwrap_err().to_string().contains(field), "{json}");
        }
    }

    #[test]
    fn io_priorities_have_class_and_level() {
        let of = |json: &str| io_priority(&serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_IDLE","priority":0}"#).unwrap(), 3 << 13);
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_BE","priority":7}"#).unwrap(), 2 << 13 | 7);
        assert!(of(r#"{"class":"IOPRIO_CLASS_RT","priority":8}"#).unwrap_err().to_string().contains("priority: 8"));
    }

    #[test]
    fn memory_policies_are_the_kernel_s() {
        let of = |json: &str| memory_policy(&serde_json::from_str(json).unwrap());
        let made = of(r#"{"mode":"MPOL_INTERLEAVE","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!(made, MemoryPolicy { mode: 3 | 1 << 15, nodes: vec![3] });
        assert_eq!(of(r#"{"mode":"MPOL_LOCAL"}"#).unwrap(), MemoryPolicy { mode: 4, nodes: Vec::new() });
        for json in [
            r#"{"mode":"MPOL_BIND"}"#,
            r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#,
            r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
            r#"{"mode":"MPOL_INTERLEAVE","nodes":"0","flags":["MPOL_F_NUMA_BALANCING"]}"#,
            r#"{"mode":"MPOL_BIND","nodes":"x"}"#,
        ] {
            let error = of(json).unwrap_err().to_string();
            assert!(error.contains("linux.memoryPolicy") && error.contains("invalid memory policy"), "{json}: {error}");
        }
    }

    #[test]
    fn personalities_have_no_flags() {
        let of = |json: &str| personality(&serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"domain":"LINUX32"}"#).unwrap(), 8);
        assert!(of(r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#).unwrap_err().to_string().contains("ADDR_NO"));
    }
}
