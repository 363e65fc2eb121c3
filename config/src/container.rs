//! What a valid declaration says about a container.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::supervision::Supervision;

/// One container. Keys that the declaration leaves out are `None` where the image or the runtime decides; else they hold
/// the default named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name: `[a-z0-9][a-z0-9_.-]*`, at most 63 bytes.
    pub name: String,
    /// The image as written: `DIR[:TAG]` or a file, or with its kind as skopeo has it (`oci:`, `oci-archive:`,
    /// `docker-archive:`). Relative paths start at the declaration's directory.
    pub image: String,
    /// Replaces the image's `Cmd`; an empty list clears it.
    pub command: Option<Vec<String>>,
    /// Replaces the image's `Entrypoint` (and drops its `Cmd`); an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `(name, value)` pairs to add to or replace in the image's environment; names are unique, in the order of declaration.
    pub environment: Vec<(String, String)>,
    /// Working directory, absolute; `None`: the image's.
    pub working_dir: Option<String>,
    /// Who runs the program; `None`: the image's `User`.
    pub user: Option<User>,
    /// Supplementary groups besides the image's.
    pub group_add: Vec<Id>,

    /// Host name; `None` exactly when `uts` is the machine's. The container's name unless declared.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Which network the container sees.
    pub network: NetworkMode,
    /// Ports that it listens on, on the machine's addresses. Unique over the whole appliance.
    pub ports: Vec<Port>,
    /// Lines to add to `/etc/hosts`, in the order of declaration.
    pub extra_hosts: Vec<(String, IpAddr)>,

    /// Volumes and tmpfs mounts, each at its own target: a directory before what is mounted beneath it, else in the order of
    /// declaration (`volumes`, then `tmpfs`).
    pub mounts: Vec<Mount>,
    /// Device nodes of the machine.
    pub devices: Vec<Device>,
    /// `/` is mounted read-only. Default: writable, in memory.
    pub read_only: bool,
    /// Size limit in bytes of what the container writes to `/` (`storage_opt.size`); `None`: the builder's choice.
    pub rootfs_size: Option<u64>,
    /// Size in bytes of `/dev/shm`; `None`: the runtime's default.
    pub shm_size: Option<u64>,

    /// When it is started again. Default [`Restart::No`], as in Compose.
    pub restart: Restart,
    /// What must have happened before it starts. Each names an earlier entry of [`crate::Appliance::containers`].
    pub depends_on: Vec<Dependency>,
    /// How it is watched.
    pub supervision: Supervision,
    /// Signal number that asks it to stop; `None`: the image's `StopSignal`, else SIGTERM.
    pub stop_signal: Option<u8>,
    /// Time from that signal to the kill. Default 10 s, as in Compose.
    pub stop_grace_period: Duration,
    /// Run a tiny reaper as the container's first process.
    pub init: bool,

    /// The container's own ids; `None`: it has the machine's (`userns_mode = "host"`).
    pub ids: Option<IdRange>,
    /// `pid = "host"`: it sees every process of the machine.
    pub host_pid: bool,
    /// `ipc = "host"`: it shares System V IPC and message queues with the machine.
    pub host_ipc: bool,
    /// `uts = "host"`: it has the machine's host name.
    pub host_uts: bool,
    /// `cgroup = "host"`: it sees the machine's cgroup tree.
    pub host_cgroup: bool,
    /// Capabilities to add to the default list: `CAP_…` or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take off the default list: `CAP_…` or `ALL`. Applied before `cap_add`, as Docker does.
    pub cap_drop: Vec<String>,
    /// `PR_SET_NO_NEW_PRIVS`. Default true.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Sysctls of the container's own namespaces as `(dotted name, value)`.
    pub sysctls: Vec<(String, String)>,

    /// Memory, CPU, process and I/O limits.
    pub resources: Resources,
    /// `setrlimit`s, at most one per name.
    pub ulimits: Vec<Ulimit>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: Option<i32>,

    /// What of its output is kept on the data partition (`logging`); `None`: nothing.
    pub kept_log: Option<KeptLog>,

    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The pod whose network, message queues, host name and ids it shares.
    pub pod: Option<String>,
    /// What the declaration weakens in this container's isolation, in its own words (`userns_mode = "host"`).
    pub weakened: Vec<String>,
}

/// `logging`: how much of a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLog {
    /// Bytes of a file, at least 64 KiB.
    pub file_size: u64,
    /// How many files, from 2 to 100.
    pub files: u32,
}

impl KeptLog {
    /// Bytes of all of them together.
    pub fn total(self) -> u64 {
        self.file_size.saturating_mul(self.files.into())
    }
}

/// `user`: who runs the program. Displays as `name`, `id` or `user:group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub user: Id,
    /// The group; `None`: the user's own in the image's `/etc/passwd`, else 0.
    pub group: Option<Id>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

