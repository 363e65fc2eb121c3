//! The plan: what the builder decided and PID 1 obeys.
//!
//! One [`file`](self::file), `/garboard/plan` of the system image. It lies under the verity root, so it is as trustworthy as PID 1
//! itself; it is decoded with bounds all the same.

mod file;
mod packed;
mod status;
mod supervision;

use serde::{Deserialize, Serialize};

pub use file::{MAGIC, MAX_SIZE, PlanError, VERSION};
pub use packed::PackedLaunch;
pub use supervision::{HealthCheck, HealthTest, NOTIFY_TARGET, OnFailure, Pod, Supervision};
pub use status::{STATUS_SOCKET, status_socket};

/// Where the plan lies in the system image.
pub const PATH: &str = "/garboard/plan";
/// Where the machine mounts its data filesystem.
pub const DATA: &str = "/data";
/// Directory of what PID 1 writes for containers.
pub const RUN: &str = "/run/garboard";
/// Beneath it: the sockets on which containers say how they are, `NAME.sock` each.
pub const NOTIFY: &str = "notify";

/// A whole appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The appliance's name.
    pub appliance: String,
    /// Host name of the machine.
    pub hostname: String,
    /// Modules to load once the system image is mounted, in order.
    pub modules: Vec<Module>,
    /// Kernel features that this declaration can't do without, by the check's name for them (`memory`, `io`, …).
    pub needs: Vec<String>,
    /// Sysctls of the machine as `(dotted name, value)`.
    pub sysctls: Vec<(String, String)>,
    /// The machine's network.
    pub network: Network,
    /// The data partition; `None`: the declaration keeps nothing.
    pub data: Option<Data>,
    /// Filesystems for the volumes in memory.
    pub memory_volumes: Vec<MemoryVolume>,
    /// What the serial console shows.
    pub console: Console,
    /// Memory for all log rings together, in bytes.
    pub log_budget: u64,
    /// The machine starts over if PID 1 stands still for so many seconds, by its watchdog; `None`: the watchdog is left alone.
    pub watchdog_seconds: Option<u32>,
    /// The status port is also on this vsock(7) port.
    pub status_vsock: Option<u32>,
    /// The pods.
    pub pods: Vec<Pod>,
    /// The containers, each after those it depends on.
    pub containers: Vec<Container>,
}

/// A kernel module to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Absolute path of the uncompressed module (in the initrd or the system image).
    pub path: String,
    /// Load it only if a present device's modalias matches one of these patterns (`modules.alias` syntax); empty: always.
    pub aliases: Vec<String>,
    /// Parameters.
    pub parameters: String,
}

/// The machine's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// How the uplink gets its address.
    pub address: Addressing,
    /// The uplink's interface name; `None`: the first Ethernet interface by index.
    pub interface: Option<String>,
    /// Name servers, besides those DHCP names.
    pub dns: Vec<String>,
}

/// How the uplink gets its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addressing {
    /// No uplink; loopback only.
    None,
    /// DHCPv4.
    Dhcp,
    /// Fixed.
    Static {
        /// Addresses with prefix, `192.0.2.7/24`.
        addresses: Vec<String>,
        /// Default gateways, one of IPv4 and one of IPv6 at most.
        gateways: Vec<String>,
    },
}

/// The data partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The ext4 filesystem's UUID, by which it is found (also its partition's, on a GPT disk).
    pub uuid: [u8; 16],
    /// Stop the boot when it can't be mounted; else volumes fall back to tmpfs and the status says so.
    pub required: bool,
}

/// A tmpfs that holds one volume, so that a full volume is full for nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryVolume {
    /// Where it is mounted; the volume is a directory in it.
    pub path: String,
    /// Size limit in bytes, not 0; `None`: the kernel's own, half the memory.
    pub size: Option<u64>,
}

/// The serial console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Print what containers print.
    pub logs: bool,
    /// Print the status table when something changed.
    pub status: bool,
    /// What a person at the line may do.
    pub access: Access,
}

