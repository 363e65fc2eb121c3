//! An OCI runtime spec → the launch that is obeyed. Whatever isn't supported is an error that names it, never another meaning.

mod agent;
mod bpf;
mod bundle;
pub mod cgroup;
pub mod device_filter;
mod devices;
mod idmap;
mod ids;
mod landlock;
mod list;
mod machine;
mod mount_options;
pub(crate) mod mounts;
mod namespaces;
mod process;
mod read;
mod scheduling;
pub mod seccomp;
mod shorten;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;

use oci_spec::runtime::{Linux, Spec};

use crate::launch::{CreateDir, Launch, Mount, Namespace, Propagation, Root, RootSource};
use crate::spec::Error;

#[cfg(feature = "cli")]
pub(crate) use bundle::nothing;
pub use bundle::{Bundle, Bundled, bundle, fuzz};
pub use cgroup::cgroup as resources;
#[cfg(feature = "cli")]
pub(crate) use list::mask;
pub use process::{process, terminal};
pub use read::{MAX_CONFIG, process as read_process, read, resources as read_resources};

/// The launch of an appliance's `spec` on `root`. `volumes` says how absent bind sources are made, by mount target.
///
/// `root` replaces the spec's root path; the spec's `root.readonly` is kept.
pub fn launch(spec: &Spec, root: Root, volumes: &[(String, CreateDir)]) -> Result<Launch, Error> {
    refuse("hooks", spec.hooks().is_some())?;
    refuse("process.terminal", spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true)))?;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::new("linux", "missing"))?;
    refuse("linux.cgroupsPath", linux.cgroups_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()))?;
    compile(spec, linux, root, &Base { bundle: None, volumes })
}

/// As much of a spec's launch as decides what can begin before the rest is compiled.
#[cfg(feature = "cli")]
pub(crate) fn outline(spec: &Spec) -> Result<Launch, Error> {
    // Of another version nothing would be known.
    version(spec.version())?;
    let nothing = nothing();
    let linux = spec.linux().as_ref().unwrap_or(&nothing);
    let (namespaces, ids) = namespaces::namespaces(linux)?;
    Ok(Launch {
        net_devices: machine::net_devices(linux, &namespaces)?,
        intel_rdt: linux.intel_rdt().as_ref().map(machine::intel_rdt).transpose()?,
        namespaces,
        ids,
        ..Launch::default()
    })
}

/// What a spec's paths are relative to.
pub(crate) struct Base<'a> {
    /// Where config.json lies; an appliance has none.
    bundle: Option<Bundle<'a>>,
    /// How absent bind sources are made, by mount target.
    volumes: &'a [(String, CreateDir)],
}

fn compile(spec: &Spec, linux: &Linux, root: Root, base: &Base<'_>) -> Result<Launch, Error> {
    version(spec.version())?;
    refuse("solaris", spec.solaris().is_some())?;
    refuse("windows", spec.windows().is_some())?;
    refuse("vm", spec.vm().is_some())?;
    refuse("zos", spec.zos().is_some())?;
    let process = spec.process().as_ref().ok_or_else(|| Error::new("process", "missing"))?;
    let mut process = process::process(process)?;
    process.memory_policy = linux.memory_policy().as_ref().map(scheduling::memory_policy).transpose()?;
    process.personality = linux.personality().as_ref().map(scheduling::personality).transpose()?;
    process.landlock = landlock::annotations(spec.annotations().as_ref())?;
    let (namespaces, ids) = namespaces::namespaces(linux)?;
    let in_user_namespace = ids.is_some() || namespaces.user.is_some();
    let readonly = root.readonly || spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false);
    let propagation = propagation(linux)?;
    let label = mounts::label(linux, spec.annotations().as_ref())?;
    let label = label.as_deref();
    let container_ids = namespaces::mappings(linux)?;
    let at = match &root.source {
        RootSource::Directory(path) if base.bundle.is_some() => Some(path.as_str()),
        RootSource::Directory(_) | RootSource::Layers { .. } => None,
    };
    let mounts = mounts::Mounts { base, root: at, in_user_namespace, container_ids, label, propagation };
    let mounts = mounts.all(spec.mounts().as_deref().unwrap_or_default())?;
    if namespaces.mount == Namespace::Host && mounts.iter().any(Mount::covers_root) {
        return Err(Error::new(
            "mounts[/]",
            "the root is covered in a mount namespace only: add {\"type\": \"mount\"}",
        ));
    }
    if let Some(ids) = &ids {
        ids::check(ids, &process, &mounts)?;
    }
    let mut cgroup = linux.resources().as_ref().map(cgroup::cgroup).transpose()?.unwrap_or_default();
    cgroup::respect_zero(spec, &mut cgroup);
    cgroup.owner = cgroup::owner(spec, &namespaces).then_some(process.uid);
    Ok(Launch {
        time_offsets: namespaces::time_offsets(linux, &namespaces)?,
        net_devices: machine::net_devices(linux, &namespaces)?,
        process,
        namespaces,
        root: Root { readonly, propagation, ..root },
        mounts,
        ids,
        populate_dev: false,
        devices: devices::devices(linux.devices().as_deref().unwrap_or_default())?,
        masked_paths: absolute("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths())?,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        sysctls: sorted(linux.sysctl().iter().flatten()),
        cgroup,
        seccomp: seccomp(spec, linux, base)?,
        intel_rdt: linux.intel_rdt().as_ref().map(machine::intel_rdt).transpose()?,
    })
}

