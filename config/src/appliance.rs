//! What a valid declaration says about the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::Container;

/// A validated declaration. Everything that can be wrong without looking at another file has been ruled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// The appliance's name: `[a-z0-9]` with `-` between, at most 63 bytes, so that it is a host name too.
    pub name: String,
    /// Host name of the machine; the appliance's name unless declared.
    pub hostname: String,
    /// The machine.
    pub system: System,
    /// The kernel that boots.
    pub kernel: Kernel,
    /// The serial console.
    pub console: Console,
    /// The machine's network.
    pub network: Network,
    /// The data partition.
    pub data: Data,
    /// The declared volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// The containers, each after those it depends on, else in the order of declaration.
    pub containers: Vec<Container>,
}

impl Appliance {
    /// Whether the machine has a data partition: it is declared, any volume lies on it, or any log is kept there.
    pub fn needs_data(&self) -> bool {
        self.data != Data::default()
            || self.volumes.values().any(|volume| *volume == Volume::Data)
            || self.containers.iter().any(|container| container.kept_log.is_some())
    }

    /// The position in [`Appliance::containers`] of the container with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.containers.iter().position(|container| container.name == name)
    }
}

/// `[system]`: the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Memory in MiB that `garboard run` gives the virtual machine.
    pub memory_mb: u32,
    /// Sysctls of the machine as `(dotted name, value)`, in the order of declaration.
    pub sysctls: Vec<(String, String)>,
    /// Memory for the log rings of all containers together, in bytes.
    pub log_budget: u64,
    /// How the files of images are compressed in the system image.
    pub compression: Compression,
    /// The machine starts over when it stands still for so many seconds; `None`: it has no watchdog.
    pub watchdog: Option<u32>,
    /// vsock(7) port on which the status can be asked.
    pub status_vsock: Option<u32>,
}

/// How the files of images are compressed in the system image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: about half the size, and reads at memory speed.
    Lz4,
    /// Zstandard: smaller again, slower to read, and needs Linux 6.10.
    Zstd,
}

/// `[kernel]`: the kernel that boots. Paths are as written: relative ones start at the declaration's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel image; `None`: the distribution kernel that the builder unpacks.
    pub image: Option<PathBuf>,
    /// The directory of its modules (the one that holds `modules.dep`); only with `image`. `None` with an `image`: no modules.
    pub modules: Option<PathBuf>,
    /// Words to add to the kernel command line.
    pub cmdline: Vec<String>,
    /// Modules to load besides those the builder finds necessary, by name.
    pub extra_modules: Vec<String>,
}

/// `[console]`: what the serial console shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Print what containers print.
    pub logs: bool,
    /// Print the status table when something changed.
    pub status: bool,
    /// What a person at it may do. Default [`ConsoleAccess::Off`].
    pub access: ConsoleAccess,
}

/// What a person at the serial console may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConsoleAccess {
    /// Nothing: no input is read.
    #[default]
    Off,
    /// See everything.
    Status,
    /// Also stop, start and restart containers, with the passphrase of this hash (`$argon2id$…`).
    Control(String),
}

/// `[network]`: the machine's uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// How the uplink gets its address.
    pub address: Address,
    /// The uplink's interface name; `None`: the first Ethernet interface.
    pub interface: Option<String>,
    /// Name servers, besides those that DHCP names.
    pub dns: Vec<IpAddr>,
}

/// How the uplink gets its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Address {
    /// No uplink: loopback only.
    None,
    /// DHCP (IPv4).
    #[default]
    Dhcp,
    /// Fixed.
    Static {
        /// At least one.
        addresses: Vec<Cidr>,
        /// Default gateways, one of IPv4 and one of IPv6 at most: in the network of one of the addresses, link-local, or an IPv4 one on
        /// the link if an address is a `/32`.
        gateways: Vec<IpAddr>,
    },
}

/// An address with the length of its network prefix. Displays as `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits, at most 32 or 128.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `other` lies in this address's network.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let host_bits = 32u32.saturating_sub(self.prefix.into());
                (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let host_bits = 128u32.saturating_sub(self.prefix.into());
                (a.to_bits() ^ b.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// `[data]`: the data partition, which holds the volumes and kept logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// Size in bytes that the builder makes it, before PID 1 grows it to the disk's end; `None`: [`Data::DEFAULT_SIZE`].
    pub size: Option<u64>,
    /// Stop the boot when it can't be mounted. Else volumes fall back to memory, and the status says so.
    pub required: bool,
}

impl Data {
    /// Bytes that it has when nothing is declared.
    pub const DEFAULT_SIZE: u64 = 64 << 20;
}

/// `[volumes.NAME]`: where a volume's files live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// In a directory of the data partition; kept.
    Data,
    /// In memory; gone at power off.
    Tmpfs {
        /// Size limit in bytes; `None`: the kernel's own, half the memory.
        size: Option<u64>,
    },
}
