//! Making a container anew from files that criu has written.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::bus::message::Properties;
use super::caller::{open_console, write_pid_file};
use super::cgroup::Manager;
use super::checkpoint::{CGROUP, OUTER_NETWORK, STREAMS, absolute, expect_own, externals, outer_network};
use super::create::{Made, Options, enter_scope, record_of};
use super::criu::{self, Beside, Images, Outcome, Surroundings};
use super::error::{During, Error, Result};
use super::record::Record;
use super::scope::Scope;
use super::store::{CONFIGURATION, Entry, Lock, Store};
use super::{bundle, cgroup, life, process, scope, storage, subgroup, systemd};
use crate::cgroup::AbsentController;
use crate::descriptor;
use crate::launch::Launch;

/// How a container is made anew.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// What both directions have in common.
    pub images: Images,
    /// Connections are made closed, whatever was kept of them.
    pub tcp_close: bool,
    /// `TYPE:NAME` of the security module's profile instead of the one that is written down.
    pub lsm_profile: Option<String>,
    /// The context of mounts instead of the one that is written down.
    pub lsm_mount_context: Option<String>,
}

/// Has criu make the container `id` from its bundle and `wanted.images`. On failure nothing is left of it.
pub fn restore(store: &Store, id: &str, mut bundle: Bundle, options: &Options, wanted: &Restore) -> Result<Made> {
    criu::expect_root(|| format!("restore container {id}"))?;
    let images = absolute(&wanted.images)?;
    if !images.directory.is_dir() {
        return Err(Error::new(format!("open the images {}: there is no such directory", images.directory.display())));
    }
    let wanted = Restore { images, ..wanted.clone() };
    let (entry, lock) = store.claim(id)?;
    let mut record = record_of(id, &mut bundle, options);
    match make((&entry, &lock), &mut record, &bundle, options, &wanted) {
        Ok((pidfd, terminal)) => Ok(Made { entry, lock, record, pidfd, terminal, notify: None, warnings: Vec::new() }),
        Err(error) => {
            // The first error is the one to report.
            let _ = life::destroy(&entry, &record);
            Err(error)
        }
    }
}

