//! Making a container: what `create`, `run` and `exec` share is here, what each adds is in its command.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::bundle::Bundle;
use super::bus::message::Properties;
use super::caller::{console_of, open_console, pass_descriptors, receive_terminal, send_pidfd, write_pid_file};
use super::cgroup::Manager;
use super::error::{During, Error, Result};
use super::hook_output::HookOutput;
use super::record::{Record, Resctrl};
use super::scope::Scope;
use super::store::{CONFIGURATION, Entry, Lock, Store};
use super::{cgroup, gate, in_place, life, notify, process, scope, storage, subgroup, systemd};
use crate::cgroup::AbsentController;
use crate::device_filter;
use crate::failure::{Failure, Step};
use crate::hook::{self, Surroundings};
use crate::launch::{Launch, Namespace};
use crate::report::{self, Report};
use crate::start::{Beside, Hooks, Site, StageMessage, Stages, Started, Stdio, start_in_stages};

/// How a container is to be made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave it at the gate, for `start`.
    pub gated: bool,
    /// Where its terminal's outer side goes.
    pub console_socket: Option<PathBuf>,
    /// The caller holds the terminal itself when there is no such socket.
    pub holds_terminal: bool,
    /// Gets the process id.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets the process's pid descriptor.
    pub pidfd_socket: Option<PathBuf>,
    /// So many descriptors from 3 up reach the program.
    pub preserve_fds: u32,
    /// Move the root instead of pivoting to it.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who makes its cgroup.
    pub manager: Manager,
}

/// A container that was made. Its process is this process's child.
#[derive(Debug)]
pub struct Made {
    /// Where it is written down.
    pub entry: Entry,
    /// The right to change it.
    pub lock: Lock,
    /// What is written down.
    pub record: Record,
    /// Its process.
    pub pidfd: OwnedFd,
    /// Its terminal, if the caller holds it.
    pub terminal: Option<OwnedFd>,
    /// On which it says that it is ready, if somebody wants to know and `start` won't listen.
    pub notify: Option<OwnedFd>,
    /// What couldn't be done and isn't an error, for the log.
    pub warnings: Vec<String>,
}

/// Makes the container `id`, with what was begun `beside` for it, if anything. On failure nothing is left of it, and its `poststop` hooks have
/// run if it had come to be.
pub fn create(store: &Store, id: &str, mut bundle: Bundle, beside: Option<Beside>, options: &Options) -> Result<Made> {
    expect_user_namespace(&bundle.launch)?;
    let passed = pass_descriptors(&mut bundle.launch, options.preserve_fds)?;
    let (entry, lock) = store.claim(id)?;
    let mut record = record_of(id, &mut bundle, options);
    match make((&entry, &lock), &mut record, bundle, options, passed, beside) {
        Ok((pidfd, terminal, notify, warnings)) => Ok(Made { entry, lock, record, pidfd, terminal, notify, warnings }),
        Err(error) => {
            // The first error is the one to report.
            let _ = life::destroy(&entry, &record);
            Err(error)
        }
    }
}

