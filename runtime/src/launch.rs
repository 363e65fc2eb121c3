//! The launch description: everything the runtime needs to start one container, with every decision already made.
//!
//! Plain data. It is written by the `compile` half (from an OCI runtime spec) and obeyed by the other. Paths *inside* the
//! container are absolute and as the image or the declaration gave them, hostile until resolved by file descriptor; paths
//! *outside* are absolute paths of the machine that launches.

use serde::{Deserialize, Serialize};

/// One container, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its environment.
    pub process: Process,
    /// Which namespaces are the container's own.
    pub namespaces: Namespaces,
    /// Ids inside → ids outside. `None`: no user namespace of its own (`userns_mode = "host"`).
    pub ids: Option<IdMap>,
    /// Where `/` comes from.
    pub root: Root,
    /// Mounts on top of the root, in order. `/proc`, `/dev` and their like are entries here, nothing is implied.
    pub mounts: Vec<Mount>,
    /// Declared device nodes, beyond those a tmpfs `/dev` always gets (null zero full random urandom tty and the links). They are
    /// put there after all mounts.
    pub devices: Vec<Device>,
    /// Paths hidden from the container (files by `/dev/null`, directories by an empty read-only tmpfs). Absent ones are skipped.
    pub masked_paths: Vec<String>,
    /// Paths remounted read-only. Absent ones are skipped.
    pub readonly_paths: Vec<String>,
    /// UTS host name; `None` keeps what the namespace has.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Namespaced sysctls as `(dotted name, value)`.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits and device rules.
    pub cgroup: Cgroup,
    /// The filter, already compiled. `None`: `seccomp=unconfined` was declared.
    pub seccomp: Option<Seccomp>,
}

impl Launch {
    /// Nothing but a root filesystem and namespaces of its own: root without capabilities, ids, mounts, limits or filter. The
    /// program is the caller's to set, and whatever else it wants.
    #[must_use]
    pub fn bare(root: Root) -> Self {
        Self {
            process: Process {
                args: Vec::new(),
                env: Vec::new(),
                cwd: "/".to_owned(),
                uid: 0,
                gid: 0,
                additional_gids: Vec::new(),
                umask: None,
                capabilities: Capabilities::default(),
                rlimits: Vec::new(),
                no_new_privileges: true,
                oom_score_adj: None,
            },
            namespaces: Namespaces::default(),
            ids: None,
            root,
            mounts: Vec::new(),
            devices: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            hostname: None,
            domainname: None,
            sysctls: Vec::new(),
            cgroup: Cgroup::default(),
            seccomp: None,
        }
    }
}

/// The program that the container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; the first is looked up in `PATH` of `env`, inside the container, if it has no slash.
    pub args: Vec<String>,
    /// `NAME=value` strings.
    pub env: Vec<String>,
    /// Working directory inside the container; created when absent (as Docker does).
    pub cwd: String,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary groups inside the container.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; `None` is 0o022.
    pub umask: Option<u32>,
    /// Capability sets, as bit masks by capability number (`1 << CAP_X`).
    pub capabilities: Capabilities,
    /// Resource limits to set before exec.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
}

/// The five capability sets, bit N being capability number N (`linux/capability.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Upper bound for everything the process may ever gain.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over exec of files with inheritable file capabilities.
    pub inheritable: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec of ordinary files by a non-root user.
    pub ambient: u64,
}

/// One `setrlimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Resource number as in `<sys/resource.h>` (`RLIMIT_NOFILE` is 7).
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// What a namespace of the container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one, the container's own.
    #[default]
    New,
    /// The launcher's.
    Host,
    /// An existing one, by the path of its file (`/proc/…/ns/net`, `/run/netns/…`).
    Path(String),
}

/// The namespaces other than the user namespace, which [`Launch::ids`] decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// Network. A new one gets its loopback interface up.
    pub network: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// The view of the cgroup tree.
    pub cgroup: Namespace,
}

/// Id mappings of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

/// `size` ids from `inside` stand for those from `outside`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in the container.
    pub inside: u32,
    /// First id on the machine.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// The root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What it is made of.
    pub source: RootSource,
    /// Mounted read-only for the container.
    pub readonly: bool,
}

