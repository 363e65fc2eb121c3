//! Another process in a container: what it is, from the container's own configuration and what the caller asks for.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process as SpecProcess, User};
use rustix::io::Errno;

use super::caller::{console_of, open_console, preserved, receive_terminal, send_pidfd, write_pid_file};
use super::create::wait_for_report;
use super::error::{During, Error, Result};
use super::record::{Record, Status};
use super::store::{CONFIGURATION, Entry};
use super::{bundle, cgroup, in_place, subgroup, systemd};
use crate::compile::{self, Bundle};
use crate::failure::{Failure, Step};
use crate::launch::{Listener, Process, Seccomp};
use crate::report::Report;
use crate::spec::capabilities;
use crate::start::{Running, Stages, Stdio, enter};

/// What the process is to be.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// A file with a `process` as JSON; everything else about the process is in it then.
    pub process: Option<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// More environment, `NAME=value`.
    pub env: Vec<String>,
    /// `UID[:GID]`, numbers.
    pub user: Option<String>,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// More capabilities.
    pub caps: Vec<String>,
    /// It gets a terminal.
    pub tty: bool,
    /// It gives up new privileges.
    pub no_new_privs: bool,
    /// Its AppArmor profile.
    pub apparmor: Option<String>,
    /// Its SELinux label.
    pub process_label: Option<String>,
    /// Where its terminal's outer side goes.
    pub console_socket: Option<PathBuf>,
    /// The caller holds the terminal itself when there is no such socket.
    pub holds_terminal: bool,
    /// Gets the process id.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets the process's pid descriptor.
    pub pidfd_socket: Option<PathBuf>,
    /// So many descriptors from 3 up reach it.
    pub preserve_fds: u32,
    /// A cgroup beneath the container's.
    pub cgroup: Option<String>,
    /// Whether a paused container will do.
    pub ignore_paused: bool,
}

/// A process that executes its program in the container. It is this process's child.
#[derive(Debug)]
pub struct Entered {
    /// Its id.
    pub pid: i32,
    /// The same by descriptor.
    pub pidfd: OwnedFd,
    /// Its terminal, if the caller holds it.
    pub terminal: Option<OwnedFd>,
}

/// What is to be executed, decided before anything is done.
#[derive(Debug)]
pub struct Decided {
    /// The process.
    pub process: Process,
    /// The container has a user namespace.
    pub in_user_namespace: bool,
    /// What a person should know about it.
    pub warnings: Vec<String>,
    /// What is written down about the container.
    record: Record,
    /// Who answers the calls that its filter hands over.
    listener: Option<Listener>,
    terminal: bool,
    console_size: Option<(u16, u16)>,
}

/// Decides what `request` means in the container.
pub fn decide(entry: &Entry, request: &Request) -> Result<Decided> {
    let config = entry.read(CONFIGURATION)?.ok_or_else(|| not_running(entry, Status::Stopped))?;
    let mut spec = bundle::parse(&config)?;
    let (process, warnings) = match (&request.process, spec.process()) {
        (Some(path), own) => {
            let (mut process, warnings) = read(path)?;
            // What it doesn't mention is as the container's, as with runc and crun.
            if process.capabilities().is_none() {
                process.set_capabilities(own.as_ref().and_then(|own| own.capabilities().clone()));
            }
            (process, warnings)
        }
        (None, Some(own)) => modified(own.clone(), request)?,
        (None, None) => return Err(Error::new("config.json: process: missing: give one in a file by --process")),
    };
    let record = entry.record()?;
    let listener = compile::listener(&spec, Bundle { path: &record.bundle, id: entry.id() }, record.pid)?;
    let terminal = process.terminal().unwrap_or(false);
    let console_size = bundle::console_size(&process);
    let launch = bundle::process_alone(&mut spec, process)?;
    let in_user_namespace = launch.ids.is_some();
    Ok(Decided { process: launch.process, in_user_namespace, warnings, record, listener, terminal, console_size })
}