/// What is written down about container `id` before it has a process. Takes from the bundle what only the record needs.
pub(crate) fn record_of(id: &str, bundle: &mut Bundle, options: &Options) -> Record {
    Record {
        oci_version: bundle.oci_version.clone(),
        id: id.to_owned(),
        bundle: bundle.path.display().to_string(),
        rootfs: bundle.rootfs.display().to_string(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        owner: rustix::process::getuid().as_raw(),
        own_pids: bundle.launch.namespaces.pid == Namespace::New,
        resctrl: bundle
            .launch
            .intel_rdt
            .as_ref()
            .map(|rdt| Resctrl { class: rdt.class.clone(), monitored: rdt.monitor }),
        seccomp_flags: bundle.launch.seccomp.as_ref().map(|seccomp| seccomp.flags),
        keep_keyring: options.no_new_keyring,
        without_program: bundle.without_program,
        annotations: std::mem::take(&mut bundle.annotations),
        poststart: std::mem::take(&mut bundle.hooks.poststart),
        poststop: std::mem::take(&mut bundle.hooks.poststop),
        ..Record::default()
    }
}

/// A socket that gets the process's pid descriptor, as with crun.
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
const SHARED_MOUNTS: &str = "no mount namespace: the container's mounts are the caller's too, and a program with CAP_SYS_CHROOT can leave \
                             its root";

const NOT_DELEGATED: &str = "annotations[run.oci.delegate-cgroup]: without effect: the container has no cgroup";

const UNBOUND: &str = "no cgroup and no pid namespace of its own: what the program starts can't all be found and killed with it. Such \
                       configuration is strongly discouraged";

type Parts = (OwnedFd, Option<OwnedFd>, Option<OwnedFd>, Vec<String>);

fn make(
    (entry, lock): (&Entry, &Lock),
    record: &mut Record,
    mut bundle: Bundle,
    options: &Options,
    passed: u32,
    beside: Option<Beside>,
) -> Result<Parts> {
    let launch = &mut bundle.launch;
    let wanted = bundle.cgroups_path.as_deref();
    let (mut place, mut unit) = (None, None);
    match options.manager {
        Manager::Cgroupfs => place = cgroup::place(wanted, entry.id())?,
        Manager::Systemd => {
            let scope = scope::scope(wanted, entry.id(), super::is_ordinary_user())?;
            let properties = scope::properties(&scope, entry.id(), &launch.cgroup, &record.annotations)?;
            unit = Some((scope, properties));
        }
        Manager::Disabled => {}
    }
    // An ordinary user needs no rules for devices: he can't make nodes, and has the rights of his own on those that exist.
    if super::is_ordinary_user() && !device_filter::can_load(&launch.cgroup.device_filter) {
        launch.cgroup.device_filter.clear();
    }
    let mut warnings = Vec::new();
    let delegates = subgroup::delegates(record)?;
    record.cgroup = place.as_ref().map(|place| place.path.clone());
    if place.is_none() && unit.is_none() {
        do_without_cgroup(launch, &mut warnings)?;
        warnings.extend(delegates.then(|| NOT_DELEGATED.to_owned()));
    }
    // From here on `delete` knows what there may be to remove.
    lock.begin(record.cgroup.as_deref())?;
    entry.write_intended(record)?;
    if let (Some(_), Some(beside)) = (&bundle.layers, &beside) {
        // A filesystem's server lives as long as the container.
        beside.settle();
    }
    let prepared = bundle.layers.as_ref().map(|layers| storage::prepare(entry, launch, layers)).transpose()?;
    if let Some(prepared) = &prepared {
        launch.namespaces.user = prepared.userns.as_ref().map(|userns| format!("/proc/self/fd/{}", userns.as_raw_fd()));
        warnings.extend(prepared.warning.clone());
    }
    let in_place = in_place::prepare(entry, launch)?;
    if in_place.is_some() {
        warnings.push(SHARED_MOUNTS.to_owned());
    }
    notify::prepare(entry, launch)?;
    let notify = if options.gated { None } else { notify::listen(entry)? };
    let gate = options.gated.then(|| gate::make(entry.directory())).transpose()?;
    let console = if bundle.terminal {
        Some(open_console(options.console_socket.as_deref(), options.holds_terminal)?)
    } else {
        None
    };

    let launch = &bundle.launch;
    let hooks = &bundle.hooks;
    let in_launcher = delegates || !hooks.runtime.is_empty();
    let staged = in_launcher || !(hooks.create_container.is_empty() && hooks.start_container.is_empty());
    let keep_groups = record.keeps_groups();
    let output = if staged { HookOutput::open(record)? } else { HookOutput::NONE };
    let shared = RefCell::new((record, Ok(())));
    let write_down = |pid: i32| {
        let (record, result) = &mut *shared.borrow_mut();
        record.pid = pid;
        record.start_time = process::start_time(pid).unwrap_or(0);
        let seated =
            unit.as_ref().map_or(Ok(()), |(scope, properties)| enter_scope(record, (scope, properties), launch));
        // Only what runs is looked at by `exec`, so these can be written while the child is busy.
        *result = seated.and_then(|()| write_configuration(entry, &bundle)).and_then(|()| entry.write_record(record));
        result.clone().map_err(|_| Failure::new(Step::Record, "the container's process", Errno::IO))
    };
    let state = |status: &str, pid: i32| shared.borrow().0.state(status, pid);
    let stages = Stages {
        adopt_cgroup: true,
        record: Some(&write_down),
        hooks: staged.then_some(Hooks {
            in_launcher,
            create_container: &hooks.create_container,
            start_container: &hooks.start_container,
            output: output.as_fds(),
            state: &state,
        }),
        gate: gate.as_ref().map(AsFd::as_fd),
        console: console.as_ref().map(|(socket, ours)| console_of(socket, ours.is_some(), bundle.console_size)),
        preserved: passed,
        find_home: true,
        keep_keyring: options.no_new_keyring,
        keep_groups,
        without_program: bundle.without_program,
        lodging: None,
        no_pivot: options.no_pivot,
        anywhere: true,
        beside: beside.as_ref(),
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = Stdio { stdin: Some(stdin.as_fd()), stdout: Some(stdout.as_fd()), stderr: Some(stderr.as_fd()) };
    let site = Site {
        cgroup_parent: place.as_ref().map(|place| place.parent.as_fd()),
        absent_controller: AbsentController::Fail,
        device_filters: None,
        volumes: &[],
        root: prepared.as_ref().map(|prepared| &prepared.root).or(in_place.as_ref()).map(AsFd::as_fd),
    };
    let name = place.as_ref().map_or("", |place| place.name.as_str());
    let started = start_in_stages(launch, name, &site, stdio, &stages);
    let (record, written) = shared.into_inner();
    written?;
    let mut started = started.inspect_err(|failure| {
        if failure.step == Step::CreateCgroup {
            // Somebody else's, made meanwhile, then: it isn't to be removed with the container.
            record.cgroup = None;
        }
    })?;
    warnings.append(&mut started.degraded);

    let surroundings =
        Surroundings { directory: Some(&record.bundle), output: output.as_fds(), ..Surroundings::default() };
    let receiver = record.annotations.get(PIDFD_RECEIVER).map(Path::new);
    let mut receivers = options.pidfd_socket.as_deref().into_iter().chain(receiver);
    let finished = follow(&started, surroundings, (launch, &hooks.runtime), record, options.gated)
        .and_then(|()| receivers.try_for_each(|path| send_pidfd(path, &started.pidfd)))
        .and_then(|()| finish(lock, record, options))
        .and_then(|()| console.and_then(|(_, ours)| ours).map(|ours| receive_terminal(&ours)).transpose());
    match finished {
        Ok(terminal) => Ok((started.pidfd, terminal, notify, warnings)),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&started.pidfd, rustix::process::Signal::KILL);
            let _ = hook::wait(started.pidfd.as_fd());
            started.give_interfaces_back();
            Err(error)
        }
    }
}

