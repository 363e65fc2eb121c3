//! A seccomp profile → classic BPF, by libseccomp; with a [prologue](newer) that answers ENOSYS to calls newer than the profile, and
//! then [shortened](super::shorten).

mod fit;
mod newer;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, SeekFrom};

use super::text;
use crate::launch::{Listener, Seccomp};
use crate::spec::Error;
pub(crate) use crate::sys::process::NEW_LISTENER as FLAG_NEW_LISTENER;
use crate::sys::process::WAIT_KILLABLE as FLAG_WAIT_KILLABLE_RECV;

/// EPERM, ENOSYS of `asm-generic/errno.h`.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// Flags of `linux/seccomp.h`.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;

/// Compiles `profile` for x86-64, and for i386 and x32 where it names them. Calls of other ABIs give ENOSYS.
pub fn compile(profile: &LinuxSeccomp) -> Result<Seccomp, Error> {
    let listener = listener(profile)?;
    let flags = flags(profile, listener.is_some())?;
    let whole = whole(profile)?;
    let bpf = super::shorten::shorten(&whole).unwrap_or(whole);
    fit::expect_filter(&bpf)?;
    Ok(Seccomp { bpf: bpf.into(), flags, listener })
}

/// The filter as libseccomp makes it, with its prologue.
fn whole(profile: &LinuxSeccomp) -> Result<Vec<u8>, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.defaultErrnoRet")?;
    let mut context = ScmpFilterContext::new(default).map_err(library("create filter"))?;
    context.set_act_badarch(ScmpAction::Errno(ENOSYS.cast_signed())).map_err(library("foreign ABIs"))?;
    // Setting no_new_privs is the launch's to decide.
    context.set_ctl_nnp(false).map_err(library("no_new_privs"))?;
    // A binary tree instead of a list: a dozen comparisons per call instead of hundreds.
    context.set_ctl_optimize(2).map_err(library("optimise"))?;
    let architectures = architectures(profile)?;
    fit::expect_profile(profile, architectures.len().saturating_add(1))?;
    let compatible = !architectures.is_empty();
    for arch in &architectures {
        context.add_arch(*arch).map_err(library("architecture"))?;
    }
    for (position, rule) in profile.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{position}]");
        let action = action(rule.action(), rule.errno_ret(), &format!("{field}.errnoRet"))?;
        if rule.names().is_empty() {
            return Err(Error::new(format!("{field}.names"), "names no system call"));
        }
        if action == ScmpAction::Notify
            && let Some(name) = rule.names().iter().find(|name| NEEDED_BEFORE.contains(&name.as_str()))
        {
            let why = format!(
                "SCMP_ACT_NOTIFY cannot be used for the {name} syscall: the runtime itself makes it before the program is executed, when nobody listens yet"
            );
            return Err(Error::new(field, why));
        }
        if action == default {
            continue;
        }
        let conditions =
            rule.args().iter().flatten().map(|argument| condition(&field, argument)).collect::<Result<Vec<_>, _>>()?;
        for name in rule.names() {
            // Names of other architectures and of newer kernels than libseccomp's are no calls here; as other runtimes do.
            let Ok(call) = ScmpSyscall::from_name_by_arch(name, ScmpArch::X8664) else { continue };
            // A negative number: a call of i386 only. libseccomp gives it to the ABIs that have it.
            if call.as_raw_syscall() < 0 && !compatible {
                continue;
            }
            add(&mut context, action, call, rule, &conditions).map_err(library(name))?;
        }
    }
    let body = export(&context)?;
    let with_prologue = matches!(default, ScmpAction::Errno(_));
    Ok(if with_prologue { [newer::do_not_exist(profile, &architectures), body].concat() } else { body })
}

/// Whether any architecture has a system call of this name, as far as libseccomp knows.
#[cfg(feature = "cli")]
pub(crate) fn is_known(name: &str) -> bool {
    ScmpSyscall::from_name(name).is_ok()
}

/// Calls that the child makes with the filter in force before it executes the program: to hand over the listener, and to say why
/// executing failed.
const NEEDED_BEFORE: [&str; 2] = ["sendmsg", "write"];

fn add(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    rule: &LinuxSyscall,
    conditions: &[ScmpArgCompare],
) -> Result<(), libseccomp::error::SeccompError> {
    let mut indices: Vec<usize> = rule.args().iter().flatten().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        // One filter rule compares an argument once; profiles that name one twice mean either (as with runc).
        for condition in conditions {
            context.add_rule_conditional(action, call, &[*condition])?;
        }
    } else if conditions.is_empty() {
        context.add_rule(action, call)?;
    } else {
        context.add_rule_conditional(action, call, conditions)?;
    }
    Ok(())
}

