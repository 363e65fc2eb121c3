//! The keys about the machine.

use serde_json::{Value, json};

use super::ContainerKeys;
use crate::Compression;
use crate::errors::quote;
use crate::read::{Choice, Fault, Int, List, Named, OneOrMany, Pairs, Switch, Text, Word, keys};
use crate::syntax::{
    AddressEntry, Bytes, FilePath, HostName, InterfaceName, Ip, MachineName, PassphraseHash, Period, decimal,
};

keys! {
    /// The whole file.
    pub(crate) struct ApplianceKeys ("an appliance") requires ["name", "containers"] {
        /// The appliance's name: at most 63 lower-case letters, digits and `-`.
        name: MachineName,
        /// The machine: host name, memory, sysctls, logs.
        system: SystemKeys,
        /// The kernel that boots. Default: the distribution kernel that `garboard build` fetches.
        kernel: KernelKeys,
        /// What the serial console shows.
        console: ConsoleKeys,
        /// The machine's network. Default: DHCP on the first Ethernet interface.
        network: NetworkKeys,
        /// The data partition, which holds the volumes. It is there if `size` or `required` is set, a volume is kept or a log is.
        data: DataKeys,
        /// Volumes by name: directories that outlive their containers.
        volumes: Named<VolumeKeys>,
        /// Containers by name. Keys are Compose's.
        containers: Named<ContainerKeys>,
    }
    refused {
        "services" => "containers are declared in tables [containers.NAME]; the keys in them are Compose's",
        "container" => "containers are declared in tables [containers.NAME]",
        "volume" => "volumes are declared in tables [volumes.NAME]",
        "version" => "an appliance has no version of its format; leave it out",
        "hostname" => "the machine's host name is `hostname` in [system]",
        "memory" => "the machine's memory is `memory` in [system]",
        "networks" => "declared networks aren't supported yet; a container has `network_mode = \"none\"` or \"host\", the machine [network]",
        "secrets" => "secrets aren't supported yet",
        "configs" => "configs aren't supported yet; put the file into the image",
        "include" => "one file declares the whole appliance",
        "models" => "models aren't supported",
    }
}

keys! {
    /// `[system]`
    pub(crate) struct SystemKeys ("[system]") requires [] {
        /// Host name of the machine. Default: the appliance's name.
        hostname: HostName,
        /// Memory of the virtual machine that `garboard run` starts, in MiB, or with a unit. Default: 512.
        memory: Memory,
        /// Sysctls of the machine, by their dotted names.
        sysctls: Pairs,
        /// Memory for the logs of all containers together. Default: "8m".
        log_budget: Bytes,
        /// How the files of images are compressed in the system image: "none" (the default), "lz4" (about half the size, quick to
        /// read) or "zstd" (smaller again, slower to read; Linux 6.10).
        compression: Compression,
        /// The machine starts over when it stands still for so long, by its watchdog, or the kernel's own if it has none: "1s" to "10m".
        /// Default: it doesn't.
        watchdog: Period,
        /// Port of vsock(7) on which the machine's status can be asked, besides that of QEMU's serial device.
        status_vsock: Int<1, 4_294_967_294>,
    }
    refused {
        "timezone" => "the machine's clock is UTC; a container chooses its time zone by the environment variable TZ",
        "mem_limit" => "it is called `memory` here",
        "cpus" => "the number of processors is chosen when the machine is started, by `garboard run` or its hypervisor",
    }
}

keys! {
    /// `[kernel]`
    pub(crate) struct KernelKeys ("[kernel]") requires [] {
        /// Path of a kernel image (bzImage), from this file's directory. Default: the distribution kernel.
        image: FilePath,
        /// Path of the directory of that kernel's modules, the one that holds modules.dep.
        modules: FilePath,
        /// Words to add to the kernel command line: a list, or one string with spaces between.
        cmdline: OneOrMany<Text>,
        /// Names of modules to load besides those that the appliance needs anyway.
        extra_modules: List<Text>,
    }
    refused {
        "initrd" => "the builder makes the initrd; name modules in `extra_modules`",
        "version" => "name a kernel image in `image`",
        "params" => "it is called `cmdline` here",
        "args" => "it is called `cmdline` here",
    }
}

keys! {
    /// `[console]`
    pub(crate) struct ConsoleKeys ("[console]") requires [] {
        /// Print what containers print. Default: true.
        logs: Switch,
        /// Print the status table when something changed. Default: true.
        status: Switch,
        /// What a person at the console may do: "off" (the default): nothing, it prints and reads nothing. "status": see everything on a
        /// screen that any key opens. "control": also stop, start and restart containers, with a passphrase.
        access: Access,
        /// Of that passphrase, as the command `argon2` writes it with the options -id -e: "$argon2id$…".
        passphrase_hash: PassphraseHash,
    }
    refused {}
}

