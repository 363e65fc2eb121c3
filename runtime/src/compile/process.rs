//! `process` of a spec.

use oci_spec::runtime::{LinuxCapabilities, PosixRlimitType, Process as SpecProcess};

use super::{refuse, text};
use crate::launch::{Capabilities, Process, Rlimit};
use crate::spec::{Error, capabilities};

pub(super) fn process(process: &SpecProcess) -> Result<Process, Error> {
    refuse("process.terminal", process.terminal() == Some(true))?;
    refuse("process.commandLine", process.command_line().is_some())?;
    refuse("process.apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|p| !p.is_empty()))?;
    refuse("process.selinuxLabel", process.selinux_label().as_ref().is_some_and(|p| !p.is_empty()))?;
    refuse("process.ioPriority", process.io_priority().is_some())?;
    refuse("process.scheduler", process.scheduler().is_some())?;
    refuse("process.execCPUAffinity", process.exec_cpu_affinity().is_some())?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::new("process.args", "no program"));
    }
    let cwd = text("process.cwd", process.cwd())?;
    if !cwd.starts_with('/') {
        return Err(Error::new("process.cwd", format!("{cwd:?} isn't absolute")));
    }
    let user = process.user();
    Ok(Process {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: process.capabilities().as_ref().map(sets).unwrap_or_default(),
        rlimits: rlimits(process)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
    })
}

fn sets(sets: &LinuxCapabilities) -> Capabilities {
    let mask = |set: &Option<oci_spec::runtime::Capabilities>| capabilities::mask(set.iter().flatten());
    Capabilities {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        inheritable: mask(sets.inheritable()),
        permitted: mask(sets.permitted()),
        ambient: mask(sets.ambient()),
    }
}

fn rlimits(process: &SpecProcess) -> Result<Vec<Rlimit>, Error> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let resource = resource(limit.typ());
        if limits.iter().any(|known| known.resource == resource) {
            return Err(Error::new("process.rlimits", format!("{} is given twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::new("process.rlimits", format!("{}: soft limit above hard limit", limit.typ())));
        }
        limits.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

/// Numbers of `asm-generic/resource.h`, which x86-64 and arm64 share.
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}
