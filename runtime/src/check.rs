//! What a launch description must hold for it to be obeyed at all. Pure.

use crate::failure::Failure;
use crate::launch::{Launch, MountSource, Namespace, RootSource, TimeNamespace, Upper};

/// Overlay takes no more (`OVL_MAX_STACK` in the kernel).
const MAX_LAYERS: usize = 500;

/// Checks `launch`; the error names the first thing that can't be.
pub(crate) fn launch(launch: &Launch) -> Result<(), Failure> {
    process(launch)?;
    root(launch)?;
    for mount in &launch.mounts {
        absolute("mount target", &mount.target)?;
        match &mount.source {
            MountSource::Bind { path, .. } => of_the_machine("mount source", path)?,
            MountSource::Inside { path, .. } => absolute("mount source", path)?,
            MountSource::Filesystem { .. } | MountSource::Existing { .. } => {}
        }
    }
    for device in &launch.devices {
        absolute("device", &device.target)?;
    }
    let settings = launch.cgroup.device_settings.iter().map(|setting| &setting.path);
    launch.cgroup.devices.iter().map(|device| &device.path).chain(settings).try_for_each(|path| absolute("device", path))?;
    joined_namespaces(launch)?;
    for path in launch.masked_paths.iter().chain(&launch.readonly_paths) {
        absolute("masked or read-only path", path)?;
    }
    machine_is_left_alone(launch)
}

fn process(launch: &Launch) -> Result<(), Failure> {
    let process = &launch.process;
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Failure::check("no program to execute: neither the image nor the declaration names one"));
    }
    if process.args.iter().chain(&process.env).any(|text| text.contains('\0')) {
        return Err(Failure::check("an argument or environment string holds a NUL"));
    }
    // The kernel resolves it, within the root.
    of_the_machine("working directory", &process.cwd)?;
    if let Some(ids) = &launch.ids
        && (ids.uids.is_empty() || ids.gids.is_empty())
    {
        return Err(Failure::check("the user namespace has no ids"));
    }
    Ok(())
}

fn root(launch: &Launch) -> Result<(), Failure> {
    match &launch.root.source {
        RootSource::Directory(path) => of_the_machine("root", path),
        RootSource::Layers { layers, upper } => {
            if layers.is_empty() || layers.len() > MAX_LAYERS {
                return Err(Failure::check(format!("{} layers; overlay takes 1 to {MAX_LAYERS}", layers.len())));
            }
            layers.iter().try_for_each(|layer| absolute("layer", layer))?;
            match upper {
                Upper::Directory(path) => absolute("upper", path),
                Upper::None | Upper::Tmpfs { .. } => Ok(()),
            }
        }
    }
}

/// Namespaces that exclude each other.
fn joined_namespaces(launch: &Launch) -> Result<(), Failure> {
    let namespaces = &launch.namespaces;
    if namespaces.time != TimeNamespace::New && !launch.time_offsets.is_empty() {
        return Err(Failure::check("time offsets without a new time namespace"));
    }
    if namespaces.network == Namespace::Host && !launch.net_devices.is_empty() {
        return Err(Failure::check("unable to move network devices without a NET namespace: the container has the machine's own"));
    }
    let listens = launch.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
    listens.map_or(Ok(()), |listener| of_the_machine("seccomp listener", &listener.path))
}

/// Settings that would change the machine itself, because the container shares that namespace.
fn machine_is_left_alone(launch: &Launch) -> Result<(), Failure> {
    let named = launch.hostname.is_some() || launch.domainname.is_some();
    if named && is_launchers(&launch.namespaces.uts, "uts") {
        return Err(Failure::check("a host name in the machine's own uts namespace"));
    }
    for (name, value) in &launch.sysctls {
        // By its path, whichever way it is written. It may lead down only: the kernel's files for other namespaces, and for all, are near.
        let path = crate::launch::sysctl_path(name);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Failure::check(format!("sysctl {name} contains an invalid path")));
        }
        let dotted = path.replace('/', ".");
        let (namespace, kind) = sysctl_namespace(launch, &dotted)
            .ok_or_else(|| Failure::check(format!("sysctl {name} belongs to no namespace of a container")))?;
        if is_launchers(namespace, kind) {
            return Err(Failure::check(format!("sysctl {name} in a namespace of the machine")));
        }
        if dotted == "kernel.hostname" {
            return Err(Failure::check(format!("sysctl {name}: the host name has a property of its own")));
        }
        if dotted == "kernel.domainname" && launch.domainname.as_ref().is_some_and(|domain| domain != value) {
            return Err(Failure::check(format!("sysctl {name} and the domain name are different")));
        }
    }
    Ok(())
}

/// Whether a namespace is the launcher's, also where it is joined by a path of its own. `kind` is its file's name in `/proc/self/ns`.
fn is_launchers(namespace: &Namespace, kind: &str) -> bool {
    let file = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    match namespace {
        Namespace::New => false,
        Namespace::Host => true,
        Namespace::Path(path) => file(path).is_ok_and(|joined| Ok(joined) == file(&format!("/proc/self/ns/{kind}"))),
    }
}

/// The namespace whose own a sysctl is (namespaces(7), ipc_namespaces(7)).
fn sysctl_namespace<'a>(launch: &'a Launch, name: &str) -> Option<(&'a Namespace, &'static str)> {
    const UTS: [&str; 2] = ["kernel.hostname", "kernel.domainname"];
    const IPC: [&str; 11] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.msg_next_id",
        "kernel.sem_next_id",
        "kernel.shm_next_id",
    ];
    if name.starts_with("net.") {
        Some((&launch.namespaces.network, "net"))
    } else if name.starts_with("fs.mqueue.") || IPC.contains(&name) {
        Some((&launch.namespaces.ipc, "ipc"))
    } else if UTS.contains(&name) {
        Some((&launch.namespaces.uts, "uts"))
    } else {
        None
    }
}

/// An absolute path of the machine, which may have anything in it that the machine's paths have.
fn of_the_machine(what: &str, path: &str) -> Result<(), Failure> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        return Err(Failure::check(format!("{what} {path:?} isn't an absolute path")));
    }
    Ok(())
}

/// An absolute path, without `..` and NUL.
fn absolute(what: &str, path: &str) -> Result<(), Failure> {
    let upwards = path.split('/').any(|name| name == "..");
    if !path.starts_with('/') || upwards || path.contains('\0') || path.len() > 4095 {
        return Err(Failure::check(format!("{what} {path:?} isn't an absolute path without '..'")));
    }
    Ok(())
}