/// A user or group. Displays as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// A number; one that the container's id range has.
    Number(u32),
    /// A name to look up in the image. It doesn't begin with a digit, so it can't be mistaken for a number.
    Name(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `network_mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own, with nothing but loopback.
    #[default]
    None,
    /// The machine's.
    Host,
}

/// A port that a container listens on, on the machine's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The number, not 0.
    pub number: u16,
}

/// A transport protocol. Displays as Compose writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path inside, without `.`, `..`, doubled or trailing slashes.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// Mounted read-only.
    pub read_only: bool,
    /// A volume that is empty stays so (`nocopy`). Else it gets what the image has at the target, before the first start.
    pub nocopy: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume, by its name in [`crate::Appliance::volumes`].
    Volume(String),
    /// Memory of the container's own.
    Tmpfs(Tmpfs),
}

/// Options of a tmpfs. `nosuid` and `nodev` always hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// Size limit in bytes, not 0; `None`: the kernel's own, half the memory.
    pub size: Option<u64>,
    /// Permission bits of its root; `None`: 0o1777.
    pub mode: Option<u32>,
    /// Owner of its root, inside the container; `None`: 0.
    pub uid: Option<u32>,
    /// Group of its root, inside the container; `None`: 0.
    pub gid: Option<u32>,
    /// Programs can be executed from it (`exec`). Default: they can't, as with Docker.
    pub exec: bool,
}

/// A device node of the machine, shown in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the machine, under `/dev/`.
    pub source: String,
    /// Path inside the container, absolute.
    pub target: String,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be made by mknod.
    pub mknod: bool,
}

/// `restart`: when a container that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Always.
    Always,
    /// If its exit status was not 0 or a signal ended it; at most so many times in a row, if given.
    OnFailure(Option<u32>),
    /// Always, unless a person stopped it.
    UnlessStopped,
}

/// One entry of `depends_on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the other container.
    pub container: String,
    /// What it must have reached.
    pub condition: Condition,
}

/// What a dependency must have reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// `service_started`: its program was executed.
    #[default]
    Started,
    /// `service_healthy`: its health check was answered well.
    Healthy,
    /// `service_completed_successfully`: it ended with status 0.
    Completed,
}

/// Ids of a container's own: ids 0 to `size - 1` inside are `base` to `base + size - 1` on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id on the machine; never 0.
    pub base: u32,
    /// How many.
    pub size: u32,
}

/// `security_opt`'s `seccomp=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's allow-list.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON format or the OCI runtime's, at this path; a relative one starts at the declaration's directory.
    Profile(std::path::PathBuf),
}

/// Limits that the kernel's control groups enforce. `None` is the kernel's default (no limit) unless another is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// `mem_limit`, in bytes.
    pub memory: Option<u64>,
    /// `memswap_limit`: memory and swap together, in bytes; never below `memory`. `Unlimited`: any amount of swap.
    pub memory_and_swap: Option<Limit>,
    /// `mem_reservation`: memory that is taken away last, in bytes; never above `memory`.
    pub memory_reservation: Option<u64>,
    /// `cpus`, or `cpu_quota` and `cpu_period`.
    pub cpu: Option<CpuQuota>,
    /// `cpu_shares`: 2 to 262144, where 1024 is the default. (cgroup v1's scale, as Compose has it.)
    pub cpu_shares: Option<u64>,
    /// `cpuset`: a list of processor numbers, such as `0-3,5`.
    pub cpuset: Option<String>,
    /// `pids_limit`. Default 2048, as in Podman.
    pub pids: Limit,
    /// `blkio_config`.
    pub io: Io,
}

/// A limit that can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this.
    At(u64),
    /// `-1`
    Unlimited,
}

/// Processor time: `quota` µs in each `period` µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuQuota {
    /// At least 1,000 µs.
    pub quota_us: u64,
    /// 1,000 to 1,000,000 µs; 100,000 unless declared.
    pub period_us: u64,
}

/// `blkio_config`: shares and limits of disk I/O.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Io {
    /// 10 to 1000, where 500 is the default. (cgroup v1's scale, as Compose has it.)
    pub weight: Option<u16>,
    /// Per device, one entry per path, in the order of declaration.
    pub devices: Vec<IoDevice>,
}

/// I/O settings for one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoDevice {
    /// Path of its node on the machine, under `/dev/`.
    pub path: String,
    /// 10 to 1000, where 500 is the default.
    pub weight: Option<u16>,
    /// Bytes read per second.
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    pub write_bps: Option<u64>,
    /// Reads per second.
    pub read_iops: Option<u64>,
    /// Writes per second.
    pub write_iops: Option<u64>,
}

/// One `setrlimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As in Compose: `nofile`, `memlock`, …
    pub name: &'static str,
    /// Resource number, as in `<asm-generic/resource.h>` (`RLIMIT_NOFILE` is 7).
    pub resource: u32,
    /// Soft limit; `u64::MAX`: unlimited.
    pub soft: u64,
    /// Hard limit, never below `soft`; `u64::MAX`: unlimited.
    pub hard: u64,
}
