//! `image.json`: what a build made, for whoever boots it.

use garboard_config::{Appliance, Port};
use serde::{Deserialize, Serialize};

/// File name of the kernel image.
pub const KERNEL: &str = "vmlinuz";
/// File name of the initrd.
pub const INITRD: &str = "initrd";
/// File name of the system image: EROFS, then its hash tree.
pub const SYSTEM: &str = "system.erofs";
/// File name of the data filesystem.
pub const DATA: &str = "data.ext4";
/// File name of the disk image.
pub const DISK: &str = "disk.raw";
/// Version of the format.
const VERSION: u32 = 1;

/// What a build made. File names are relative to the directory it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub v: u32,
    /// The appliance's name.
    pub appliance: String,
    /// Root hash of the system image, 64 hexadecimal digits.
    pub root_hash: String,
    /// Kernel command line, without the machine's own words (`console=…`).
    pub cmdline: String,
    /// The kernel image.
    pub kernel: String,
    /// `uname -r` of that kernel.
    pub kernel_release: String,
    /// The initrd.
    pub initrd: String,
    /// The system image.
    pub system: String,
    /// The data filesystem, if a volume is kept.
    pub data: Option<String>,
    /// The disk image, unless it was left out.
    pub disk: Option<String>,
    /// Memory that the declaration asks for, in MiB.
    pub memory_mb: u32,
    /// Ports that containers listen on.
    pub ports: Vec<ManifestPort>,
    /// Names of the containers, each after those it depends on.
    pub containers: Vec<String>,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestPort {
    /// Its number.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

impl From<Port> for ManifestPort {
    fn from(port: Port) -> Self {
        Self { port: port.number, protocol: port.protocol.to_string() }
    }
}

impl Manifest {
    /// What a build of this appliance made.
    pub fn new(appliance: &Appliance, root_hash: &str, cmdline: &str, kernel_release: &str, disk: bool) -> Self {
        let mut ports: Vec<ManifestPort> =
            appliance.containers.iter().flat_map(|container| &container.ports).map(|port| (*port).into()).collect();
        ports.sort();
        Self {
            v: VERSION,
            appliance: appliance.name.clone(),
            root_hash: root_hash.to_owned(),
            cmdline: cmdline.to_owned(),
            kernel: KERNEL.to_owned(),
            kernel_release: kernel_release.to_owned(),
            initrd: INITRD.to_owned(),
            system: SYSTEM.to_owned(),
            data: appliance.needs_data().then(|| DATA.to_owned()),
            disk: disk.then(|| DISK.to_owned()),
            memory_mb: appliance.system.memory_mb,
            ports,
            containers: appliance.containers.iter().map(|container| container.name.clone()).collect(),
        }
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        // Strings and numbers only: serialising them can't fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