/// What an `exec` will want to know.
fn write_configuration(entry: &Entry, bundle: &Bundle) -> Result<()> {
    entry.write(CONFIGURATION, &bundle.config)?;
    bundle.launch.seccomp.as_ref().map_or(Ok(()), |seccomp| entry.write("seccomp.bpf", &seccomp.bpf))
}

/// Nobody but root may make the other namespaces without one. To make one that wasn't asked for would change what ids mean.
fn expect_user_namespace(launch: &Launch) -> Result<()> {
    if launch.in_user_namespace() || !super::is_ordinary_user() || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        "config.json: linux.namespaces: an ordinary user needs a user namespace: add {\"type\": \"user\"} with linux.uidMappings \
         and linux.gidMappings, as `spec --rootless` writes them",
    ))
}

/// Has systemd make the container's scope around its process, which waits meanwhile, and sets what systemd doesn't know of.
pub(super) fn enter_scope(
    record: &mut Record,
    (scope, properties): (&Scope, &Properties),
    launch: &Launch,
) -> Result<()> {
    let path = systemd::start(scope, record.pid, properties.clone())?;
    record.scope = Some(scope.unit.clone());
    record.cgroup = Some(path);
    subgroup::enter(record)?;
    let path = record.cgroup.clone().unwrap_or_default();
    let missing = || Error::new(format!("open the cgroup of {}: there is no cgroup2 mount", scope.unit));
    let group = cgroup::open(record)?.ok_or_else(missing)?;
    cgroup::enable_for(&launch.cgroup, group.as_fd(), &path)?;
    crate::cgroup::apply(&group, &launch.cgroup, AbsentController::Fail)?;
    Ok(crate::launcher::give_cgroup(launch, record.pid, group.as_fd())?)
}

