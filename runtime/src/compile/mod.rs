//! An OCI runtime spec → the launch that PID 1 obeys. Whatever isn't supported is an error that names it, never another meaning.

pub mod cgroup;
pub mod device_filter;
mod ids;
mod mounts;
mod process;
pub mod seccomp;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::launch::{CreateDir, IdMap, IdRange, Launch, Namespace, Namespaces, Root};
use crate::spec::Error;

/// Versions of the runtime specification that are understood: all of 1.x.
const MAJOR: &str = "1.";

/// The launch of `spec` on `root`. `volumes` says how absent bind sources are made, by mount target.
///
/// `root` replaces the spec's root path; the spec's `root.readonly` is kept.
pub fn launch(spec: &Spec, root: Root, volumes: &[(String, CreateDir)]) -> Result<Launch, Error> {
    if !spec.version().starts_with(MAJOR) {
        return Err(Error::new("ociVersion", format!("{:?} isn't a version 1 spec", spec.version())));
    }
    refuse("hooks", spec.hooks().is_some())?;
    refuse("solaris", spec.solaris().is_some())?;
    refuse("windows", spec.windows().is_some())?;
    refuse("vm", spec.vm().is_some())?;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::new("linux", "missing"))?;
    refuse_unsupported(linux)?;
    let process = spec.process().as_ref().ok_or_else(|| Error::new("process", "missing"))?;
    let namespaces = namespaces(linux)?;
    let ids = ids(linux)?;
    let resources = linux.resources().as_ref();
    let readonly = root.readonly || spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    let process = process::process(process)?;
    let mounts = mounts::mounts(spec.mounts().as_deref().unwrap_or_default(), volumes, ids.is_some())?;
    if let Some(ids) = &ids {
        ids::check(ids, &process, &mounts)?;
    }
    Ok(Launch {
        process,
        namespaces,
        root: Root { readonly, ..root },
        mounts,
        ids,
        devices: Vec::new(),
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        sysctls: sorted(linux.sysctl().iter().flatten()),
        cgroup: resources.map(cgroup::cgroup).transpose()?.unwrap_or_default(),
        seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
    })
}

/// Pairs in the order of their names, as the spec's maps have none.
fn sorted<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = map.map(|(name, value)| (name.clone(), value.clone())).collect();
    pairs.sort();
    pairs
}

/// An error if a field that isn't supported is set.
fn refuse(field: &str, set: bool) -> Result<(), Error> {
    if set { Err(Error::new(field, "not supported")) } else { Ok(()) }
}

fn refuse_unsupported(linux: &Linux) -> Result<(), Error> {
    let devices = linux.devices().as_ref().is_some_and(|devices| !devices.is_empty());
    if devices {
        return Err(Error::new(
            "linux.devices",
            "not supported: nodes can't be made in a user namespace; bind-mount the node",
        ));
    }
    // "private" and its recursive form are what every container's mounts are.
    let propagation = linux.rootfs_propagation().as_deref();
    refuse("linux.rootfsPropagation", !matches!(propagation, None | Some("" | "private" | "rprivate")))?;
    refuse("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()))?;
    refuse("linux.intelRdt", linux.intel_rdt().is_some())?;
    refuse("linux.memoryPolicy", linux.memory_policy().is_some())?;
    refuse("linux.personality", linux.personality().is_some())?;
    refuse("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()))?;
    refuse("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()))?;
    refuse("linux.cgroupsPath", linux.cgroups_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()))
}

fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces {
        pid: Namespace::Host,
        network: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        cgroup: Namespace::Host,
    };
    let mut seen = Vec::new();
    let mut mount = false;
    for entry in linux.namespaces().iter().flatten() {
        let field = format!("linux.namespaces.{}", entry.typ());
        if seen.contains(&entry.typ()) {
            return Err(Error::new(field, "given twice"));
        }
        seen.push(entry.typ());
        let path = entry.path().as_ref().map(|path| text(&field, path)).transpose()?.filter(|path| !path.is_empty());
        let joined = path.is_some();
        let namespace = path.map_or(Namespace::New, Namespace::Path);
        match entry.typ() {
            LinuxNamespaceType::Pid => namespaces.pid = namespace,
            LinuxNamespaceType::Network => namespaces.network = namespace,
            LinuxNamespaceType::Ipc => namespaces.ipc = namespace,
            LinuxNamespaceType::Uts => namespaces.uts = namespace,
            LinuxNamespaceType::Cgroup => namespaces.cgroup = namespace,
            LinuxNamespaceType::Mount if !joined => mount = true,
            LinuxNamespaceType::User if !joined => {}
            LinuxNamespaceType::Mount => {
                return Err(Error::new(field, "a container's mounts are always its own: leave out the path"));
            }
            LinuxNamespaceType::User => {
                return Err(Error::new(field, "a container's ids are always its own map: leave out the path"));
            }
            LinuxNamespaceType::Time => {
                return Err(Error::new(field, "not supported: a container has the machine's clocks"));
            }
        }
    }
    if !mount {
        return Err(Error::new("linux.namespaces", "a container without a mount namespace of its own isn't supported"));
    }
    Ok(namespaces)
}

/// The id map; there is one exactly when a user namespace is asked for.
fn ids(linux: &Linux) -> Result<Option<IdMap>, Error> {
    let wanted = linux.namespaces().iter().flatten().any(|entry| entry.typ() == LinuxNamespaceType::User);
    let ranges = |mappings: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| -> Vec<IdRange> {
        let mappings = mappings.iter().flatten();
        mappings.map(|m| IdRange { inside: m.container_id(), outside: m.host_id(), size: m.size() }).collect()
    };
    let (uids, gids) = (ranges(linux.uid_mappings()), ranges(linux.gid_mappings()));
    match (wanted, uids.is_empty() || gids.is_empty(), uids.is_empty() && gids.is_empty()) {
        (true, false, _) => Ok(Some(IdMap { uids, gids })),
        (true, true, _) => Err(Error::new("linux.uidMappings", "a user namespace needs uid and gid mappings")),
        (false, _, true) => Ok(None),
        (false, _, false) => Err(Error::new("linux.uidMappings", "mappings without a user namespace")),
    }
}

/// A path as text: the plan's paths are UTF-8.
fn text(field: &str, path: &std::path::Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::new(field, format!("{} isn't UTF-8", path.display())))
}
