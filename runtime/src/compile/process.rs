//! `process` of a spec.

use oci_spec::runtime::{Capability, LinuxCapabilities, PosixRlimitType, Process as SpecProcess};

use super::{list, refuse, scheduling, text};
use crate::launch::{Capabilities, ExecAffinity, Process, Rlimit};
use crate::spec::{Error, capabilities};

/// The process of a spec, or of an `exec`: all that isn't said in `linux` or an annotation.
pub fn process(process: &SpecProcess) -> Result<Process, Error> {
    refuse("process.commandLine", process.command_line().is_some())?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::new("process.args", "no program"));
    }
    let env = process.env().clone().unwrap_or_default();
    for (field, list) in [("process.args", &args), ("process.env", &env)] {
        if let Some(string) = list.iter().find(|string| string.contains('\0')) {
            return Err(Error::new(field, format!("{string:?} holds a NUL")));
        }
    }
    let cwd = text("process.cwd", process.cwd())?;
    if !cwd.starts_with('/') {
        return Err(Error::new("process.cwd", format!("{cwd:?} isn't absolute")));
    }
    let user = process.user();
    let additional_gids = user.additional_gids().clone().unwrap_or_default();
    check_id("process.user.uid", user.uid())?;
    check_id("process.user.gid", user.gid())?;
    additional_gids.iter().try_for_each(|gid| check_id("process.user.additionalGids", *gid))?;
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        return Err(Error::new("process.user.umask", format!("{umask:#o} has more than permission bits")));
    }
    let score = process.oom_score_adj();
    if let Some(score) = score.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(Error::new("process.oomScoreAdj", format!("{score} isn't from -1000 to 1000")));
    }
    let label = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    Ok(Process {
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids,
        umask: user.umask(),
        capabilities: process.capabilities().as_ref().map(sets).unwrap_or_default(),
        rlimits: rlimits(process)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: score,
        scheduler: process.scheduler().as_ref().map(scheduling::scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(scheduling::io_priority).transpose()?,
        exec_affinity: exec_affinity(process)?,
        memory_policy: None,
        personality: None,
        apparmor_profile: label(process.apparmor_profile()),
        selinux_label: label(process.selinux_label()),
        landlock: None,
    })
}

/// To the kernel this one means "as it is", which would be root.
fn check_id(field: &str, id: u32) -> Result<(), Error> {
    if id == u32::MAX { Err(Error::new(field, format!("{id} is no id"))) } else { Ok(()) }
}

/// The size of the process's terminal as rows and columns, if it is to have a terminal.
pub fn terminal(process: &SpecProcess) -> Result<Option<(u16, u16)>, Error> {
    if process.terminal() != Some(true) {
        return Ok(None);
    }
    let size = process.console_size().unwrap_or_default();
    let number = |field: &str, value: u64| {
        u16::try_from(value).map_err(|_| Error::new(field, format!("{value} is more than a terminal has")))
    };
    let rows = number("process.consoleSize.height", size.height())?;
    Ok(Some((rows, number("process.consoleSize.width", size.width())?)))
}

fn exec_affinity(process: &SpecProcess) -> Result<ExecAffinity, Error> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(ExecAffinity::default()) };
    let mask = |field: &str, list: &Option<String>| list::mask(field, list.as_deref().unwrap_or_default());
    Ok(ExecAffinity {
        initial: mask("process.execCPUAffinity.initial", affinity.initial())?,
        last: mask("process.execCPUAffinity.final", affinity.cpu_affinity_final())?,
    })
}

/// A warning of ambient capabilities that the kernel won't take, as they aren't permitted and inheritable, too (capabilities(7)). One of
/// all of them: there are callers that ask for a dozen.
pub(super) fn no_ambient(process: &SpecProcess) -> Option<String> {
    let sets = process.capabilities().as_ref()?;
    let granted: Vec<&Capability> =
        sets.permitted().iter().flatten().filter(|c| sets.inheritable().iter().flatten().any(|i| i == *c)).collect();
    let lacking = |capability: &&Capability| !granted.contains(capability);
    let mut names: Vec<String> = sets.ambient().iter().flatten().filter(lacking).map(Capability::to_string).collect();
    names.sort();
    let (first, others) = names.split_first()?;
    let others: String = others.iter().map(|name| format!("; nor CAP_{name}")).collect();
    Some(format!(
        "process.capabilities.ambient: can't raise ambient capability CAP_{first}: it isn't both permitted and inheritable{others}"
    ))
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