/// What a person at the serial line may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Nothing: no input is read.
    Off,
    /// See everything on a screen of its own; no key changes anything.
    Status,
    /// Also stop, start and restart containers, and have a shell in one, after saying the passphrase of this hash (`$argon2id$…`,
    /// PHC string format).
    Control(String),
}

/// One container of the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name: `[a-z0-9][a-z0-9_.-]*`, at most 63 bytes.
    pub name: String,
    /// The image as the declaration named it, for people.
    pub image: String,
    /// How to start it.
    pub launch: PackedLaunch,
    /// What weakens its isolation, in the declaration's words (`userns_mode = "host"`), shown on the console.
    pub weakened: Vec<String>,
    /// Labels as `(name, value)`, for people and programs that read the status.
    pub labels: Vec<(String, String)>,
    /// Ports on which it is to be reached, declared or exposed by its image, for people: `80/tcp`, `8000-8003/udp`.
    pub ports: Vec<String>,
    /// When to start it again.
    pub restart: Restart,
    /// What must have happened before it starts.
    pub depends_on: Vec<Dependency>,
    /// How it is watched.
    pub supervision: Supervision,
    /// It gets a socket on which it may ask for the status.
    pub reads_status: bool,
    /// What of its output is kept on the data filesystem; `None`: nothing.
    pub kept_log: Option<KeptLog>,
    /// Index in [`Plan::pods`] of the pod that it belongs to.
    pub pod: Option<u32>,
    /// Signal that asks it to stop.
    pub stop_signal: u8,
    /// Milliseconds from that signal to `cgroup.kill`.
    pub stop_grace_ms: u64,
    /// Which generated files are bound over the image's.
    pub etc: Etc,
    /// What must be in its volumes before its first start.
    pub fills: Vec<Fill>,
}

impl Container {
    /// Nothing but a name and how to start it: never again, and stopped as Docker stops what says nothing. Whatever else it wants is the
    /// caller's to set.
    #[must_use]
    pub fn bare(name: &str, launch: PackedLaunch) -> Self {
        Self {
            name: name.to_owned(),
            image: name.to_owned(),
            launch,
            weakened: vec![],
            labels: vec![],
            ports: vec![],
            restart: Restart::No,
            depends_on: vec![],
            supervision: Supervision::default(),
            reads_status: false,
            kept_log: None,
            pod: None,
            stop_signal: 15,
            stop_grace_ms: 10_000,
            etc: Etc::default(),
            fills: vec![],
        }
    }
}

/// How much of a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLog {
    /// Bytes of a file.
    pub file_size: u64,
    /// How many files, at least 2.
    pub files: u32,
}

/// A new volume gets what an image has where it is mounted, as Docker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// The volume's directory on the machine. Filled when it is absent or empty.
    pub directory: String,
    /// The image's layer directories, the topmost first.
    pub layers: Vec<String>,
    /// Path of the directory in the image; hostile until resolved beneath its root.
    pub path: String,
}

/// `/etc` files that PID 1 writes for a container (in `/run/garboard/etc/NAME/`) and binds read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etc {
    /// Contents of `/etc/hosts`.
    pub hosts: Option<String>,
    /// Contents of `/etc/hostname`.
    pub hostname: Option<String>,
    /// Bind the machine's `/run/garboard/resolv.conf` to `/etc/resolv.conf`.
    pub resolv_conf: bool,
}

/// When a container that ended is started again. Compose's meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Never.
    No,
    /// Always.
    Always,
    /// If its exit status was not 0 or a signal ended it; at most so many times in a row, if given.
    OnFailure(Option<u32>),
    /// Always, unless a person stopped it.
    UnlessStopped,
}

/// One edge of the dependency graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Index in [`Plan::containers`], smaller than the dependent's own.
    pub container: u32,
    /// What must hold.
    pub condition: Condition,
}

/// What a dependency must have reached. Compose's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Its program was executed.
    Started,
    /// It is running and its health check, if it has one, passed.
    Healthy,
    /// It ended with status 0.
    Completed,
}