fn make(
    (entry, lock): (&Entry, &Lock),
    record: &mut Record,
    bundle: &Bundle,
    options: &Options,
    wanted: &Restore,
) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let spec = bundle::parse(&bundle.config)?;
    expect_own(&spec)?;
    // Who holds it must be there before there is anything to be held.
    let socket = options.console_socket.as_deref();
    let console = bundle.terminal.then(|| open_console(socket, options.holds_terminal)).transpose()?;
    let (mut place, mut unit) = (None, None);
    match options.manager {
        Manager::Cgroupfs => place = cgroup::place(bundle.cgroups_path.as_deref(), entry.id())?,
        Manager::Systemd => unit = Some(Unit::new(entry.id(), bundle, record)?),
        Manager::Disabled => {}
    }
    record.cgroup = place.as_ref().map(|place| place.path.clone());
    lock.begin(record.cgroup.as_deref())?;
    entry.write_intended(record)?;
    entry.write(CONFIGURATION, &bundle.config)?;
    if let Some(seccomp) = &bundle.launch.seccomp {
        entry.write("seccomp.bpf", &seccomp.bpf)?;
    }
    let group = place.as_ref().map(|place| {
        let settings = &bundle.launch.cgroup;
        let absent = AbsentController::Fail;
        let (group, _) = crate::cgroup::create_with(&place.parent, &place.name, settings, absent, true)?;
        crate::cgroup::filter_devices(group.as_fd(), settings, None).map(|()| group)
    });
    let group = group.transpose()?;
    let work = wanted.images.work.clone().unwrap_or_else(|| wanted.images.directory.clone());
    std::fs::create_dir_all(&work).during(|| format!("make {}", work.display()))?;

    let layers = bundle.layers.as_ref();
    let layers = layers.map(|layers| storage::restore(entry, &bundle.launch, layers, &wanted.images.directory));
    let layers = layers.transpose()?;
    let mount = layers.as_ref().map(|prepared| prepared.root.as_fd());
    let root = mount.map(|mount| PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
    let (streams, handed) = streams(&wanted.images.directory)?;
    // Where no other restore from these images has one.
    let pid_file = std::path::absolute(entry.path("pid")).during(|| "find the state directory")?;
    let mut arguments: Vec<OsString> = vec!["restore".into()];
    // Without a cgroup of its own it is to have none that is written down, either.
    let has_cgroup = place.is_some() || unit.is_some();
    let manage_cgroups = if has_cgroup { wanted.images.manage_cgroups.clone() } else { "ignore".to_owned() };
    let images = Images { manage_cgroups, ..wanted.images.clone() };
    arguments.extend(images.arguments(&work, "restore.log"));
    arguments.extend(wanted.tcp_close.then(|| "--tcp-close".into()));
    arguments.extend(["--restore-detached".into(), "--pidfile".into(), pid_file.clone().into()]);
    arguments.extend(["--root".into(), bundle.rootfs.clone().into()]);
    arguments.extend(handed);
    let of_cgroup = |record: &Record| -> Result<Vec<OsString>> {
        let root = root.as_ref().unwrap_or(&bundle.rootfs);
        let externals = externals(&spec, &bundle.path, root, record.cgroup.as_deref()).into_iter();
        let externals = externals.map(|(place, source)| format!("mnt[{place}]:{source}"));
        let externals = externals.flat_map(|external| ["--external".into(), external.into()]);
        Ok(cgroup_root(record, &wanted.images)?.into_iter().chain(externals).collect())
    };
    if unit.is_none() {
        arguments.extend(of_cgroup(record)?);
    }
    let network = outer_network(&spec)?.map(|path| inherited(&path)).transpose()?;
    if let Some(network) = &network {
        let fd = network.as_raw_fd();
        arguments.extend(["--inherit-fd".into(), format!("fd[{fd}]:{OUTER_NETWORK}").into()]);
    }
    for (flag, value) in [("--lsm-profile", &wanted.lsm_profile), ("--lsm-mount-context", &wanted.lsm_mount_context)] {
        arguments.extend(value.iter().flat_map(|value| [OsString::from(flag), value.into()]));
    }
    let surroundings = Surroundings { cgroup: group.as_ref().map(AsFd::as_fd), root: Some(&bundle.rootfs), mount };
    let log = work.join("restore.log");
    let configuration = criu::configuration(&spec);
    let by_protocol = bundle.terminal || configuration.is_some() || unit.is_some();
    arguments.extend(configuration.into_iter().flat_map(|file| ["--config".into(), file.into()]));
    let outcome = if by_protocol {
        let seat = |pid| {
            let Some(unit) = &unit else { return Ok(Vec::new()) };
            unit.make(entry, record, pid)?;
            of_cgroup(record)
        };
        let beside = Beside { seat, dumped: || Ok(()) };
        criu::ask(&wanted.images.criu, arguments, &log, &surroundings, beside)?
    } else {
        criu::run(&wanted.images.criu, arguments, &log, &surroundings)?;
        Outcome { pid: Some(read_pid(&pid_file)?), terminal: None }
    };
    drop((streams, network, layers));

    let pid =
        outcome.pid.ok_or_else(|| Error::new(format!("restore container {}: criu says no process id", entry.id())))?;
    let pidfd = adopt(entry, record, pid)?;
    if let (Some(resctrl), Some(rdt)) = (&record.resctrl, &bundle.launch.intel_rdt) {
        resctrl.groups(entry.id()).adopt(rdt, || process::threads_of(record))?;
    }
    // Its processes are there, however few others may come.
    let group = match &unit {
        Some(unit) => unit.complete(record, bundle)?,
        None => group,
    };
    if let Some(group) = &group {
        crate::cgroup::limit_processes(group.as_fd(), &bundle.launch.cgroup, AbsentController::Fail)?;
        crate::launcher::give_cgroup(&bundle.launch, record.pid, group.as_fd())?;
    }
    lock.finish()?;
    options.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, record.pid))?;
    let Some((socket, None)) = console else { return Ok((pidfd, outcome.terminal)) };
    if let Some(outer) = outcome.terminal {
        let sent = descriptor::send(socket.as_fd(), b"/dev/ptmx", outer.as_fd());
        sent.during(|| "send the terminal to the console socket")?;
    }
    Ok((pidfd, None))
}

