//! The last steps: streams, session, privileges, filter, exec.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{Shutdown, shutdown};

use super::{Theatre, environment, identity, landlock, listener};
use crate::failure::{Context, Failure, Step};
use crate::hook::Surroundings;
use crate::launch::{Process, Rlimit, Seccomp};
use crate::launcher;
use crate::report;
use crate::start::Lodging;
use crate::sys::exec::{Strings, execve};
use crate::sys::landlock::Ruleset;
use crate::sys::process::{SeccompFilter, close_all_but, close_on_exec_from, reset_these_signals, set_limit};
use crate::sys::schedule::{set_memory_policy, set_personality};

/// Where a program without a slash is looked for when `env` has no `PATH`; Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is left to do in a namespace that is ready.
pub(crate) struct Program<'a> {
    /// The program and what it is to be.
    pub(crate) process: &'a Process,
    /// Its filter.
    pub(crate) seccomp: Option<&'a Seccomp>,
    /// Its standard streams.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Instead of the streams, and in control of its session.
    pub(crate) terminal: Option<BorrowedFd<'a>>,
    /// Where it is told that it is executed next.
    pub(crate) report: BorrowedFd<'a>,
    /// Where to wait before it is executed.
    pub(crate) theatre: &'a Theatre<'a>,
    /// It is in its working directory, to which its user goes otherwise.
    pub(crate) arrived: bool,
    /// The launcher's own file mode creation mask.
    pub(crate) umask: Mode,
    /// The connection to the seccomp agent.
    pub(crate) agent: Option<BorrowedFd<'a>>,
    /// What the agent is told.
    pub(crate) message: &'a [u8],
}

/// Executes the program. Returns only with the reason why it couldn't.
pub(crate) fn execute(program: &Program<'_>) -> Result<(), Failure> {
    let process = program.process;
    // Everything that allocates comes before the filter.
    let name = process.args.first().map_or("", String::as_str);
    let completed = program.theatre.stages().find_home.then(|| environment::complete(&process.env, process.uid));
    let variables = completed.as_ref().unwrap_or(&process.env);
    let candidates = candidates(name, variables).at(Step::Execute, || name)?;
    let arguments = Strings::new(&process.args).at(Step::Execute, || name)?;
    let environment = Strings::new(variables).at(Step::Execute, || name)?;
    let filter = match program.seccomp {
        Some(seccomp) => {
            Some(SeccompFilter::new(&seccomp.bpf, seccomp.flags).at(Step::LoadSeccomp, || "malformed filter")?)
        }
        None => None,
    };

    rustix::process::setsid().at(Step::CreateSession, || name)?;
    let streams = match program.terminal {
        Some(terminal) => {
            rustix::process::ioctl_tiocsctty(terminal).at(Step::OpenTerminal, || "control")?;
            [terminal; 3]
        }
        None => program.stdio,
    };
    let stages = program.theatre.stages();
    place_stdio(streams, stages.preserved)?;
    let first = 3_i32.saturating_add_unsigned(stages.preserved);
    close_on_exec_from(first).at(Step::CloseDescriptors, || format!("from {first}"))?;
    let rules = process.landlock.as_ref().map(landlock::prepare).transpose()?;
    confine(process)?;
    identity::limit_bounding_set(&process.capabilities)?;
    // A limit on the size of files would be one of what hooks are told.
    let state = program.theatre.last_state()?;
    limit_resources(process, |limit| stages.lodging.is_none() || !of_memory(limit))?;
    let restricted = filter.is_some() || rules.is_some();
    let retained = if restricted && !process.no_new_privileges { identity::MAY_RESTRICT_ITSELF } else { 0 };
    identity::become_user(process, stages.keep_groups, retained)?;
    if !program.arrived {
        super::change_directory_at_last(&process.cwd)?;
    }
    if stages.gate.is_some() && !stages.without_program {
        // So that a wrong program is an error of `create`, not of `start`. By the user's rights, which are no fewer than root's everywhere.
        expect_program(process, variables, &candidates)?;
    }
    rustix::process::umask(process.umask.map_or(program.umask, Mode::from_raw_mode));
    if program.theatre.is_watched() {
        // The machine's directories above all: a process in the container that may trace this one could walk out by
        // them (CVE-2016-9962).
        let (told, ruled) = (state.as_ref().map(AsFd::as_fd), rules.as_ref().map(AsFd::as_fd));
        let others = [Some(program.report), program.terminal, program.agent, told, ruled];
        let kept = others.into_iter().flatten().chain(program.theatre.descriptors());
        let mut kept: Vec<RawFd> = kept.map(|fd| fd.as_raw_fd()).collect();
        close_all_but(&mut kept, first).at(Step::CloseDescriptors, || format!("from {first}"))?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges, || name)?;
    }
    // Hooks that it still has to run are of the container's files: they have no more rights than the program. In force for each of
    // them alone, as what this process still has to do itself may be denied.
    let restrict = || {
        rules.as_ref().map_or(Ok(()), Ruleset::restrict)?;
        filter.as_ref().map_or(Ok(()), SeccompFilter::load_unheard)
    };
    let surroundings = Surroundings { environment: Some(variables), restrict: Some(&restrict), ..Surroundings::default() };
    let early = program.theatre.only_waits() && program.seccomp.is_some_and(|seccomp| seccomp.is_early());
    if early {
        load(filter.as_ref(), program.agent, program.message)?;
        // It has been told all.
        program.agent.map_or(Ok(()), |agent| shutdown(agent, Shutdown::Write)).at(Step::ReachAgent, || "no more")?;
    }
    program.theatre.ready(state.as_ref(), surroundings)?;
    reset_these_signals(stages.lodging.map_or(u64::MAX, Lodging::ignored_signals));
    rules.as_ref().map_or(Ok(()), Ruleset::restrict).at(Step::Landlock, || "the program")?;
    if stages.lodging.is_some() {
        // As late as can be: they count the launcher's memory, too.
        limit_resources(process, of_memory)?;
    }

    report::executing(program.theatre.report(program.report)).at(Step::Execute, || name)?;
    // From here on there may be no call but exec.
    if !early {
        load(filter.as_ref(), program.agent, program.message)?;
    }
    let mut failure = Errno::NOENT;
    if let Some(lodging) = stages.lodging {
        lodging.leave();
    }
    for candidate in &candidates {
        match execve(candidate, &arguments, &environment) {
            // A name that was looked for in one place only is where it says, or what is above isn't.
            errno @ (Errno::NOENT | Errno::NOTDIR) if candidates.len() == 1 => failure = errno,
            Errno::NOENT | Errno::NOTDIR => {}
            // Remembered, as a shell does: a later directory may have one that can be executed.
            Errno::ACCESS => failure = Errno::ACCESS,
            errno => {
                failure = errno;
                break;
            }
        }
    }
    if let Some(lodging) = stages.lodging {
        lodging.enter();
    }
    Err(Failure::new(Step::Execute, program_text(process, variables), failure))
}