/// Who answers; `None` if no call is handed over, whatever the profile says of a listener.
pub(super) fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, Error> {
    let path = profile.listener_path().as_ref().map(|path| text("linux.seccomp.listenerPath", path)).transpose()?;
    let path = path.filter(|path| !path.is_empty());
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    if path.is_none() && !metadata.is_empty() {
        return Err(Error::new("linux.seccomp.listenerMetadata", "needs a listenerPath"));
    }
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        let why = "SCMP_ACT_NOTIFY cannot be used as default action: the listener itself couldn't be handed over";
        return Err(Error::new("linux.seccomp.defaultAction", why));
    }
    let notifies = profile.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    match (notifies, path) {
        (false, _) => Ok(None),
        (true, None) => Err(Error::new("linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs one")),
        (true, Some(path)) if !path.starts_with('/') => {
            Err(Error::new("linux.seccomp.listenerPath", format!("{path:?} isn't absolute")))
        }
        (true, Some(path)) => {
            Ok(Some(Listener { path, message: Vec::new(), early: lets_pass(profile, &FROM_CREATE_TO_PROGRAM) }))
        }
    }
}

/// What the child calls from when it hands over the listener to when it executes the program, a gate in between: that, memory, and
/// what comes last.
const FROM_CREATE_TO_PROGRAM: [&str; 22] = [
    "sendmsg",
    "shutdown",
    "close",
    "fcntl",
    "sendto",
    "accept4",
    "recvfrom",
    "write",
    "brk",
    "mmap",
    "mremap",
    "munmap",
    "mprotect",
    "madvise",
    "futex",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "landlock_restrict_self",
    "execve",
    "exit",
    "exit_group",
];

/// Whether each of these calls is certainly allowed, whatever its arguments.
fn lets_pass(profile: &LinuxSeccomp, calls: &[&str]) -> bool {
    let passes = |action| matches!(action, LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
    let by_default = passes(profile.default_action());
    calls.iter().all(|call| {
        let mut rules = profile.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|name| name == call));
        let anything = |rule: &LinuxSyscall| rule.args().as_ref().is_none_or(Vec::is_empty);
        let mut certain = by_default;
        rules.all(|rule| {
            certain |= anything(rule);
            passes(rule.action())
        }) && certain
    })
}

/// The ABIs besides the native one that the filter has rules for. Those of other machines are none here.
fn architectures(profile: &LinuxSeccomp) -> Result<Vec<ScmpArch>, Error> {
    let list = profile.architectures().as_deref().unwrap_or_default();
    let compatible = |arch: &Arch| match arch {
        Arch::ScmpArchX86 => Some(ScmpArch::X86),
        Arch::ScmpArchX32 => Some(ScmpArch::X32),
        _ => None,
    };
    let mut wanted: Vec<ScmpArch> = Vec::new();
    for arch in list.iter().filter_map(compatible) {
        if !wanted.contains(&arch) {
            wanted.push(arch);
        }
    }
    Ok(wanted)
}

fn flags(profile: &LinuxSeccomp, listener: bool) -> Result<u32, Error> {
    let mut bits = if listener { FLAG_NEW_LISTENER } else { 0 };
    for flag in profile.flags().iter().flatten() {
        bits |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            // One thread loads it; there is nobody to synchronise with.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener => FLAG_WAIT_KILLABLE_RECV,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                let why = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY";
                return Err(Error::new("linux.seccomp.flags", why));
            }
        };
    }
    Ok(bits)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<ScmpAction, Error> {
    let number = || {
        let errno = errno.unwrap_or(EPERM);
        let number = u16::try_from(errno).ok().filter(|errno| *errno < 4096);
        number.ok_or_else(|| Error::new(field, format!("{errno} is no error number")))
    };
    let made = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(ScmpAction::Errno(number()?.into())),
        LinuxSeccompAction::ScmpActTrace => return Ok(ScmpAction::Trace(number()?)),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    };
    match errno {
        // Go writes what isn't set as 0.
        None | Some(0) => Ok(made),
        Some(errno) => Err(Error::new(field, format!("{errno}: {action} returns none"))),
    }
}

fn condition(field: &str, argument: &LinuxSeccompArg) -> Result<ScmpArgCompare, Error> {
    let index = u32::try_from(argument.index()).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| Error::new(format!("{field}.args"), format!("no argument {}", argument.index())))?;
    let (op, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        // `value` is the mask, `valueTwo` what must be left of the argument under it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(index, op, value))
}

/// The filter's bytes. libseccomp 2.5 only writes them to a descriptor.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    let io = |e: rustix::io::Errno| Error::new("linux.seccomp", format!("export filter: {e}"));
    let file = rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC).map_err(io)?;
    context.export_bpf(&file).map_err(library("export filter"))?;
    rustix::fs::seek(&file, SeekFrom::Start(0)).map_err(io)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)
        .map_err(|e| Error::new("linux.seccomp", format!("export filter: {e}")))?;
    Ok(bytes)
}

fn library(what: &str) -> impl Fn(libseccomp::error::SeccompError) -> Error {
    let what = what.to_owned();
    move |e| Error::new("linux.seccomp", format!("{what}: {e}"))
}

#[cfg(test)]
mod tests;