fn seccomp(spec: &Spec, linux: &Linux, base: &Base<'_>) -> Result<Option<crate::launch::Seccomp>, Error> {
    let Some(profile) = linux.seccomp() else { return Ok(None) };
    let mut filter = seccomp::compile(profile)?;
    if let Some(listener) = &mut filter.listener {
        let bundle = base.bundle.ok_or_else(|| Error::new("linux.seccomp.listenerPath", "not supported here"))?;
        let metadata = profile.listener_metadata().as_deref().unwrap_or_default();
        listener.message = agent::message(spec, bundle, metadata, None);
    }
    Ok(Some(filter))
}

/// Who answers for another process in a running container, whose first process is `first`; `None`: nobody needs to.
pub fn listener(spec: &Spec, bundle: Bundle<'_>, first: i32) -> Result<Option<crate::launch::Listener>, Error> {
    let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else { return Ok(None) };
    let Some(mut listener) = seccomp::listener(profile)? else { return Ok(None) };
    let metadata = profile.listener_metadata().as_deref().unwrap_or_default();
    listener.message = agent::message(spec, bundle, metadata, Some(first));
    Ok(Some(listener))
}

/// Every version 1 is understood: a minor version only adds.
fn version(version: &str) -> Result<(), Error> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
    match numbers[..] {
        ["1", minor, patch] if is_number(&minor) && is_number(&patch) => Ok(()),
        _ => Err(Error::new(
            "ociVersion",
            format!("{version:?} is no version 1.MINOR.PATCH of the runtime specification"),
        )),
    }
}

/// Whether a version 1.MINOR.PATCH has at least this minor number.
fn is_at_least(version: &str, wanted: u32) -> bool {
    version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= wanted)
}

/// Whether `pids.limit` 0 is a limit in a configuration of this version.
pub fn zero_processes_are_a_limit(version: &str) -> bool {
    is_at_least(version, 3)
}

/// `linux.rootfsPropagation`. The recursive forms say no more: a container's root has nothing beneath it that isn't its own.
fn propagation(linux: &Linux) -> Result<Propagation, Error> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate") => Ok(Propagation::Private),
        Some("shared" | "rshared") => Ok(Propagation::Shared),
        Some("slave" | "rslave") => Ok(Propagation::Slave),
        Some("unbindable" | "runbindable") => Ok(Propagation::Unbindable),
        Some(other) => Err(Error::new(
            "linux.rootfsPropagation",
            format!("{other:?} is none of private, shared, slave, unbindable"),
        )),
    }
}

/// Paths in the container that must be absolute, without `..`, each once: to hide one twice would be a mount for nothing.
fn absolute(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let mut seen = BTreeSet::new();
    let mut cleaned = Vec::new();
    for path in paths.iter().flatten() {
        if !path.starts_with('/') {
            return Err(Error::new(field, format!("{path:?} isn't an absolute path")));
        }
        let path = without_upwards(path);
        if seen.insert(path.clone()) {
            cleaned.push(path.into_owned());
        }
    }
    Ok(cleaned)
}

/// A path with its `..` taken by their letters, as other runtimes do: where they lead must not depend on the image's links.
fn without_upwards(path: &str) -> Cow<'_, str> {
    if path.split('/').any(|name| name == "..") { mounts::clean(path) } else { Cow::Borrowed(path) }
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

/// A path as text: a launch's paths are UTF-8.
fn text(field: &str, path: &std::path::Path) -> Result<String, Error> {
    let text = path.to_str().ok_or_else(|| Error::new(field, format!("{} isn't UTF-8", path.display())))?;
    if text.contains('\0') {
        return Err(Error::new(field, format!("{text:?} holds a NUL")));
    }
    Ok(text.to_owned())
}