impl Root {
    /// Whether the container can't write to it: said so, or there is nowhere to write to.
    #[must_use]
    pub fn is_readonly(&self) -> bool {
        self.readonly || matches!(self.source, RootSource::Layers { upper: Upper::None, .. })
    }
}

/// What a root filesystem is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSource {
    /// An existing directory, ids as they are on disk.
    Directory(String),
    /// Overlay over layers (idmapped to the container's ids when it has a user namespace).
    Layers {
        /// Layer directories, the topmost first.
        layers: Vec<String>,
        /// Where writes go.
        upper: Upper,
    },
}

/// The writable side of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// None: the overlay is read-only.
    None,
    /// A tmpfs of at most this many bytes, gone with the container.
    Tmpfs {
        /// Size limit in bytes.
        size: u64,
    },
    /// A directory (holding `upper` and `work`), kept.
    Directory(String),
}

/// So many files may be in a tmpfs of `size` bytes: one for each page, as many as the kernel gives one of its own default size,
/// so that every file that holds anything has room. Files that hold nothing would otherwise fill the machine's memory.
#[must_use]
pub fn tmpfs_inodes(size: u64) -> u64 {
    const PAGE: u64 = 4096;
    const AT_LEAST: u64 = 1024;
    size.div_ceil(PAGE).max(AT_LEAST)
}

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; made if absent, resolved beneath the root only.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// `MOUNT_ATTR_*`-like flags.
    pub flags: MountFlags,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new instance of a filesystem: its type and options (`size=…`, `mode=…`, `newinstance`, …) as `key=value` or flags.
    Filesystem {
        /// `proc`, `tmpfs`, `devpts`, `mqueue`, `sysfs`, `cgroup2`.
        fstype: String,
        /// Options given to `fsconfig`.
        options: Vec<String>,
    },
    /// An existing file or directory of the machine.
    Bind {
        /// Absolute path outside.
        path: String,
        /// With the mounts beneath it.
        recursive: bool,
        /// Mapped to the container's ids, so that ids on disk are the container's own.
        idmap: bool,
        /// Make `path` before mounting it, if it is absent: a volume's directory.
        create: Option<CreateDir>,
    },
}

/// How an absent volume directory is made: as the image has the directory it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateDir {
    /// Owner, as an id on disk.
    pub uid: u32,
    /// Group, as an id on disk.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Attributes of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// `ro`
    pub readonly: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`
    pub noatime: bool,
}

/// A device node. The launcher makes one as the machine's at `source` that belongs to the program's user, or binds the machine's own
/// where it may make none. What may be done with it, [`Cgroup::devices`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path of the node on the machine.
    pub source: String,
    /// Path inside the container.
    pub target: String,
}

/// Control group settings (cgroup v2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// `(file, value)` pairs to write in order, such as `("memory.max", "67108864")`.
    pub settings: Vec<(String, String)>,
    /// The device rules as a compiled `BPF_PROG_TYPE_CGROUP_DEVICE` program (8-byte instructions). Empty: every device is allowed.
    pub device_filter: Vec<u8>,
    /// Devices that the filter is to allow besides, by name: their numbers are known at the start only.
    pub devices: Vec<DeviceAccess>,
    /// Settings of single devices, written after `settings`.
    pub device_settings: Vec<DeviceSetting>,
}

/// What a container may do with a device of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Path of the node on the machine.
    pub path: String,
    /// Read from it.
    pub read: bool,
    /// Write to it.
    pub write: bool,
    /// Make nodes of its number.
    pub mknod: bool,
}

/// A control group setting of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSetting {
    /// The file: `io.max`, `io.weight`.
    pub file: String,
    /// Path of the node on the machine. What is written is its number, a space and the value.
    pub path: String,
    /// The value: `rbps=1048576`.
    pub value: String,
}

/// A compiled seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Classic BPF, 8-byte `sock_filter` structures in the machine's byte order.
    pub bpf: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`.
    pub flags: u32,
}

/// The file of a sysctl beneath `/proc/sys`: dots separate directories. As in sysctl(8), a slash stands for a dot inside a name
/// (`net.ipv4.conf.eth0/1.forwarding`).
pub fn sysctl_path(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dots_separate_and_slashes_stand_for_dots() {
        assert_eq!(super::sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