keys! {
    /// `[network]`
    pub(crate) struct NetworkKeys ("[network]") requires [] {
        /// "dhcp" (the default), "none", or an address with its prefix length, or a list of such addresses.
        address: OneOrMany<AddressEntry>,
        /// Default gateway, with fixed addresses: in the network of one of them, or anywhere on the link of an IPv4 address with "/32".
        /// One of IPv4 and one of IPv6 as a list.
        gateway: OneOrMany<Ip>,
        /// Name of the interface. Default: the first Ethernet interface.
        interface: InterfaceName,
        /// Name servers, besides those that DHCP names: an address or a list.
        dns: OneOrMany<Ip>,
    }
    refused {
        "addresses" => "it is called `address` here, for one or a list",
        "dhcp" => "write address = \"dhcp\"",
        "vlan" => "VLANs aren't supported yet",
        "firewall" => "a firewall isn't supported yet",
        "ntp" => "setting the clock over the network isn't supported yet",
    }
}

keys! {
    /// `[data]`
    pub(crate) struct DataKeys ("[data]") requires [] {
        /// Size of the data partition as it is built; it grows to the end of its disk at boot. Default: small.
        size: Bytes,
        /// Stop the machine when the data partition can't be mounted: it is switched off, or with UEFI starts over, or does what
        /// `garboard.stop=poweroff`, `=reboot` or `=halt` in `[kernel]` `cmdline` says. Default: false, volumes are then in memory and the
        /// status says so. A disk that can only be read is mounted all the same.
        required: Switch,
    }
    refused {
        "encrypt" => "encryption isn't supported yet",
        "encryption" => "encryption isn't supported yet",
    }
}

keys! {
    /// `[volumes.NAME]`
    pub(crate) struct VolumeKeys ("a volume") requires [] {
        /// "data" (the default): kept, on the data partition. "tmpfs": in memory, gone at power off.
        kind: VolumeKind,
        /// Size limit of a "tmpfs" volume. Default: half the memory.
        size: Bytes,
    }
    refused {
        "driver" => "volumes have no drivers; choose `kind` = \"data\" or \"tmpfs\"",
        "driver_opts" => "volumes have no drivers; choose `kind` = \"data\" or \"tmpfs\"",
        "external" => "a machine has no volumes but those that its appliance declares; leave it out",
        "labels" => "labels of volumes aren't supported yet",
        "name" => "a volume's name is that of its table",
        "type" => "it is called `kind` here",
    }
}

impl Choice for Compression {
    const WHAT: &'static str = "a compression of the system image";
    const CHOICES: &'static [(&'static str, Self)] = &[("none", Self::None), ("lz4", Self::Lz4), ("zstd", Self::Zstd)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("gzip", "write \"zstd\", which is smaller and quicker to read; layers of images may be gzip all the same"),
        ("lz4hc", "write \"lz4\": it is made with high compression always"),
    ];
}

/// What a person at the console may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Access {
    #[default]
    Off,
    Status,
    Control,
}

impl Choice for Access {
    const WHAT: &'static str = "a kind of console access";
    const CHOICES: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("status", Self::Status), ("control", Self::Control)];
}

/// Where a volume lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum VolumeKind {
    #[default]
    Data,
    Tmpfs,
}

impl Choice for VolumeKind {
    const WHAT: &'static str = "a kind of volume";
    const CHOICES: &'static [(&'static str, Self)] = &[("data", Self::Data), ("tmpfs", Self::Tmpfs)];
}

/// Memory of the machine in MiB, 80 MiB to 1 TiB: with less, a distribution's kernel ends before PID 1 could say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u32);

impl Memory {
    const MIN: u32 = 80;
    const MAX: u32 = 1 << 20;
}

impl Word for Memory {
    const EXPECTED: &'static str = "a number of MiB, or a size such as \"512m\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let bytes = Bytes::parse(text)?.0;
        if let Some(mib) = decimal::<u32>(text).filter(|mib| (Self::MIN..=Self::MAX).contains(mib)) {
            return Err(Fault::new(format!("{} is a number of bytes, as it is in quotes", quote(text)))
                .help(format!("leave out the quotes for MiB: {mib}")));
        }
        i64::try_from(bytes >> 20).ok().and_then(Self::from_integer).unwrap_or_else(|| Err(out_of_range()))
    }

    fn from_integer(number: i64) -> Option<Result<Self, Fault>> {
        let in_range = |mib: &u32| (Self::MIN..=Self::MAX).contains(mib);
        Some(u32::try_from(number).ok().filter(in_range).map(Self).ok_or_else(out_of_range))
    }

    fn word_schema() -> Value {
        json!({ "anyOf": [{ "type": "integer", "minimum": Self::MIN, "maximum": Self::MAX }, { "type": "string", "minLength": 2 }] })
    }
}

fn out_of_range() -> Fault {
    Fault::new("the machine's memory must be from 80 MiB to 1 TiB")
        .help("a number without a unit is in MiB here: 512, or \"512m\"")
}