/// Executes what was decided and waits until it runs.
pub fn exec(entry: &Entry, decided: &Decided, request: &Request) -> Result<Entered> {
    let record = &decided.record;
    let (status, process) = entry.status(record)?;
    let fits = matches!(status, Status::Running | Status::Created) || status == Status::Paused && request.ignore_paused;
    let Some(pidfd) = process.filter(|_| fits) else {
        return Err(not_running(entry, status));
    };
    let preserved = preserved(0, request.preserve_fds)?;
    let seccomp = seccomp(entry, record, decided.listener.clone())?;
    let cgroup = open_cgroup(record, request.cgroup.as_deref())?;
    let console = if decided.terminal {
        Some(open_console(request.console_socket.as_deref(), request.holds_terminal)?)
    } else {
        None
    };
    // It would be in this process's class otherwise.
    let join_class = |pid: i32| record.resctrl.as_ref().map_or(Ok(()), |resctrl| resctrl.groups(&record.id).enter(pid));
    let stages = Stages {
        record: Some(&join_class),
        console: console.as_ref().map(|(socket, ours)| console_of(socket, ours.is_some(), decided.console_size)),
        preserved,
        find_home: true,
        keep_keyring: record.keep_keyring,
        keep_groups: record.keeps_groups(),
        anywhere: true,
        ..Stages::default()
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = Stdio { stdin: Some(stdin.as_fd()), stdout: Some(stdout.as_fd()), stderr: Some(stderr.as_fd()) };
    let root = in_place::open(entry)?;
    let running = Running {
        pid: record.pid,
        pidfd: pidfd.as_fd(),
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        root: root.as_ref().map(AsFd::as_fd),
    };
    let enter =
        |running: &Running<'_>, stages: &Stages<'_>| enter(running, &decided.process, seccomp.as_ref(), stdio, stages);
    let started = match (enter(&running, &stages), &record.scope) {
        (Err(failure), Some(unit)) if failure.step == Step::Clone && failure.errno == Errno::ACCESS.raw_os_error() => {
            // An ordinary user's own processes can't leave the cgroup of a login session; its systemd has them moved.
            let beneath = request.cgroup.as_deref().map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
            let beneath = subgroup::in_scope(record, unit, beneath)?;
            let refusal = RefCell::new(None);
            let attach = |pid| {
                systemd::attach(unit, &beneath, pid).map_err(|error| {
                    refusal.replace(Some(error));
                    Failure::new(Step::Record, "the cgroup", Errno::ACCESS)
                })?;
                join_class(pid)
            };
            let started = enter(&Running { cgroup: None, ..running }, &Stages { record: Some(&attach), ..stages });
            refusal.take().map_or(Ok(()), Err)?;
            started?
        }
        (Err(failure), _)
            if failure.step == Step::Clone
                && failure.errno == Errno::BUSY.raw_os_error()
                && request.cgroup.is_none() =>
        {
            // Its cgroup has controllers for those that the container has made in it, and takes no process any more.
            let moved = cgroup::moved(record)?.ok_or(failure)?;
            enter(&Running { cgroup: Some(moved.as_fd()), ..running }, &stages)?
        }
        (Err(failure), _) if failure.step == Step::Clone && failure.errno == Errno::BUSY.raw_os_error() => {
            return Err(not_added(&failure));
        }
        (started, _) => started?,
    };
    let finished = match wait_for_report(&started.report)? {
        Report::Failed(failure) => Err(failure.into()),
        Report::Died => Err(Error::new("exec: the process was killed before it executed its program")),
        Report::Executed | Report::Pending => announce(request, started.pid, &started.pidfd),
    };
    let finished =
        finished.and_then(|()| console.and_then(|(_, ours)| ours).map(|ours| receive_terminal(&ours)).transpose());
    match finished {
        Ok(terminal) => Ok(Entered { pid: started.pid, pidfd: started.pidfd, terminal }),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&started.pidfd, rustix::process::Signal::KILL);
            let _ = crate::hook::wait(started.pidfd.as_fd());
            Err(error)
        }
    }
}

/// Tells whom it concerns which process it is.
fn announce(request: &Request, pid: i32, pidfd: &OwnedFd) -> Result<()> {
    request.pidfd_socket.as_deref().map_or(Ok(()), |path| send_pidfd(path, pidfd))?;
    request.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, pid))
}

fn not_running(entry: &Entry, status: Status) -> Error {
    let why = match status {
        Status::Paused => "resume it first, or give --ignore-paused",
        _ => "container not running",
    };
    Error::new(format!("cannot exec in a {} container: {}: {why}", status.text(), entry.id()))
}

/// It can't be in the cgroup that was asked for.
fn not_added(why: &dyn std::fmt::Display) -> Error {
    Error::new(format!("adding pid of the new process to cgroups: {why}"))
}

/// `-` is standard input, as with crun.
fn read(path: &Path) -> Result<(SpecProcess, Vec<String>)> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let read = compile::read_process(&bundle::read(path)?);
    read.map_err(|error| Error::new(format!("parse {}: {error}", path.display())))
}

