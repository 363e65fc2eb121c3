//! An image's configuration and what the declaration says about a container → an OCI runtime spec.
//!
//! Pure: the image's files are reached through [`ImageFiles`].

pub mod capabilities;
mod error;
mod image;
mod mounts;
mod options;
pub(crate) mod profile;
mod resources;
pub mod seccomp;
pub mod signal;
#[cfg(test)]
mod tests;
mod user;

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Process, Root,
    Spec, User,
};

pub use error::Error;
pub use options::{Device, Limits, Mount, MountKind, NamespaceChoice, Options, SeccompChoice, Ulimit};

use crate::launch::{CreateDir, DeviceAccess};

/// What the conversion needs to know of the image's merged filesystem. Paths are absolute; links are followed inside.
pub trait ImageFiles {
    /// A regular file's contents, at most `limit` bytes (more is an error); `None` if there is none.
    fn read(&self, path: &str, limit: usize) -> std::io::Result<Option<Vec<u8>>>;
    /// Kind and owner; `None` if it doesn't exist.
    fn metadata(&self, path: &str) -> std::io::Result<Option<FileMetadata>>;
}

/// Metadata of one file of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMetadata {
    /// A directory.
    pub directory: bool,
    /// Owner, as in the image.
    pub uid: u32,
    /// Group, as in the image.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// A container's spec, and what a runtime spec has no place for.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The runtime spec. Its root path is left to whoever unpacks the image. Devices of the machine aren't in it: the spec has
    /// numbers for them, and those are the machine's to say.
    pub spec: Spec,
    /// How the directories of volumes are made when absent, by mount target.
    pub volumes: Vec<(String, CreateDir)>,
    /// Its nodes of the declared devices, for [`crate::launch::Launch::devices`].
    pub nodes: Vec<crate::launch::Device>,
    /// What it may do with them, for [`crate::launch::Cgroup::devices`].
    pub devices: Vec<DeviceAccess>,
    /// Signal that asks it to stop (SIGTERM unless image or declaration say otherwise).
    pub stop_signal: u8,
    /// Ports that the image exposes, for people: `80/tcp`, `8000-8003/udp`.
    pub exposed_ports: Vec<String>,
    /// What in the image has no effect and might be missed, in sentences.
    pub warnings: Vec<String>,
}

/// Version of the runtime specification that the specs follow.
const OCI_VERSION: &str = "1.2.0";

/// The spec of a container of this image, run as `options` say.
///
/// Rules are Docker's where it has any: a declared entrypoint drops the image's command, `PATH` has a default, names are
/// resolved in the image's `/etc/passwd` and `/etc/group`.
pub fn from_image(config: &ImageConfiguration, options: &Options, files: &dyn ImageFiles) -> Result<Container, Error> {
    let held = capabilities::resolve(&options.cap_add, &options.cap_drop)?;
    let image_volumes = image::volumes(config);
    let mounts = mounts::collect(options, &image_volumes, files)?;

    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(options.read_only));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts.mounts))
        .set_process(Some(process(config, options, &held, files)?))
        .set_hostname(options.hostname.clone())
        .set_domainname(options.domainname.clone())
        .set_hooks(None)
        .set_annotations(annotations(options))
        .set_linux(Some(linux(options, &held)?));

    let of_image = config.config().as_ref().and_then(|c| c.stop_signal().clone());
    let stop_signal = options.stop_signal.as_deref().or(of_image.as_deref()).unwrap_or("SIGTERM");
    let (exposed_ports, odd_ports) = image::exposed_ports(config);
    let odd_ports = odd_ports.iter().map(|port| format!("the image exposes {port:?}, which is no port: ignored"));
    Ok(Container {
        spec,
        warnings: mounts.uncovered.iter().map(|path| uncovered(path)).chain(odd_ports).collect(),
        volumes: mounts.volumes,
        nodes: options.devices.iter().map(node).collect(),
        devices: resources::device_access(&options.devices)?,
        stop_signal: signal::parse(stop_signal)?,
        exposed_ports,
    })
}

fn uncovered(path: &str) -> String {
    format!("nothing is mounted on {path}, a volume of the image: what is written there is gone with every restart")
}

fn node(device: &Device) -> crate::launch::Device {
    crate::launch::Device {
        target: device.target.clone(),
        node: crate::launch::DeviceNode::Machine(device.source.clone()),
    }
}

fn process(
    config: &ImageConfiguration,
    options: &Options,
    held: &[Capability],
    files: &dyn ImageFiles,
) -> Result<Process, Error> {
    let identity = image::identity(config, options, files)?;
    let mut user = User::default();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_additional_gids(Some(identity.additional_gids.clone()).filter(|gids| !gids.is_empty()));
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_args(Some(image::arguments(config, options)?))
        .set_env(Some(image::environment(config, options, &identity)?))
        .set_cwd(PathBuf::from(image::working_dir(config, options)?))
        .set_capabilities(Some(sets(held, identity.uid)))
        .set_rlimits(Some(resources::rlimits(&options.ulimits)?))
        .set_no_new_privileges(Some(options.no_new_privileges))
        .set_apparmor_profile(None)
        .set_selinux_label(None)
        .set_oom_score_adj(options.oom_score_adj)
        .set_user(user);
    Ok(process)
}