/// An ordinary user without cgroups: limits can't hold, so asking for them is an error.
fn do_without_cgroup(launch: &mut Launch, warnings: &mut Vec<String>) -> Result<()> {
    let mut settings = launch.cgroup.settings.iter().chain(launch.cgroup.choices.iter().flatten());
    if let Some((file, value)) = settings.find(|(file, value)| !crate::cgroup::changes_nothing(file, value)) {
        let controller = file.split('.').next().unwrap_or(file);
        return Err(Error::new(format!(
            "cannot set {controller} limit: container could not join or create cgroup for {file}={value}: a cgroup2 mount is missing, or this \
             user has none delegated (systemd-run --user --scope --property=Delegate=yes gives one)"
        )));
    }
    if !launch.cgroup.device_filter.is_empty() && !super::is_ordinary_user() {
        warnings.push("device rules are not in force: the container has no cgroup to attach them to".to_owned());
    }
    if launch.namespaces.pid != Namespace::New {
        warnings.push(UNBOUND.to_owned());
    }
    Ok(())
}

/// Goes along with the child: moves it to where it is to begin and runs the launcher's hooks when it is their turn, until it is at the gate or has executed its
/// program.
fn follow(
    started: &Started,
    surroundings: Surroundings<'_>,
    (launch, hooks): (&Launch, &[hook::Hook]),
    record: &Record,
    gated: bool,
) -> Result<()> {
    while let Some(stages) = &started.stages {
        let mut message = [0_u8; 1];
        let n = match recv(stages, &mut message, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            other => other.during(|| "hear from the container's process")?.0,
        };
        let [message] = message;
        if n == 0 {
            break;
        } else if message == StageMessage::Mounted as u8 {
            subgroup::delegate(record, launch)?;
            let state = hook::State::new(&record.state("created", record.pid))?;
            hook::run_all(surroundings, hooks, &state)?;
            send(stages, b"g", SendFlags::NOSIGNAL).during(|| "answer the container's process")?;
        } else if message == StageMessage::AtGate as u8 {
            return Ok(());
        }
    }
    match wait_for_report(&started.report)? {
        Report::Failed(failure) => Err(failure.into()),
        Report::Executed if !gated => Ok(()),
        _ => Err(Error::new(
            "set up the container: its process was killed: by whom, or for want of memory, the kernel's log may say",
        )),
    }
}

/// The child's own word on how it went; the pipe closes when it executes its program or dies.
pub(crate) fn wait_for_report(report: &OwnedFd) -> Result<Report> {
    loop {
        match report::read(report) {
            Report::Pending => {}
            other => return Ok(other),
        }
        match poll(&mut [PollFd::new(report, PollFlags::empty())], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| "wait for the container's process"),
        }
    }
}

/// Everything stands: says so, and to whom it concerns.
fn finish(lock: &Lock, record: &Record, options: &Options) -> Result<()> {
    lock.finish()?;
    options.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, record.pid))
}