/// The container's own process with other arguments, and what else the caller wants to be different.
fn modified(mut process: SpecProcess, request: &Request) -> Result<(SpecProcess, Vec<String>)> {
    if request.args.is_empty() {
        return Err(Error::new("exec: no program: give it after the container, or in a file by --process"));
    }
    process.set_args(Some(request.args.clone()));
    process.set_terminal(Some(request.tty));
    if let Some(cwd) = &request.cwd {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for variable in &request.env {
        let name = variable.split_once('=').map(|(name, _)| format!("{name}="));
        let name = name.ok_or_else(|| Error::new(format!("--env {variable:?}: it must be NAME=value")))?;
        env.retain(|known| !known.starts_with(&name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
    if let Some(text) = &request.user {
        let (uid, gid) = ids(text)?;
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid).set_umask(process.user().umask());
        process.set_user(user);
    }
    if !request.additional_gids.is_empty() {
        let mut gids = process.user().additional_gids().clone().unwrap_or_default();
        gids.extend(&request.additional_gids);
        process.user_mut().set_additional_gids(Some(gids));
    }
    if request.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &request.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &request.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    let warnings = add_capabilities(&mut process, &request.caps);
    Ok((process, warnings))
}

/// Whole numbers only: what isn't one must not become 0 by some other rule (CVE-2026-30892).
fn ids(text: &str) -> Result<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|id| digits && *id != u32::MAX)
    };
    match (id(uid), id(gid)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(Error::new(format!("--user {text:?}: it must be UID or UID:GID in whole numbers"))),
    }
}

/// More capabilities in force, permitted, and within bounds. Never inheritable (CVE-2022-29162); those that the configuration makes
/// inheritable are ambient, too, as with runc, so that a user's program has them. Returns a warning for each that there isn't, as of a
/// configuration's own.
fn add_capabilities(process: &mut SpecProcess, names: &[String]) -> Vec<String> {
    let unknown = names.iter().filter(|name| capabilities::parse(name).is_none());
    let warnings = unknown.map(|name| format!("--cap {name:?}: there is no such capability, ignored")).collect();
    let more: Vec<Capability> = names.iter().filter_map(|name| capabilities::parse(name)).collect();
    if more.is_empty() {
        return warnings;
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(|| {
        // The type's own default isn't empty.
        let mut none = LinuxCapabilities::default();
        none.set_inheritable(None).set_ambient(None).set_bounding(None).set_effective(None).set_permitted(None);
        none
    });
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&more).copied().collect::<Capabilities>());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    let inheritable = sets.inheritable().iter().flatten().filter(|inheritable| more.contains(inheritable));
    let ambient: Capabilities = sets.ambient().iter().flatten().chain(inheritable).copied().collect();
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(Some(ambient));
    process.set_capabilities(Some(sets));
    warnings
}

/// The container's filter, as it was compiled when the container was made.
fn seccomp(entry: &Entry, record: &Record, listener: Option<Listener>) -> Result<Option<Seccomp>> {
    let Some(flags) = record.seccomp_flags else { return Ok(None) };
    match entry.read("seccomp.bpf")? {
        Some(bpf) => Ok(Some(Seccomp { bpf: bpf.into(), flags, listener })),
        None => Err(Error::new(format!("exec in container {}: its seccomp filter is missing", entry.id()))),
    }
}

fn open_cgroup(record: &Record, beneath: Option<&str>) -> Result<Option<OwnedFd>> {
    let Some(own) = cgroup::open(record)? else {
        let Some(path) = &record.cgroup else { return Ok(None) };
        // Its first process has left it, or nobody could have removed it. The caller's own would have none of the container's limits.
        let moved = if beneath.is_none() { cgroup::moved(record)? } else { None };
        return moved.map(Some).ok_or_else(|| Error::new(format!("open cgroup {path} of the container: it is gone")));
    };
    let Some(path) = beneath.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty()) else {
        return Ok(Some(own));
    };
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&own, path, flags, rustix::fs::Mode::empty(), how) {
        Err(Errno::XDEV | Errno::LOOP) => {
            Err(Error::new(format!("--cgroup: bad sub cgroup path {path}: it leads out of the container's")))
        }
        other => {
            other.map(Some).during(|| format!("open cgroup {path} of the container")).map_err(|error| not_added(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn a_user_is_whole_numbers() {
        assert_eq!(ids("0"), Ok((0, 0)));
        assert_eq!(ids("1000"), Ok((1000, 0)));
        assert_eq!(ids("1000:100"), Ok((1000, 100)));
        for wrong in [
            "",
            ":",
            "1x",
            "x1",
            "0x1",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1:",
            ":1",
            "1:1x",
            "1:1:1",
            "root",
            "4294967295",
            "4294967296",
        ] {
            assert!(ids(wrong).is_err(), "{wrong:?}");
        }
    }
}