/// Root gets the list. Another user gets it as a bound only, as with Docker: nothing is in force, and nothing is ever
/// inheritable, so that no file capability can be combined with it (CVE-2022-29162).
fn sets(held: &[Capability], uid: u32) -> LinuxCapabilities {
    let all: oci_spec::runtime::Capabilities = held.iter().copied().collect();
    let in_force = if uid == 0 { all.clone() } else { oci_spec::runtime::Capabilities::new() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(all))
        .set_effective(Some(in_force.clone()))
        .set_permitted(Some(in_force))
        .set_inheritable(Some(oci_spec::runtime::Capabilities::new()))
        .set_ambient(Some(oci_spec::runtime::Capabilities::new()));
    sets
}

fn linux(options: &Options, held: &[Capability]) -> Result<Linux, Error> {
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(options)))
        .set_resources(Some(resources::resources(options)?))
        .set_devices(None)
        .set_masked_paths(Some(options.masked_paths.clone().unwrap_or_else(|| owned(&MASKED_PATHS))))
        .set_readonly_paths(Some(options.readonly_paths.clone().unwrap_or_else(|| owned(&READONLY_PATHS))))
        .set_sysctl(sysctls(options))
        .set_seccomp(match &options.seccomp {
            SeccompChoice::Default => Some(seccomp::default_profile(capabilities::mask(held))),
            SeccompChoice::Unconfined => None,
            SeccompChoice::Profile(json) => {
                let capabilities = capabilities::mask(held);
                Some(profile::parse(json, profile::Facts { capabilities, kernel: options.kernel })?)
            }
        });
    if let Some(ids) = &options.ids {
        let mappings = |ranges: &[crate::launch::IdRange]| {
            ranges
                .iter()
                .map(|range| {
                    LinuxIdMappingBuilder::default()
                        .container_id(range.inside)
                        .host_id(range.outside)
                        .size(range.size)
                        .build()
                        .map_err(|e| Error::new("ids", e.to_string()))
                })
                .collect::<Result<Vec<_>, Error>>()
        };
        linux.set_uid_mappings(Some(mappings(&ids.uids)?)).set_gid_mappings(Some(mappings(&ids.gids)?));
    }
    Ok(linux)
}

/// Hidden: what tells of, or reaches into, the machine.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

/// Read-only: settings of the machine that `/proc` shows in every pid namespace.
const READONLY_PATHS: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/pressure"];

fn owned(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

fn namespaces(options: &Options) -> Vec<LinuxNamespace> {
    let own = |own: bool| if own { NamespaceChoice::New } else { NamespaceChoice::Host };
    let choices = [
        (LinuxNamespaceType::Mount, NamespaceChoice::New),
        (LinuxNamespaceType::User, own(options.ids.is_some())),
        (LinuxNamespaceType::Pid, options.pid.clone()),
        (LinuxNamespaceType::Network, options.network.clone()),
        (LinuxNamespaceType::Ipc, options.ipc.clone()),
        (LinuxNamespaceType::Uts, options.uts.clone()),
        (LinuxNamespaceType::Cgroup, options.cgroup.clone()),
    ];
    let entry = |kind, path: Option<String>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path.map(PathBuf::from));
        namespace
    };
    choices
        .into_iter()
        .filter_map(|(kind, choice)| match choice {
            NamespaceChoice::New => Some(entry(kind, None)),
            NamespaceChoice::Path(path) => Some(entry(kind, Some(path))),
            NamespaceChoice::Host => None,
        })
        .collect()
}

/// The declared sysctls, and in a network namespace of the container's own those that spare it two capabilities: low ports
/// for everybody and ping without raw sockets.
fn sysctls(options: &Options) -> Option<HashMap<String, String>> {
    let mut sysctls: HashMap<String, String> = HashMap::new();
    if options.network == NamespaceChoice::New {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        let last = match &options.ids {
            None => Some(i32::MAX.cast_unsigned()),
            // The kernel takes only groups of the container's own map, and they must be without a gap.
            Some(ids) => ids.gids.iter().find(|r| r.inside == 0).map(|r| r.size.saturating_sub(1)),
        };
        if let Some(last) = last {
            sysctls.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
        }
    }
    sysctls.extend(options.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    Some(sysctls).filter(|sysctls| !sysctls.is_empty())
}

fn annotations(options: &Options) -> Option<HashMap<String, String>> {
    let annotations: HashMap<String, String> =
        options.annotations.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(annotations).filter(|annotations| !annotations.is_empty())
}