/// Goes down to those of the declared limits.
fn limit_resources(process: &Process, those: impl Fn(&Rlimit) -> bool) -> Result<(), Failure> {
    process.rlimits.iter().filter(|limit| those(limit)).try_for_each(|limit| {
        set_limit(limit).at(Step::SetResourceLimit, || limit.to_string())
    })
}

/// Whether a limit may keep this process itself from allocating.
fn of_memory(limit: &Rlimit) -> bool {
    [libc::RLIMIT_AS, libc::RLIMIT_DATA].contains(&limit.resource)
}

/// What the program and all that it starts will have instead of the machine's usual.
fn confine(process: &Process) -> Result<(), Failure> {
    if let Some(policy) = &process.memory_policy {
        set_memory_policy(policy).at(Step::SetMemoryPolicy, || format!("{:#x}", policy.mode))?;
    }
    if let Some(domain) = process.personality {
        set_personality(domain).at(Step::SetPersonality, || format!("{domain:#x}"))?;
    }
    Ok(())
}

/// Puts the filter in force and hands over its listener, if it has one.
fn load(filter: Option<&SeccompFilter>, agent: Option<BorrowedFd<'_>>, message: &[u8]) -> Result<(), Failure> {
    let Some(filter) = filter else { return Ok(()) };
    let listener = filter.load().at(Step::LoadSeccomp, || "of the container")?;
    match (listener, agent) {
        (Some(made), Some(agent)) => listener::announce(agent, message, &made).at(Step::ReachAgent, || "listener"),
        // Nobody would answer: every call that is handed over would wait for ever.
        (Some(_), None) => Err(Failure::new(Step::ReachAgent, "which wasn't named", Errno::INVAL)),
        (None, _) => Ok(()),
    }
}

