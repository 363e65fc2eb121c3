//! The plan: what the builder decided and PID 1 obeys.
//!
//! One file, `/garboard/plan` of the system image: [`MAGIC`], a little-endian [`VERSION`], then the [`Plan`] in postcard's
//! wire format. It lies under the verity root, so it is as trustworthy as PID 1 itself; it is decoded with bounds all the same.

mod packed;
mod status;
mod supervision;

use serde::{Deserialize, Serialize};

pub use packed::PackedLaunch;
pub use supervision::{HealthCheck, HealthTest, NOTIFY_TARGET, OnFailure, Pod, Supervision};
pub use status::{STATUS_SOCKET, status_socket};

/// First bytes of a plan file.
pub const MAGIC: [u8; 8] = *b"GARBPLAN";
/// Version of the encoding; PID 1 and its plan are baked together, so only the same version is accepted.
pub const VERSION: u32 = 4;
/// No plan is larger, in bytes.
pub const MAX_SIZE: usize = 64 << 20;
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
        /// Default gateway.
        gateway: Option<String>,
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

/// Why bytes are not a plan.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanError {
    /// No [`MAGIC`].
    NotAPlan,
    /// Made for another version of PID 1.
    Version(u32),
    /// Larger than [`MAX_SIZE`].
    TooLarge(usize),
    /// Truncated, followed by more, or not a plan after the header.
    Malformed(postcard::Error),
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAPlan => write!(f, "not a plan: it does not begin with {:?}", String::from_utf8_lossy(&MAGIC)),
            Self::Version(v) => {
                write!(
                    f,
                    "plan of version {v}, this PID 1 obeys version {VERSION}: build initrd and system image together"
                )
            }
            Self::TooLarge(n) => write!(f, "plan of {n} bytes; the limit is {MAX_SIZE}"),
            Self::Malformed(e) => write!(f, "malformed plan: {e}"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// The plan file's bytes. Equal plans give equal bytes.
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        let header = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        let bytes = postcard::to_extend(self, header).map_err(PlanError::Malformed)?;
        if bytes.len() > MAX_SIZE { Err(PlanError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// The plan in a plan file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        if bytes.len() > MAX_SIZE {
            return Err(PlanError::TooLarge(bytes.len()));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(PlanError::NotAPlan)?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or(PlanError::NotAPlan)?;
        match u32::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(PlanError::Version(other)),
        }
        match postcard::take_from_bytes(body) {
            Ok((plan, [])) => Ok(plan),
            Ok(_) => Err(PlanError::Malformed(postcard::Error::DeserializeBadEncoding)),
            Err(e) => Err(PlanError::Malformed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plan of everything but containers, which `spec::tests` encodes.
    fn plan() -> Plan {
        Plan {
            appliance: "shop".to_owned(),
            hostname: "shop".to_owned(),
            modules: vec![Module {
                path: "/garboard/modules/virtio_net.ko".to_owned(),
                aliases: vec!["virtio:d00000001v*".to_owned()],
                parameters: String::new(),
            }],
            needs: vec!["memory".to_owned()],
            sysctls: vec![("vm.swappiness".to_owned(), "0".to_owned())],
            network: Network { address: Addressing::Dhcp, interface: None, dns: vec!["192.0.2.1".to_owned()] },
            data: Some(Data { uuid: [7; 16], required: true }),
            memory_volumes: vec![MemoryVolume { path: "/run/garboard/volumes/cache".to_owned(), size: Some(1 << 20) }],
            console: Console { logs: true, status: true, access: Access::Status },
            log_budget: 8 << 20,
            watchdog_seconds: Some(30),
            status_vsock: Some(1024),
            pods: vec![Pod { name: "shop".to_owned() }],
            containers: Vec::new(),
        }
    }

    #[test]
    fn a_plan_comes_back() {
        assert_eq!(Plan::decode(&plan().encode().unwrap()), Ok(plan()));
    }

    #[test]
    fn what_is_no_plan_is_named() {
        let good = plan().encode().unwrap();
        assert_eq!(Plan::decode(b"GARB"), Err(PlanError::NotAPlan));
        assert_eq!(Plan::decode(&MAGIC), Err(PlanError::NotAPlan));
        let mut other = good.clone();
        other[MAGIC.len()] ^= 0xff;
        assert!(matches!(Plan::decode(&other), Err(PlanError::Version(_))));
        assert!(matches!(Plan::decode(&good[..good.len() - 1]), Err(PlanError::Malformed(_))));
        assert!(matches!(Plan::decode(&[&good[..], &[0]].concat()), Err(PlanError::Malformed(_))));
        assert_eq!(Plan::decode(&vec![0; MAX_SIZE + 1]), Err(PlanError::TooLarge(MAX_SIZE + 1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_plan_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &body].concat();
            if let Ok(plan) = Plan::decode(&bytes) {
                prop_assert_eq!(Plan::decode(&plan.encode().unwrap()), Ok(plan));
            }
        }

        #[test]
        fn one_changed_byte_never_panics(at in any::<proptest::sample::Index>(), flip in 1_u8..) {
            let mut bytes = plan().encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = Plan::decode(&bytes);
        }
    }
}
