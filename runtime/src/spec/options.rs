//! Everything that a declaration may say about one container, in the runtime's own terms.

use std::collections::BTreeMap;

use crate::launch::IdMap;

/// One container's options. [`Options::default`] is the safe default, except that ids must be chosen by the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Replaces the image's entrypoint, and drops its command with it, as Docker does. `Some(vec![])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Run everything through this program, inside the container (a tiny init); bound there by a mount of the caller's.
    pub init: Option<String>,
    /// Environment: set (`Some`) or removed (`None`), over the image's.
    pub env: BTreeMap<String, Option<String>>,
    /// `name|uid[:group|gid]`; `None`: the image's, else root.
    pub user: Option<String>,
    /// More supplementary groups, by name or number.
    pub group_add: Vec<String>,
    /// Working directory; `None`: the image's, else `/`.
    pub working_dir: Option<String>,
    /// Host name of the container's UTS namespace.
    pub hostname: Option<String>,
    /// Domain name of the container's UTS namespace.
    pub domainname: Option<String>,
    /// Capabilities besides the default list: `NET_RAW`, `CAP_NET_RAW` or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities taken from it; dropped before any are added when `ALL`, as Docker does.
    pub cap_drop: Vec<String>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Volumes that the image declares and `mounts` doesn't cover: each gets a tmpfs of this many bytes; `None` leaves them
    /// directories of the root filesystem.
    pub image_volumes: Option<u64>,
    /// Device nodes of the machine.
    pub devices: Vec<Device>,
    /// Resource limits.
    pub limits: Limits,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Score that makes the OOM killer prefer it (−1000…1000).
    pub oom_score_adj: Option<i32>,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// Version of the kernel that it will run on, for profiles with conditions on it; `None`: not known.
    pub kernel: Option<(u32, u32)>,
    /// `no_new_privs`; off only weakens.
    pub no_new_privileges: bool,
    /// Paths hidden from the container; `None`: the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only; `None`: the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Process ids.
    pub pid: NamespaceChoice,
    /// Network.
    pub network: NamespaceChoice,
    /// IPC.
    pub ipc: NamespaceChoice,
    /// Host name.
    pub uts: NamespaceChoice,
    /// Cgroup view.
    pub cgroup: NamespaceChoice,
    /// Ids of its user namespace; `None`: none of its own (`userns_mode = "host"`).
    pub ids: Option<IdMap>,
    /// Mount the root read-only.
    pub read_only: bool,
    /// Sysctls by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Signal that asks it to stop: `SIGQUIT`, `QUIT`, `3`; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Annotations of the spec.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            entrypoint: None,
            command: None,
            init: None,
            env: BTreeMap::new(),
            user: None,
            group_add: Vec::new(),
            working_dir: None,
            hostname: None,
            domainname: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            mounts: Vec::new(),
            image_volumes: None,
            devices: Vec::new(),
            limits: Limits::default(),
            ulimits: Vec::new(),
            oom_score_adj: None,
            seccomp: SeccompChoice::Default,
            kernel: None,
            no_new_privileges: true,
            masked_paths: None,
            readonly_paths: None,
            pid: NamespaceChoice::New,
            network: NamespaceChoice::New,
            ipc: NamespaceChoice::New,
            uts: NamespaceChoice::New,
            cgroup: NamespaceChoice::New,
            ids: None,
            read_only: false,
            sysctls: BTreeMap::new(),
            shm_size: None,
            stop_signal: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Whose namespace the container lives in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NamespaceChoice {
    /// Its own.
    #[default]
    New,
    /// The machine's.
    Host,
    /// An existing one, by the path of its file.
    Path(String),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Read-only.
    pub read_only: bool,
    /// Programs on it can't be executed.
    pub noexec: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the machine, as it is.
    Bind {
        /// Absolute path on the machine.
        source: String,
        /// With the mounts beneath it.
        recursive: bool,
    },
    /// A directory kept for the container, mapped to its ids; made like the image's directory at the target when absent.
    Volume {
        /// Absolute path on the machine.
        source: String,
    },
    /// Memory.
    Tmpfs {
        /// Size limit in bytes, and with it on the number of files ([`crate::launch::tmpfs_inodes`]); `None`: half of the memory
        /// (the kernel's default).
        size: Option<u64>,
        /// Permission bits; `None`: 0o1777.
        mode: Option<u32>,
        /// Owner of its root, inside the container; `None`: 0.
        uid: Option<u32>,
        /// Group of its root, inside the container; `None`: 0.
        gid: Option<u32>,
    },
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path of the node on the machine.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// Resource limits. `None` leaves a thing unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max`, bytes.
    pub memory: Option<u64>,
    /// `memory.low`: what is taken from it last, bytes.
    pub memory_reservation: Option<u64>,
    /// Memory and swap together, bytes, as Compose has it (`memswap_limit`); must be at least `memory`.
    pub memory_and_swap: Option<u64>,
    /// Processor time in every period, both in microseconds.
    pub cpu: Option<(u64, u64)>,
    /// Weight as Docker has it (2…262144, 1024 is normal).
    pub cpu_shares: Option<u64>,
    /// `cpuset.cpus`: `0-3,7`.
    pub cpuset: Option<String>,
    /// `pids.max`.
    pub pids: Option<u64>,
    /// Share of disk time as Docker has it (10…1000, 500 is normal).
    pub io_weight: Option<u16>,
}

/// One resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompChoice {
    /// Our allow-list.
    #[default]
    Default,
    /// Every one.
    Unconfined,
    /// A profile as JSON, in Docker's format or as an OCI `linux.seccomp` object.
    Profile(String),
}