/// A scope of systemd that is made around criu, which has few processes and their limit not yet.
struct Unit {
    scope: Scope,
    properties: Properties,
    launch: Launch,
}

impl Unit {
    fn new(id: &str, bundle: &Bundle, record: &Record) -> Result<Self> {
        let mut launch = bundle.launch.clone();
        launch.cgroup.settings.retain(|(file, _)| file != crate::cgroup::PROCESSES);
        let scope = scope::scope(bundle.cgroups_path.as_deref(), id, super::is_ordinary_user())?;
        let properties = scope::properties(&scope, id, &launch.cgroup, &record.annotations)?;
        Ok(Self { scope, properties, launch })
    }

    /// Makes it around criu, process `pid`. From here on whoever deletes the container finds both.
    fn make(&self, entry: &Entry, record: &mut Record, pid: i32) -> Result<()> {
        record.pid = pid;
        record.start_time = process::start_time(pid).unwrap_or(0);
        enter_scope(record, (&self.scope, &self.properties), &self.launch)?;
        entry.write_record(record)
    }

    /// Has systemd limit processes, too, and opens its cgroup.
    fn complete(&self, record: &Record, bundle: &Bundle) -> Result<Option<OwnedFd>> {
        systemd::change(&self.scope.unit, &bundle.launch.cgroup)?;
        cgroup::open(record)
    }
}

/// The process that criu has made, as it has written it down.
fn read_pid(pid_file: &Path) -> Result<i32> {
    let what = || format!("read {}", pid_file.display());
    let text = std::fs::read_to_string(pid_file).during(what)?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| Error::new(format!("{}: criu says no process id", what())))
}

/// Writes the process down.
fn adopt(entry: &Entry, record: &mut Record, pid: i32) -> Result<OwnedFd> {
    record.pid = pid;
    record.start_time = process::start_time(record.pid).unwrap_or(0);
    entry.write_record(record)?;
    let found = process::open(record.pid, record.start_time).during(|| format!("open process {}", record.pid))?;
    found.ok_or_else(|| Error::new(format!("restore container {}: its process has ended already", entry.id())))
}

/// What tells criu that the container's cgroup is another than the one that is written down, to which it would move the processes.
fn cgroup_root(record: &Record, images: &Images) -> Result<Vec<OsString>> {
    let Some(path) = &record.cgroup else { return Ok(Vec::new()) };
    // Images of another maker say nothing of it.
    let before = std::fs::read_to_string(images.directory.join(CGROUP)).unwrap_or_default();
    if before == *path {
        return Ok(Vec::new());
    }
    Ok(vec!["--cgroup-root".into(), subgroup::beginning(record, path)?.into()])
}

/// Copies of this process's standard streams, which criu gives to the program where it had pipes, and the arguments for that.
fn streams(images: &Path) -> Result<(Vec<OwnedFd>, Vec<OsString>)> {
    let file = images.join(STREAMS);
    // Images of another maker may have none.
    let json = match std::fs::read(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        other => other.during(|| format!("read {}", file.display()))?,
    };
    let links: Vec<String> =
        serde_json::from_slice(&json).map_err(|error| Error::new(format!("read {}: {error}", file.display())))?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let own: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let (mut copies, mut arguments) = (Vec::new(), Vec::new());
    for (link, own) in links.iter().zip(own).filter(|(link, _)| link.starts_with("pipe:[") && link.ends_with(']')) {
        // Not closed by exec, as criu is to have it.
        let copy = rustix::io::dup(own).during(|| "copy a standard stream")?;
        arguments.extend(["--inherit-fd".into(), format!("fd[{}]:{link}", copy.as_raw_fd()).into()]);
        copies.push(copy);
    }
    Ok((copies, arguments))
}

/// A file that criu is to have open.
fn inherited(path: &str) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).during(|| format!("open {path}"))
}