/// Whether one of the candidates is a file that this process may execute; what else is wrong with it only exec can tell.
fn expect_program(process: &Process, variables: &[String], candidates: &[CString]) -> Result<(), Failure> {
    let mut failure = Errno::NOENT;
    for candidate in candidates {
        let kind = rustix::fs::stat(candidate.as_c_str()).map(|stat| FileType::from_raw_mode(stat.st_mode));
        // By the capabilities in force, too, as exec has it.
        match rustix::fs::accessat(CWD, candidate.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) if kind == Ok(FileType::RegularFile) => return Ok(()),
            Ok(()) => failure = Errno::ACCESS,
            Err(Errno::NOENT | Errno::NOTDIR) if candidates.len() > 1 => {}
            Err(errno) => failure = errno,
        }
    }
    Err(Failure::new(Step::Execute, program_text(process, variables), failure))
}

/// The program for an error message: by name, and where it was looked for.
fn program_text(process: &Process, variables: &[String]) -> String {
    match process.args.first() {
        Some(name) if name.contains('/') => name.clone(),
        Some(name) => format!("{name} (in PATH {})", search_path(variables)),
        None => String::new(),
    }
}

fn search_path(env: &[String]) -> &str {
    env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

/// The paths to try, in order, as execvp(3) does.
fn candidates(name: &str, env: &[String]) -> Result<Vec<CString>, Errno> {
    let text = |path: String| CString::new(path).map_err(|_| Errno::INVAL);
    if name.contains('/') {
        return Ok(vec![text(name.to_owned())?]);
    }
    // An empty entry would mean the working directory; nobody means that in a container.
    search_path(env).split(':').filter(|d| !d.is_empty()).map(|directory| text(format!("{directory}/{name}"))).collect()
}

/// Puts the streams on 0, 1 and 2, by copies above what is kept, as they may lie crosswise.
fn place_stdio(streams: [BorrowedFd<'_>; 3], preserved: u32) -> Result<(), Failure> {
    let own = streams.map(own_null);
    let [first, second, third] = &own;
    let [stdin, stdout, stderr] = streams;
    let streams = [
        first.as_ref().map_or(stdin, AsFd::as_fd),
        second.as_ref().map_or(stdout, AsFd::as_fd),
        third.as_ref().map_or(stderr, AsFd::as_fd),
    ];
    if streams.map(|fd| fd.as_raw_fd()) == [0, 1, 2] {
        let keep = |fd| fcntl_setfd(fd, FdFlags::empty()).at(Step::PlaceStdio, || "keep");
        return streams.into_iter().try_for_each(keep);
    }
    let [stdin, stdout, stderr] = streams;
    let first = 3_i32.saturating_add_unsigned(preserved);
    let copy = |fd| fcntl_dupfd_cloexec(fd, first).at(Step::PlaceStdio, || "copy");
    let (stdin, stdout, stderr) = (copy(stdin)?, copy(stdout)?, copy(stderr)?);
    rustix::stdio::dup2_stdin(&stdin).at(Step::PlaceStdio, || "0")?;
    rustix::stdio::dup2_stdout(&stdout).at(Step::PlaceStdio, || "1")?;
    rustix::stdio::dup2_stderr(&stderr).at(Step::PlaceStdio, || "2")
}

/// The container's own null device, where a stream is the machine's: by a descriptor of that the container's root could give it another
/// mode or owner (`chmod /proc/self/fd/0`). One that the container hasn't, or has put something else in the place of, stays the
/// machine's.
fn own_null(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    launcher::expect_null(stream).ok()?;
    let access = rustix::fs::fcntl_getfl(stream).ok()? & OFlags::ACCMODE;
    // Whatever lies there by now, in a container that runs, opening it takes no time.
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    let own = rustix::fs::open("/dev/null", flags, Mode::empty()).ok()?;
    launcher::expect_null(own.as_fd()).ok()?;
    rustix::fs::fcntl_setfl(&own, access).ok().map(|()| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<String> = env.iter().map(|e| (*e).to_owned()).collect();
        candidates(name, &env).unwrap().into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn a_plain_name_is_looked_up_in_path() {
        assert_eq!(found("web", &["A=b", "PATH=/x::/y"]), ["/x/web", "/y/web"]);
        assert_eq!(found("./web", &["PATH=/x"]), ["./web"]);
        assert!(found("web", &[]).contains(&"/usr/bin/web".to_owned()));
    }
}
