//! The long forms, which Compose has for what is usually written as one string.

use crate::container::{Condition, Protocol};
use crate::read::{Choice, Int, List, Switch, keys};
use crate::syntax::{AbsolutePath, Bytes, DevicePath, Mode, Permissions, PortNumbers, Rlim, VolumeName};

keys! {
    /// One entry of `ports`.
    pub(crate) struct PortKeys ("a port") requires ["target"] {
        /// The port that the container listens on.
        target: PortNumbers,
        /// The port of the machine; the same as `target`, because ports aren't translated yet.
        published: PortNumbers,
        /// "tcp" (the default) or "udp".
        protocol: Protocol,
    }
    refused {
        "host_ip" => "a container with ports shares the machine's network: let its program listen on that address",
        "mode" => "there is one machine, so there is nothing to choose; leave it out",
        "name" => "names of ports aren't supported yet; leave it out",
        "app_protocol" => "it isn't used by anything; leave it out",
    }
}

keys! {
    /// One entry of `volumes` in a container.
    pub(crate) struct VolumeMountKeys ("a mount") requires ["target"] {
        /// "volume" (the default) or "tmpfs".
        r#type: MountType,
        /// Name of the volume.
        source: VolumeName,
        /// Where it is mounted.
        target: AbsolutePath,
        /// Mount it read-only. Default: false.
        read_only: Switch,
        /// Options of a "tmpfs".
        tmpfs: TmpfsKeys,
        /// Options of a "volume".
        volume: VolumeOptionKeys,
    }
    refused {
        "bind" => "directories of the machine aren't mounted; declare a volume",
        "image" => "images aren't mounted yet",
        "consistency" => "it means nothing here; leave it out",
        "readonly" => "it is called `read_only`, as in Compose",
    }
}

/// What a long `volumes` entry mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MountType {
    #[default]
    Volume,
    Tmpfs,
}

impl Choice for MountType {
    const WHAT: &'static str = "a type of mount";
    const CHOICES: &'static [(&'static str, Self)] = &[("volume", Self::Volume), ("tmpfs", Self::Tmpfs)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("bind", "an appliance has no directories of the machine to share; declare a volume: a table [volumes.NAME]"),
        ("image", "images aren't mounted yet"),
        ("npipe", "named pipes of Windows aren't supported"),
        ("cluster", "there is one machine only; use \"volume\""),
    ];
}

keys! {
    /// `tmpfs` in a long `volumes` entry. As with Docker, programs can't be executed from it.
    pub(crate) struct TmpfsKeys ("a tmpfs mount") requires [] {
        /// Size limit, not 0. Default: half the memory.
        size: Bytes,
        /// Permission bits. Default: 0o1777.
        mode: Mode,
    }
    refused {}
}

keys! {
    /// `volume` in a long `volumes` entry.
    pub(crate) struct VolumeOptionKeys ("options of a volume") requires [] {
        /// Leave a new volume empty. Default: false; it gets what the image has at the target.
        nocopy: Switch,
    }
    refused {
        "subpath" => "a part of a volume can't be mounted yet; declare another volume",
        "labels" => "labels of volumes aren't supported yet",
    }
}

keys! {
    /// One entry of `devices`.
    pub(crate) struct DeviceKeys ("a device") requires ["source"] {
        /// Path of the node on the machine.
        source: DevicePath,
        /// Path inside the container. Default: the same.
        target: AbsolutePath,
        /// Some of `r`, `w` and `m`. Default: "rwm".
        permissions: Permissions,
    }
    refused {}
}

keys! {
    /// One entry of `ulimits`.
    pub(crate) struct UlimitKeys ("a ulimit") requires ["soft", "hard"] {
        /// The limit in force.
        soft: Rlim,
        /// The limit up to which the program may raise it.
        hard: Rlim,
    }
    refused {}
}

keys! {
    /// `storage_opt`
    pub(crate) struct StorageKeys ("storage_opt") requires [] {
        /// Size limit of what the container writes to its root.
        size: Bytes,
    }
    refused {}
}

keys! {
    /// `blkio_config`
    pub(crate) struct BlkioKeys ("blkio_config") requires [] {
        /// Share of disk time against other containers, 10 to 1000. Default: 500.
        weight: Int<10, 1000>,
        /// Share of disk time by device, on the same scale.
        weight_device: List<Weighted>,
        /// Bytes read per second at most, by device.
        device_read_bps: List<BytesRate>,
        /// Bytes written per second at most, by device.
        device_write_bps: List<BytesRate>,
        /// Reads per second at most, by device.
        device_read_iops: List<CountRate>,
        /// Writes per second at most, by device.
        device_write_iops: List<CountRate>,
    }
    refused {}
}

keys! {
    /// One entry of `weight_device`.
    pub(crate) struct Weighted ("a weighted device") requires ["path", "weight"] {
        /// Path of the device.
        path: DevicePath,
        /// 10 to 1000. Default: 500.
        weight: Int<10, 1000>,
    }
    refused {}
}

keys! {
    /// A device with a rate.
    pub(crate) struct BytesRate ("a limited device") requires ["path", "rate"] {
        /// Path of the device.
        path: DevicePath,
        /// At most this per second.
        rate: Bytes,
    }
    refused {}
}

keys! {
    /// A device with a rate.
    pub(crate) struct CountRate ("a limited device") requires ["path", "rate"] {
        /// Path of the device.
        path: DevicePath,
        /// At most this per second.
        rate: Int<1, 4_294_967_295>,
    }
    refused {}
}

impl Choice for Condition {
    const WHAT: &'static str = "a condition";
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("service_started", Self::Started),
        ("service_healthy", Self::Healthy),
        ("service_completed_successfully", Self::Completed),
    ];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("started", "it is called \"service_started\", as in Compose"),
        ("healthy", "it is called \"service_healthy\", as in Compose"),
        ("completed", "it is called \"service_completed_successfully\", as in Compose"),
        ("service_completed", "it is called \"service_completed_successfully\", as in Compose"),
    ];
}
